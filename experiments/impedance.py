"""The prior's impedance: images are fitted faster than noise (the paper's section 3.3).

    python -m experiments.impedance                             a built-in photograph
    python -m experiments.impedance --hr butterfly.png --iterations 5000

One network after another is fitted to an image, to the image with noise, to its pixels shuffled and
to noise alone, from the same weights and latent: the loss of the natural image falls first and
furthest. Reference: Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior" (CVPR 2018), figure 2. Each
finished fit is a record under --results, which `experiments.figures` draws.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import budget, command, fits, middle, networks, problem
from experiments.ledger import Ledger, Record
from jaxsr import dip, losses, operators, reports
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from jaxsr.options import Given

SIGMA = 25 / 255  # of the noise added; that alone is uniform in [0, 1]


def targets(key: jax.Array, image: np.ndarray) -> dict[str, np.ndarray]:
    """What is fitted, (H, W, C) each, by name. Key consumed."""
    noise_key, order_key, alone_key = jax.random.split(key, 3)
    height, width, channels = image.shape
    noise = np.asarray(jax.random.normal(noise_key, image.shape))
    order = np.asarray(jax.random.permutation(order_key, height * width))
    return {
        "image": image,
        "image-and-noise": np.clip(image + np.float32(SIGMA) * noise, 0, 1),
        "shuffled": image.reshape(-1, channels)[order].reshape(image.shape),
        "noise": np.asarray(jax.random.uniform(alone_key, image.shape)),
    }


@dataclasses.dataclass(frozen=True)
class Settings:
    """Loss curves of an image, the image with noise, its pixels shuffled, and noise."""

    hr: Given[pathlib.Path] = None
    """An image. Default: a built-in photograph."""
    size: int = 128
    """Side of the square that is cut from its middle, in pixels: a multiple of 32, at least 64."""
    iterations: int = 2000
    """Iterations of each fit."""
    seed: int = 0
    """Seed of weights, latent, noise and order."""
    results: pathlib.Path = pathlib.Path("results/impedance")
    """Folder of the records."""
    precision: command.Precision = "float32"
    """Precision of matrix products."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""


def run(settings: Settings) -> int:
    """Fits what is missing; the exit code."""
    budget.check_seed(settings.seed)
    config = dip.Config(iterations=settings.iterations, noise_std=0.0)
    name, image = middle.square(settings.hr, settings.size)
    ledger = Ledger(settings.results, figures=("loss",))
    shared: dict[str, Any] = {"image": name, "input_sha256": problem.digest(image)}
    shared |= {"seed": settings.seed, "precision": settings.precision}
    shared |= dataclasses.asdict(config)
    on = command.device(settings.device)
    network = networks.prior(settings.precision, channels=image.shape[-1])
    with command.computing(on, settings.precision), command.interruptible() as pressed:
        key, fit_key = jax.random.split(jax.random.key(settings.seed))
        missing = False
        for what, target in targets(key, image).items():
            cell, made = f"{name}/{what}_seed{settings.seed}", shared | {"target": what}
            known = functools.partial(ledger.read, cell, made)
            fit = (ledger, cell, made, fit_key, network, target, config, on, pressed)
            make = functools.partial(_fit, *fit)
            record = known() if pressed() else ledger.settled(cell, known, make)
            missing = missing or record is None
            shown = "missing" if record is None else f"{record['loss']:.6f}"
            print(f"{what:16s} mean squared error after {settings.iterations}: {shown}")
        if pressed() and missing:
            print("stopped: what is finished is kept, the same command goes on from there")
            return command.INTERRUPTED
    return 0


def _fit(
    ledger: Ledger,
    cell: str,
    made: dict[str, Any],
    key: jax.Array,
    network: SkipUNet,
    target: np.ndarray,
    config: dip.Config,
    on: jax.Device,
    stop: Callable[[], bool],
) -> Record | None:
    """One fit, kept; None where it was stopped before its end."""
    result = dip.fit(
        key,
        jnp.asarray(target)[None],
        operators.identity,
        init_fn=network.init,
        apply_fn=network.apply,
        size=(target.shape[0], target.shape[1]),
        loss=losses.mse,
        config=config,
        on_chunk=lambda _: stop(),
    )
    if not result.finite:
        raise InputError(f"{cell}: the fit overflowed")
    if not result.over:
        return None
    kept = {"loss": float(result.history["loss"][-1]), "history": fits.thinned(result.history)}
    environment = reports.environment(on)
    return ledger.write(cell, made, kept, seconds=result.seconds, environment=environment)


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
