"""What a fit's gradient is followed by: Adam, or another gradient transformation of optax."""

import optax

from jaxsr.dip.config import Config
from jaxsr.errors import InputError


def require_optimiser(optimiser: object) -> None:
    """Refuses what is neither None nor a gradient transformation of optax.

    Raises:
      InputError: it is another thing.
    """
    parts = [getattr(optimiser, name, None) for name in ("init", "update")]
    if optimiser is not None and not all(map(callable, parts)):
        said = " ".join(repr(optimiser).split())
        raise InputError(f"`optimiser` (={said}) must be one of optax, such as optax.adam(0.01)")


def adam(config: Config) -> optax.GradientTransformation:
    """Adam at the constant learning rate of `config`."""
    # Where a gradient is 0, so is Adam's square root: the tiny eps_root gives that a derivative.
    return optax.adam(config.learning_rate, eps_root=1e-30)
