"""How Deep Image Prior's solver is set."""

import dataclasses

from jaxsr.errors import InputError, as_float, require_integers


@dataclasses.dataclass(frozen=True)
class Config:
    """The solver's settings.

    Attributes:
      iterations: in all, at most ten million.
      learning_rate: of Adam (betas 0.9 and 0.999, epsilon 1e-8), a number; for a schedule, clipping
        or another rule there is `optimiser`.
      noise_std: standard deviation of the noise added to the latent in every iteration.
      average: a, decay of the running average of the outputs, in [0, 1). Output t joins it with
        weight max(1 - a, 20 / (t + 19)): by a only after 20 / (1 - a) - 19 iterations (1981 for
        0.99). 0 keeps the last output alone.
      latent_channels: channels of the latent.
      patience: iterations without a lower variance of the outputs, after which a fit ends with the
        image that it had at the lowest (`jaxsr.dip.stopping`); None: all iterations, last image.

    Raises:
      InputError: a number is out of its range.
    """

    iterations: int = 2000
    learning_rate: float = 0.01
    noise_std: float = 0.03
    average: float = 0.99
    latent_channels: int = 32
    patience: int | None = None

    def __post_init__(self) -> None:
        patience = 1 if self.patience is None else self.patience
        require_integers(
            iterations=self.iterations, latent_channels=self.latent_channels, patience=patience
        )
        for name in ("iterations", "latent_channels", "patience"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, int(value))  # NumPy's may be too narrow for sums
        for name in ("learning_rate", "noise_std", "average"):
            object.__setattr__(self, name, as_float(name, getattr(self, name)))
        rules = (
            ("iterations", self.iterations <= 10**7, "at most 10 million"),
            ("learning_rate", 0 < self.learning_rate < float("inf"), "above 0, and finite"),
            ("noise_std", 0 <= self.noise_std < float("inf"), "at least 0, and finite"),
            ("average", 0 <= self.average < 1, "in [0, 1)"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise InputError(f"`{name}` (={getattr(self, name)}) must be {rule}")


def require_config(config: object) -> None:
    """Refuses what is no `Config`.

    Raises:
      InputError: it is none.
    """
    if not isinstance(config, Config):
        raise InputError(f"`config` (={config}) must be a `dip.Config`")
