"""Super-resolution of one image by Deep Image Prior.

    python -m experiments.dip --loss charbonnier                    a built-in photograph
    python -m experiments.dip --hr butterfly.png --protocol dip     a ground truth, degraded here
    python -m experiments.dip --lr small.png --factor 4             upscale your own image

The method is Ulyanov, Vedaldi and Lempitsky's (CVPR 2018); the question is "Robust Loss with Deep
Image Prior"'s: what does another loss than the mean squared error bring? README has what to expect.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from experiments import command, finished, folder, pages, problem
from jaxsr import dip, losses
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from jaxsr.operators import Kernel
from jaxsr.reports import environment

LossName = Literal["mse", "l1", "charbonnier", "huber", "general"]
ProtocolName = Literal["plain", "dip", "standard", "paper-dip", "paper-lapsrn"]
Recipe = Literal["best", "reference"]
SNAPSHOTS = tuple(digit * 10**power for power in range(1, 6) for digit in (1, 2, 5))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Super-resolution of one image by Deep Image Prior."""

    hr: pathlib.Path | None = None
    """A ground-truth image: degraded here, the result is compared with it."""
    lr: pathlib.Path | None = None
    """A low-resolution image to upscale. With neither, a built-in photograph stands for --hr."""
    loss: LossName = "charbonnier"
    """Of the downsampled output against the low resolution; means over pixels."""
    loss_alpha: float | None = None
    """Shape of --loss general (Barron, CVPR 2019): 2 least robust, -inf most; default 1."""
    loss_scale: float | None = None
    """Width of --loss general, in units of the image's range [0, 1]; default 0.05."""
    factor: int = 4
    """Of the enlargement: an integer from 2."""
    kernel: Kernel | None = None
    """How the low resolution is modelled. Default: as it was made here; for --lr matlab-bicubic,
    what the field's data sets were made with. Choose pillow-lanczos or pillow-bicubic for images
    shrunk by Pillow, area for averages of pixels (a sensor's, OpenCV's INTER_AREA), lanczos2 or
    lanczos3 to compare with the released code's strided convolution."""
    iterations: int | None = None
    """Default by factor, as released: 1150 for 2, 2000 below 6, 4000 from 6."""
    learning_rate: float = 0.01
    """Of Adam (released: 0.01)."""
    noise_std: float | None = None
    """Of the noise added to the latent, itself in [0, 0.1], in each iteration. Default by factor,
    as released: 0.01 for 2, 0.03 below 6, 0.05 from 6."""
    tv_weight: float = 0.0
    """Weight of the output's total variation in the loss."""
    average: float | None = None
    """Decay of the running average of the outputs, in [0, 1); 0 takes the last output alone.
    Default 0.99, as the released denoising has it, after a start by polynomial decay."""
    patience: int | None = None
    """Iterations after which the fit ends unless the variance of its outputs has fallen to a new
    minimum (ES-EMV); the result is the image at the minimum. For noisy images: 1000, say. Default:
    all iterations, the last image."""
    seed: int = 0
    """Of all randomness: weights, latent, noise."""
    precision: command.Precision = "float32"
    """Of products of matrices. tf32 is faster on NVIDIA GPUs since Ampere; bfloat16 computes the
    whole network in half precision."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""
    remat: bool = False
    """Compute inner results again for the gradient instead of keeping them: for images that do not
    fit into memory otherwise; `python -m benchmarks.memory` shows what it saves and costs."""
    recipe: Recipe = "best"
    """reference makes the released code's choices: kernel lanczos2, the last noisy output."""
    protocol: ProtocolName = "plain"
    """How --hr is cropped and degraded, and what the figures mean; spelled out beside them."""
    checkpoint_every: int = 200
    """Iterations between checkpoints; a killed run loses at most these."""
    out: pathlib.Path | None = None
    """Output folder. Default: runs/dip/IMAGE_xFACTOR_LOSS_seedSEED."""

    def resolved(self, protocol_kernel: Kernel) -> "Settings":
        """With every default that depends on the others filled in.

        Raises:
          InputError: a setting is out of its range or does not go with the others.
        """
        if self.factor < 2:
            raise InputError(f"`--factor` (={self.factor}) must be an integer of at least 2")
        if self.checkpoint_every < 1:
            raise InputError(f"`--checkpoint-every` (={self.checkpoint_every}) must be at least 1")
        if self.seed < 0 or self.seed >= 2**32:
            raise InputError(f"`--seed` (={self.seed}) must be in [0, 2^32)")
        general = self.loss == "general"
        for name, value in (("alpha", self.loss_alpha), ("scale", self.loss_scale)):
            if value is not None and not general:
                raise InputError(f"`--loss-{name}` (={value}) goes with `--loss general` alone")
        noise, iterations = (
            (0.01, 1150) if self.factor == 2 else (0.03, 2000) if self.factor < 6 else (0.05, 4000)
        )
        reference = self.recipe == "reference"
        kernel: Kernel = "matlab-bicubic" if self.lr else protocol_kernel
        return dataclasses.replace(
            self,
            loss_alpha=1.0 if general and self.loss_alpha is None else self.loss_alpha,
            loss_scale=0.05 if general and self.loss_scale is None else self.loss_scale,
            kernel=self.kernel or ("lanczos2" if reference else kernel),
            iterations=iterations if self.iterations is None else self.iterations,
            noise_std=noise if self.noise_std is None else self.noise_std,
            average=(0.0 if reference else 0.99) if self.average is None else self.average,
        )

    def loss_function(self) -> losses.Loss:
        """The elementwise loss by its name."""
        if self.loss != "general":
            return losses.LOSSES[self.loss]
        assert self.loss_alpha is not None and self.loss_scale is not None  # resolved
        return losses.general(self.loss_alpha, scale=self.loss_scale)

    def config(self) -> dip.Config:
        """The solver's part."""
        assert self.iterations is not None and self.noise_std is not None  # resolved
        assert self.average is not None
        return dip.Config(
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            noise_std=self.noise_std,
            average=self.average,
            tv_weight=self.tv_weight,
            patience=self.patience,
        )


def run(settings: Settings, *, stop: Callable[[], bool] = lambda: False) -> int:
    """One fit, from the image to the folder; the exit code. `stop` ends it as Ctrl-C does."""
    kernel = problem.PROTOCOLS[settings.protocol].kernel
    settings = settings.resolved(kernel)
    assert settings.kernel is not None  # resolved
    loss, config = settings.loss_function(), settings.config()
    task = problem.load(settings.hr, settings.lr, settings.factor, settings.protocol)
    out = settings.out or pathlib.Path(
        f"runs/dip/{task.name}_x{settings.factor}_{settings.loss}_seed{settings.seed}"
    )
    on = command.device(settings.device)
    with (
        folder.RunFolder(out, settings, task) as results,
        command.computing(on, settings.precision),
    ):
        if results.finished(config.iterations):
            print(f"{out} is finished: {results.summary()}")
            pages.beside(finished.read, out)
            return 0
        network = SkipUNet(
            channels=task.lr.shape[-1],
            dtype=jnp.bfloat16 if settings.precision == "bfloat16" else None,
            remat=settings.remat,
        )
        size = task.canvas(2 ** len(network.down))
        key = jax.random.key(settings.seed)
        start = functools.partial(
            dip.init, key, init_fn=network.init, apply_fn=network.apply, size=size, config=config
        )
        resume = results.restore(start)
        with command.interruptible() as interrupted, results.progress(config.iterations) as bar:

            def on_chunk(progress: dip.Progress) -> bool:
                bar.show(progress)
                results.keep(progress, settings.checkpoint_every, SNAPSHOTS)
                return interrupted() or stop()

            result = dip.fit(
                key,
                jnp.asarray(task.lr)[None],
                task.operator(settings.kernel),
                init_fn=network.init,
                apply_fn=network.apply,
                size=size,
                loss=loss,
                config=config,
                reference=task.reference(),
                score=task.score,
                on_chunk=on_chunk,
                pauses=folder.pauses(config.iterations, settings.checkpoint_every, SNAPSHOTS),
                resume=resume,
            )
        results.write_images(result)
        done = int(result.state.step)
        if not result.finite:
            print(
                f"the loss or a weight became NaN or infinite after iteration {done}: that state "
                f"is kept in {out}; try a lower --learning-rate (={settings.learning_rate})"
            )
            return 1
        if not result.over:
            print(
                f"stopped at iteration {done} of {config.iterations}, image and checkpoint in {out}"
            )
            print("the same command goes on from there")
            return command.INTERRUPTED
        results.write_report(result, environment(on) | {"precision": settings.precision})
        print(results.summary())
    pages.beside(finished.read, out)
    return 0


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
