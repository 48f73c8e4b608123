"""LapSRN's speed against PyTorch, in one run: inference, and a training step of recipe `paper`.

    python -m benchmarks.lapsrn --json FILE
    python -m benchmarks.lapsrn --factor 8 --precisions float32 tf32

Inference takes one luma image at a time from the device and leaves all levels there; its images a
second are a video's frames. A step takes patches to the next state: pyramid, forward, loss of all
levels, gradient, Adam; the peers get their pyramids ready-made. They are PyTorch eager as it comes,
with channels-last memory, and `torch.compile` with both; in training also with the gradient summed
in as many parts as ours. Before anything is timed, all compute the image or the loss of the same
weights in float32, which must agree to 1e-4. Without PyTorch (the extra `torch`), or with
`--alone`, ours is timed by itself. Of the arithmetic counted from the network each row
tells the share of what the machine reaches in a matrix product.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from benchmarks import ceilings, peers, timing, work
from benchmarks.ours_lapsrn import PRODUCTS, enlargement, training_steps
from jaxsr import training
from jaxsr.datasets import patches
from jaxsr.models import LapSRN
from jaxsr.options import Given

NETWORKS = {"paper": LapSRN(), "released": LapSRN(depth=10, spread=3)}  # 4x
RECIPE = training.Config()
Precision = Literal["float32", "tf32"]


@dataclasses.dataclass(frozen=True)
class Options:
    """LapSRN's images and training steps a second, against PyTorch in the same run."""

    sizes: tuple[str, ...] = ("320x480", "720x1280")
    """Sizes of the enlarged image, HEIGHTxWIDTH in pixels, multiples of the factor."""
    factor: Literal[2, 4, 8] = 4
    """Of the enlargement, by one level for each doubling; in training, each level's loss counts
    alike."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    precisions: Given[tuple[Precision, ...]] = None
    """Arithmetic of the convolutions, in all programs alike. Default: float32, and on a GPU
    tf32."""
    parts: Given[int] = None
    """In which the gradient of a training step is summed. By default four on a CPU, whose caches
    are small, else one."""
    calls: Given[int] = None
    """Images in one measurement. Default: 3 on a CPU, 100 elsewhere."""
    steps: Given[int] = None
    """Training steps in one measurement; ours are one call, as in `experiments.lapsrn`. Default: 8
    on a CPU, 50 elsewhere."""
    rounds: int = 7
    """Measurements of each program; their median is reported."""
    alone: bool = False
    """Leave PyTorch out even where it is installed (for memory, or in a hurry)."""


def units(asked: int | None, *, cpu: int, elsewhere: int) -> int:
    """Of a measurement: those asked for, else so many that it lasts where it is made."""
    return asked or (cpu if jax.default_backend() == "cpu" else elsewhere)


def inference(
    name: str,
    size: tuple[int, int],
    precision: str,
    options: Options,
    ceiling: ceilings.Ceilings,
    *,
    alone: bool,
) -> dict[str, Any]:
    """The figures of one network and size, as they stand in the JSON file."""
    model, calls = _network(name, options), units(options.calls, cpu=3, elsewhere=100)
    made = enlargement(model, size, precision)
    programs: dict[str, Callable[[], Any]] = {}
    difference = None
    if not alone:
        from benchmarks import torch_lapsrn

        programs, images = torch_lapsrn.inferences(
            model, made.variables, made.low, calls=calls, precision=precision
        )
        exact = made if precision == "float32" else enlargement(model, size)
        difference = peers.disagreement(exact.run(1), images)
    ours = functools.partial(made.run, calls)
    figures = peers.compare(ours, programs, unit="image", units=calls, rounds=options.rounds)
    gflop = work.lapsrn_pass(made.variables, made.low.size)
    return {
        "name": _row(f"inference {name}", f"{size[0]}x{size[1]}", options.factor, precision),
        "work": "inference",
        "network": name,
        "factor": options.factor,
        "precision": precision,
        "size": f"{size[0]}x{size[1]}",
        "gflop_per_image": gflop,
        **ceiling.of_products(gflop / figures["ours_seconds_per_image"]),
        "compile_seconds": made.compile_seconds,
        "disagreement": difference,
        **figures,
    }


def _row(what: str, size: str, factor: int, precision: str) -> str:
    """4x and float32 go without saying."""
    scale = "" if factor == 4 else f" x{factor}"
    return f"{what}{scale} {size}" + ("" if precision == "float32" else f" {precision}")


def _network(name: str, options: Options) -> LapSRN:
    return NETWORKS[name].clone(factor=options.factor)


def _recipe(options: Options) -> training.Config:
    parts = options.parts or (4 if jax.default_backend() == "cpu" else 1)
    level_weights = (1.0,) * _network("paper", options).levels
    return dataclasses.replace(RECIPE, parts=parts, level_weights=level_weights)


def training_step(
    precision: str, options: Options, ceiling: ceilings.Ceilings, *, alone: bool
) -> dict[str, Any]:
    """The figures of recipe `paper`'s step, as they stand in the JSON file."""
    model, count = _network("paper", options), units(options.steps, cpu=8, elsewhere=50)
    config = _recipe(options)
    size = f"{config.batch}x{config.size}x{config.size}"
    key, image_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (config.batch, config.size, config.size, 1))
    steps = training_steps(model, config)
    state = training.init(key, model=model, config=config)
    gflop = work.lapsrn_pass(state.variables, images.size // model.factor**2)
    with jax.default_matmul_precision(PRODUCTS[precision]):
        program, seconds = timing.compiled(steps, state, images, 0)
    programs: dict[str, Callable[[], Any]] = {}
    difference = None
    if not alone:
        from benchmarks import torch_lapsrn

        with jax.default_matmul_precision("highest"):
            low, targets = training.image_pyramid(images, model=model)
        programs, losses = torch_lapsrn.trainings(
            model, state.variables, low, targets, config, calls=count, precision=precision
        )
        with jax.default_matmul_precision("highest"):
            state, loss = (program if precision == "float32" else steps)(state, images, 1)
        difference = peers.disagreement(loss, losses)

    def ours() -> Array:
        nonlocal state
        state, loss = program(state, images, count)
        return loss

    figures = peers.compare(ours, programs, unit="step", units=count, rounds=options.rounds)
    return {
        "name": _row("training paper", size, options.factor, precision),
        "work": "training",
        "network": "paper",
        "factor": options.factor,
        "precision": precision,
        "size": size,
        "parts": config.parts,
        "patches_seconds_per_step": patches_seconds(options.rounds),
        "gflop_per_step": 3 * gflop,
        **ceiling.of_products(3 * gflop / figures["ours_seconds_per_step"]),
        "compile_seconds": seconds,
        "disagreement": difference,
        "images_per_second": config.batch * figures["steps_per_second"],
        **figures,
    }


def patches_seconds(rounds: int) -> float:
    """Of drawing one batch from 200 images of BSDS300's size; the steps above are given theirs."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (321, 481, 1), np.uint8) for _ in range(200)]
    bank = patches.bank(images, size=RECIPE.size)
    draw = jax.jit(patches.sample, static_argnames=("batch", "size"))
    program = functools.partial(draw, jax.random.key(0), bank, batch=RECIPE.batch, size=RECIPE.size)
    return timing.interleaved({"patches": program}, rounds=rounds)["patches"].median


def run(options: Options) -> dict[str, Any]:
    """Measures everything, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    factor = options.factor
    sizes = [peers.parse_size(text, multiple=factor, least=factor) for text in options.sizes]
    peers.check_counts(
        calls=options.calls, steps=options.steps, rounds=options.rounds, parts=options.parts
    )
    precisions = peers.precisions(options.precisions)
    _recipe(options)  # refuses parts that do not divide the batch
    alone = peers.is_alone(options.alone)
    ceiling = {asked: ceilings.measure(asked) for asked in precisions}
    measurements = [
        functools.partial(inference, name, size, asked, options, ceiling[asked], alone=alone)
        for size in sizes
        for name in NETWORKS
        for asked in precisions
    ]
    measurements += [
        functools.partial(training_step, asked, options, ceiling[asked], alone=alone)
        for asked in precisions
    ]
    return peers.collect(
        "lapsrn",
        measurements,
        json=options.json,
        alone=alone,
        rounds=options.rounds,
        ceilings={asked: dataclasses.asdict(found) for asked, found in ceiling.items()},
    )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
