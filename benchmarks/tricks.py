"""What each trick is worth: one at a time gives way to the plain form, and the work is timed again.

    python -m benchmarks.tricks --json FILE

The work is an iteration of Deep Image Prior (4x, the released network, Charbonnier), a LapSRN image
of the same size (4x, the paper's network), and a training step of recipe `paper`, in float32. A
gain is the time without the trick over the time with all of them; all take turns in one process.
Most tricks are for CPUs: elsewhere the convolution is `lax`'s, and its tricks have nothing to gain.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import dip, lapsrn, ours, ours_lapsrn, peers, plain, timing
from benchmarks.plain import Plain
from jaxsr import training
from jaxsr.models import SkipUNet
from jaxsr.options import Given

Program = Callable[[], Any]
# Of losses after a step of Adam: it moves a parameter as far by a gradient near zero, whose sign
# rounding decides, as by any other.
AFTER_A_STEP = 0.01
Work = Literal["dip", "image", "training"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What each trick is worth."""

    works: tuple[Work, ...] = get_args(Work)
    """An iteration of Deep Image Prior, an image of LapSRN, a step of its training."""
    sizes: tuple[str, ...] = ("128x128", "256x256")
    """Of the images, HEIGHTxWIDTH in pixels, multiples of 32, at least 64."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    iterations: int = 10
    """Iterations of Deep Image Prior in one measurement."""
    images: int = 3
    """Images of LapSRN in one measurement."""
    steps: int = 2
    """Training steps of LapSRN in one measurement."""
    rounds: int = 15
    """Measurements of each program; their median is reported."""


def dip_iteration(fit: ours.Fit, calls: int, form: Plain) -> Program:
    """So many iterations a call, compiled without the trick."""
    apply_fn = SkipUNet(**form.network).apply
    with form.patch:
        jax.clear_caches()
        return dataclasses.replace(fit, apply_fn=apply_fn).compiled(calls).call


def lapsrn_images(size: tuple[int, int], calls: int, form: Plain) -> Program:
    """So many images a call, compiled without the trick; returns the last level of the last."""
    with form.patch:
        jax.clear_caches()
        made = ours_lapsrn.enlargement(lapsrn.NETWORKS["paper"], size)
    return functools.partial(made.run, calls)


def lapsrn_step(start: training.State, images: Array, calls: int, form: Plain) -> Program:
    """So many steps a call, compiled without the trick; returns the loss before the last."""
    config = dataclasses.replace(lapsrn.RECIPE, **{"parts": 4, **form.recipe})
    model, state = lapsrn.NETWORKS["paper"], jax.tree.map(jnp.copy, start)
    with form.patch:
        jax.clear_caches()
        steps = ours_lapsrn.training_steps(model, config)
        program, _ = timing.compiled(steps, state, images, 0)

    def run() -> Array:
        nonlocal state
        state, loss = program(state, images, calls)
        return loss

    return run


def measure(
    work: str,
    compiled: Callable[[Plain], Program],
    tricks: Mapping[str, Plain],
    *,
    unit: str,
    units: int,
    rounds: int,
    allowed: float = AFTER_A_STEP,
) -> dict[str, Any]:
    """The figures of one kind of work, as they stand in the JSON file; so many units a call."""
    programs = {"ours": compiled(Plain())}
    programs |= {trick: compiled(form) for trick, form in tricks.items()}
    # Of a fit the second loss: the first knows no gradient, and later ones drift by rounding.
    seen = {name: np.ravel(program())[:2][-1] for name, program in programs.items()}
    for value in seen.values():
        peers.disagreement(value, seen["ours"], allowed=allowed)
    times = timing.interleaved(programs, rounds=rounds, units=units)
    mine = times.pop("ours")
    gains = {trick: timing.ratio(time, mine) for trick, time in times.items()}
    return {
        "name": f"tricks {work}",
        "unit": unit,
        f"{unit}s_per_measurement": units,
        f"ours_seconds_per_{unit}": mine.median,
        "ours_spread": mine.spread,
        "without": {
            trick: {
                f"seconds_per_{unit}": time.median,
                "spread": time.spread,
                "gain": gains[trick][0],
                "gain_spread": gains[trick][1],
            }
            for trick, time in times.items()
        },
    }


def of_dip(size: tuple[int, int], options: Options) -> dict[str, Any]:
    """The tricks of an iteration of Deep Image Prior."""
    fit = ours.fit_of(size, model=SkipUNet(), loss="charbonnier")
    units = options.iterations
    compiled = functools.partial(dip_iteration, fit, units)
    name = f"dip {size[0]}x{size[1]}"
    rounds = options.rounds
    return measure(name, compiled, plain.DIP, unit="iteration", units=units, rounds=rounds)


def of_image(size: tuple[int, int], options: Options) -> dict[str, Any]:
    """The tricks of an image of LapSRN."""
    units = options.images
    compiled = functools.partial(lapsrn_images, size, units)
    name = f"lapsrn image {size[0]}x{size[1]}"
    rounds, allowed = options.rounds, peers.AGREEMENT
    return measure(
        name, compiled, plain.IMAGE, unit="image", units=units, rounds=rounds, allowed=allowed
    )


def of_training(options: Options) -> dict[str, Any]:
    """The tricks of a training step of LapSRN."""
    recipe = lapsrn.RECIPE
    key, image_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (recipe.batch, recipe.size, recipe.size, 1))
    start = training.init(key, model=lapsrn.NETWORKS["paper"], config=recipe)
    units = options.steps
    compiled = functools.partial(lapsrn_step, start, images, units)
    name, rounds = "lapsrn training step", options.rounds
    return measure(name, compiled, plain.TRAINING, unit="step", units=units, rounds=rounds)


def say(result: Mapping[str, Any]) -> str:
    """A line on one kind of work."""
    line = "; ".join(f"{trick} {x['gain']:.2f}" for trick, x in result["without"].items())
    seconds = result[f"ours_seconds_per_{result['unit']}"]
    return f"{result['name']}: {seconds:.4f} s; gains: {line}"


def run(options: Options) -> dict[str, Any]:
    """Measures one work after another, printing as it goes; returns, and writes if asked, all.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [dip.parse_size(text) for text in options.sizes]
    peers.check_counts(
        iterations=options.iterations,
        images=options.images,
        steps=options.steps,
        rounds=options.rounds,
    )
    ways: dict[Work, list[Callable[[], dict[str, Any]]]] = {
        "dip": [functools.partial(of_dip, size, options) for size in sizes],
        "image": [functools.partial(of_image, size, options) for size in sizes],
        "training": [functools.partial(of_training, options)],
    }
    with jax.default_matmul_precision("highest"):
        return peers.collect(
            "tricks",
            [measurement for work in options.works for measurement in ways[work]],
            json=options.json,
            alone=True,
            say=say,
            rounds=options.rounds,
        )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
