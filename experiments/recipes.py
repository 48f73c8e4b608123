"""What a fit of Deep Image Prior may be told, and the released recipes behind the defaults."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

import tyro

from experiments import budget, command
from jaxsr import dip, losses
from jaxsr.errors import InputError
from jaxsr.operators import Kernel
from jaxsr.options import Given, option
from jaxsr.protocols import PROTOCOLS

Task = Literal["sr", "denoise", "inpaint", "deblur"]
LossName = Literal["mse", "l1", "charbonnier", "huber", "general"]
ProtocolName = Literal["plain", "dip", "standard", "paper-dip", "paper-lapsrn"]
Recipe = Literal["best", "reference"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """An image restored by Deep Image Prior."""

    task: Task = "sr"
    """The image's main degradation: low resolution, noise, missing pixels or blur. --sigma, --mask,
    --missing and --blur add others."""
    hr: Given[pathlib.Path] = None
    """A ground-truth image: it is degraded, restored and compared with the result."""
    lr: Annotated[Given[pathlib.Path], tyro.conf.arg(aliases=["--observed"])] = None
    """A degraded image to restore. With neither, a built-in photograph stands for --hr."""
    loss: Given[LossName] = None
    """Loss between the degraded output and the observation, mean over pixels. Default: charbonnier
    for sr (released: mse), else mse."""
    loss_alpha: Given[float] = None
    """Shape of --loss general (Barron, CVPR 2019): 2 is the squared error, the smaller the more
    robust, down to -inf; default 1."""
    loss_scale: Given[float] = None
    """Scale of --loss general, in units of the image's range [0, 1]; default 0.05."""
    factor: Given[int] = None
    """Enlargement, for sr: an integer of at least 2; default 4."""
    kernel: Given[Kernel] = None
    """How the low resolution is modelled. Default: as it was made here; for --lr matlab-bicubic,
    what the field's data sets were made with. Choose pillow-lanczos or pillow-bicubic for images
    shrunk by Pillow, area for averages of pixels (a sensor's, OpenCV's INTER_AREA), lanczos2 or
    lanczos3 to compare with the released code's strided convolution."""
    sigma: Given[float] = None
    """Standard deviation of Gaussian noise, in units of 1/255: added with --hr, present already
    with --lr. Default 25 for denoise, else none."""
    mask: Given[pathlib.Path] = None
    """An image of the observation's size: white where a pixel was observed, black where not; gray
    counts as the nearer of the two."""
    missing: Given[float] = None
    """Share of pixels, drawn at random, that --hr loses; default 0.5 for inpaint without --mask."""
    blur: Given[float] = None
    """Standard deviation of a Gaussian blur, in pixels; default 1.6 for deblur of --hr."""
    blur_kernel: Given[pathlib.Path] = None
    """Instead of --blur, a file of the kernel (a point's image), with odd sides: an image (gray
    values) or NumPy's .npy; divided by its sum. The image's border is repeated beyond it."""
    degrade_seed: int = 0
    """Seed of the noise and the missing pixels that --hr gets."""
    iterations: Given[int] = None
    """Default by task, as released: sr 2000 for --factor 4, 4000 for 8; denoise 3000, inpaint 6001.
    Not released: sr 1150 for --factor 2, 2000 below 6, else 4000; deblur 2000."""
    learning_rate: float = 0.01
    """Adam's (released: 0.01)."""
    noise_std: Given[float] = None
    """Standard deviation of the noise added in each iteration to the latent, which is in [0, 0.1].
    Default by task, as released: sr 0.03 for --factor 4, 0.05 for 8; denoise 1/30, 1/20 from
    --sigma 50; inpaint 0.03. Not released: sr 0.01 for --factor 2, 0.03 below 6, else 0.05; deblur
    0.01."""
    tv_weight: float = 0.0
    """Weight of the output's total variation in the loss."""
    average: Given[float] = None
    """Decay of the running average of the outputs, in [0, 1); 0 takes the last output alone.
    Default 0.99, as in the released denoising (0 with --recipe reference). Before iteration 1981
    (0.95: 381) the decay is polynomial, which forgets the first outputs sooner."""
    patience: Given[int] = None
    """Iterations after which the fit ends unless the variance of its outputs has fallen to a new
    minimum (ES-EMV); the result is the image at the minimum. 0 runs through and takes the last.
    Default 1000, as released, where there is noise (--sigma), else 0."""
    seed: int = 0
    """Seed of the whole fit: weights, latent, noise."""
    precision: command.Precision = "float32"
    """Precision of matrix products. tf32 is faster on NVIDIA GPUs since Ampere; bfloat16 computes
    the whole network in half precision."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""
    remat: bool = False
    """Recompute activations for the gradient instead of keeping them, for images that otherwise do
    not fit into memory; `python -m benchmarks.memory` shows what it saves and costs."""
    recipe: Recipe = "best"
    """For sr, reference makes the released code's choices but for the loss (add --loss mse):
    kernel lanczos2, the last noisy output. `dip.fit` still rolls back."""
    protocol: ProtocolName = "plain"
    """How --hr is cropped and degraded for sr, and what the figures mean (printed with them)."""
    checkpoint_every: int = 200
    """Iterations between checkpoints, which are at least 10 seconds apart: a killed run loses what
    came after the last. A run goes on only under the number that it began with."""
    out: Given[pathlib.Path] = None
    """Output folder. Default: runs/dip/IMAGE_xFACTOR_LOSS_seedSEED, or _TASK_ for xFACTOR; seeds
    for seed where --seeds is above 1."""

    def resolved(self) -> "Settings":
        """With every default that depends on the others filled in; resolved settings stay.

        Raises:
          InputError: a setting is out of its range or does not go with the others.
        """
        self._check()
        sigma = 25.0 if self.task == "denoise" and self.sigma is None else self.sigma
        patience = 1000 if sigma and self.patience is None else self.patience
        factor = (self.factor or 4) if self.task == "sr" else None
        noise, iterations = _released(self.task, factor or 1, sigma or 0.0)
        reference = self.recipe == "reference"
        kernel: Kernel = "matlab-bicubic" if self.lr else PROTOCOLS[self.protocol].kernel
        loss: LossName = self.loss or ("charbonnier" if self.task == "sr" else "mse")
        drawn = self.task == "inpaint" and self.mask is None and self.missing is None
        blurred = self.task == "deblur" and self.blur is None and self.blur_kernel is None
        return dataclasses.replace(
            self,
            loss=loss,
            loss_alpha=1.0 if loss == "general" and self.loss_alpha is None else self.loss_alpha,
            loss_scale=0.05 if loss == "general" and self.loss_scale is None else self.loss_scale,
            factor=factor,
            kernel=None if factor is None else self.kernel or ("lanczos2" if reference else kernel),
            sigma=sigma,
            missing=0.5 if drawn else self.missing,
            blur=1.6 if blurred else self.blur,
            iterations=iterations if self.iterations is None else self.iterations,
            noise_std=noise if self.noise_std is None else self.noise_std,
            average=(0.0 if reference else 0.99) if self.average is None else self.average,
            patience=patience if sigma else patience or None,
        )

    def _check(self) -> None:
        sr = {
            "factor": self.factor,
            "kernel": self.kernel,
            "protocol": None if self.protocol == "plain" else self.protocol,
            "recipe": None if self.recipe == "best" else self.recipe,
        }
        general = {"loss_alpha": self.loss_alpha, "loss_scale": self.loss_scale}
        made = {
            "missing": self.missing,
            "degrade_seed": self.degrade_seed or None,
            "protocol": sr["protocol"],
        }
        groups: tuple[tuple[Mapping[str, object], bool, str], ...] = (
            (sr, self.task == "sr", "--task sr"),
            (made, not self.lr, "--hr"),
            (general, self.loss == "general", "--loss general"),
        )
        for settings, goes, owner in groups:
            for name, value in settings.items():
                if value is not None and not goes:
                    raise InputError(f"{option(name)} (={value}) goes with `{owner}` alone")
        for one, other in (("hr", "lr"), ("mask", "missing"), ("blur", "blur_kernel")):
            values = getattr(self, one), getattr(self, other)
            if None not in values:
                pair = f"{option(one)} (={values[0]}) and {option(other)} (={values[1]})"
                raise InputError(f"{pair} exclude each other: give one")
        if self.lr and self.task == "inpaint" and self.mask is None:
            raise InputError(f"`--observed` (={self.lr}) to inpaint needs `--mask`: what is known")
        if self.lr and self.task == "deblur" and self.blur is None and self.blur_kernel is None:
            raise InputError(
                f"`--observed` (={self.lr}) to deblur needs `--blur` or `--blur-kernel`"
            )
        inf, seeds = float("inf"), budget.SEEDS
        alpha, scale = self.loss_alpha, self.loss_scale
        rules = (
            ("loss_alpha", alpha is None or alpha < inf, "a real number or -inf"),
            ("loss_scale", scale is None or 0 < scale < inf, "above 0, and finite"),
            ("factor", self.factor is None or self.factor >= 2, "an integer of at least 2"),
            ("sigma", self.sigma is None or 0 < self.sigma <= 1000, "above 0, at most 1000"),
            ("missing", self.missing is None or 0 < self.missing < 1, "above 0 and below 1"),
            ("blur", self.blur is None or 0.01 <= self.blur <= 50, "in [0.01, 50]"),
            ("checkpoint_every", self.checkpoint_every >= 1, "at least 1"),
            ("patience", self.patience is None or self.patience >= 0, "at least 0"),
            ("tv_weight", 0 <= self.tv_weight < inf, "at least 0, and finite"),
            ("seed", 0 <= self.seed < seeds, "in [0, 2^32)"),
            ("degrade_seed", 0 <= self.degrade_seed < seeds, "in [0, 2^32)"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise InputError(f"{option(name)} (={getattr(self, name)}) must be {rule}")

    def loss_function(self) -> losses.Loss:
        """The elementwise loss by its name; of resolved settings."""
        assert self.loss is not None
        if self.loss != "general":
            return losses.LOSSES[self.loss]
        assert self.loss_alpha is not None and self.loss_scale is not None
        return losses.general(self.loss_alpha, scale=self.loss_scale)

    def regulariser(self) -> dip.Regulariser | None:
        """Total variation by its weight, if it has any."""
        return _total_variation(self.tv_weight) if self.tv_weight else None

    def config(self) -> dip.Config:
        """The solver's part; of resolved settings."""
        assert self.iterations is not None and self.noise_std is not None
        assert self.average is not None
        return dip.Config(
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            noise_std=self.noise_std,
            average=self.average,
            patience=self.patience or None,
        )


@functools.cache  # equal weights are one function, hence one program
def _total_variation(weight: float) -> dip.Regulariser:
    return lambda image: weight * losses.total_variation(image)


def _released(task: Task, factor: int, sigma: float) -> tuple[float, int]:
    """Noise of the latent, and iterations."""
    match task:
        case "denoise":
            return (1 / 30 if sigma < 50 else 1 / 20), 3000
        case "inpaint":
            return 0.03, 6001
        case "deblur":
            return 0.01, 2000
        case "sr":
            return (0.01, 1150) if factor == 2 else (0.03, 2000) if factor < 6 else (0.05, 4000)
