"""What each trick is worth: one at a time gives way to the plain form, and the work is timed again.

    python -m benchmarks.tricks --json FILE

The work is an iteration of Deep Image Prior (4x, the released network, Charbonnier) and a training
step of LapSRN's recipe `paper`, in float32. A gain is the time without the trick over the time with
all of them; both take turns in one process. Most tricks are for CPUs: elsewhere the convolution is
`lax`'s, and its tricks have nothing to gain.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks import dip, lapsrn, ours, peers, timing
from jaxsr import convolution, im2col, layers, training, winograd
from jaxsr.models import SkipUNet, luma

Program = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """What each trick is worth."""

    sizes: tuple[str, ...] = ("128x128", "256x256")
    """Image sizes of Deep Image Prior, HEIGHTxWIDTH in pixels, multiples of 32 from 64."""
    json: pathlib.Path | None = None
    """File for the results, with machine and versions."""
    iterations: int = 10
    """Iterations of Deep Image Prior in one measurement."""
    steps: int = 2
    """Training steps of LapSRN in one measurement."""
    rounds: int = 15
    """Measurements of each program; their median is reported."""


class Plain(NamedTuple):
    """What stands in for one trick while a program is compiled."""

    patch: contextlib.AbstractContextManager = contextlib.nullcontext()
    network: Mapping[str, Any] = types.MappingProxyType({})  # of the skip U-Net
    recipe: Mapping[str, Any] = types.MappingProxyType({})  # of LapSRN's training


def derived(which: Callable[[Array], bool]) -> Callable[..., tuple[Array, Array]]:
    """im2col's gradients; where `which` holds for the filter, as JAX derives them."""
    own = im2col.gradients

    def gradients(x: Array, w: Array, dy: Array, *, stride: int = 1) -> tuple[Array, Array]:
        if not which(w):
            return own(x, w, dy, stride=stride)
        dx, dw = jax.vjp(functools.partial(im2col.convolve, stride=stride), x, w)[1](dy)
        return dx, dw

    return gradients


def zeros_between(x: Array, w: Array, stride: int, first: int) -> Array:
    """`convolution.conv_transpose` as a convolution of the image spread with zeros."""
    edge = (w.shape[0] - 1,) * 2
    whole = lax.conv_general_dilated(
        x,
        w[::-1, ::-1],
        (1, 1),
        (edge, edge),
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    height, width = (stride * side for side in x.shape[1:3])
    return whole[:, first : first + height, first : first + width]


def resized(x: Array) -> Array:
    """`resample.double_bilinear` by JAX's dense matrices."""
    n, height, width, channels = x.shape
    return jax.image.resize(x, (n, 2 * height, 2 * width, channels), "bilinear")


WINOGRAD = Plain(mock.patch.object(winograd, "pays", lambda *_: False))

DIP: dict[str, Plain] = {
    "Winograd's method": WINOGRAD,
    "im2col's gradient by phases": Plain(
        mock.patch.object(im2col, "gradients", derived(lambda w: w.shape[:2] != (1, 1)))
    ),
    "1x1 filters' gradient in four parts": Plain(
        mock.patch.object(im2col, "gradients", derived(lambda w: w.shape[:2] == (1, 1)))
    ),
    "the norm's own gradient": Plain(
        mock.patch.object(layers, "_norm", lambda *args: layers._norm_forward(*args)[0])
    ),
    "doubling by slices": Plain(network={"double": resized}),
}
LAPSRN: dict[str, Plain] = {
    "Winograd's method": WINOGRAD,
    "few features: products, then shifts": Plain(
        mock.patch.object(convolution, "_is_narrow", lambda *_: False)
    ),
    "transposed convolution by phases": Plain(
        mock.patch.object(luma, "conv_transpose", zeros_between)
    ),
    "the gradient in four parts": Plain(recipe={"parts": 1}),
}


def dip_iteration(fit: ours.Fit, calls: int, plain: Plain) -> Program:
    """So many iterations a call, compiled without the trick."""
    apply_fn = SkipUNet(**plain.network).apply
    with plain.patch:
        jax.clear_caches()
        program, _ = dataclasses.replace(fit, apply_fn=apply_fn).compiled(calls)
    return program


def lapsrn_step(start: training.State, images: Array, calls: int, plain: Plain) -> Program:
    """So many steps a call, compiled without the trick; returns the loss before the last."""
    config = dataclasses.replace(lapsrn.RECIPE, **{"parts": 4, **plain.recipe})
    model, state = lapsrn.NETWORKS["paper"], jax.tree.map(jnp.copy, start)
    with plain.patch:
        jax.clear_caches()
        steps = lapsrn.training_steps(model, config)
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
    units: int,
    rounds: int,
) -> dict[str, Any]:
    """The figures of one kind of work, as they stand in the JSON file; `units` of it a call."""
    programs = {"ours": compiled(Plain())}
    programs |= {trick: compiled(plain) for trick, plain in tricks.items()}
    first = {name: np.ravel(program())[0] for name, program in programs.items()}
    for loss in first.values():
        peers.disagreement(loss, first["ours"])
    times = timing.interleaved(programs, rounds=rounds, units=units)
    mine = times.pop("ours")
    gains = {trick: timing.ratio(time, mine) for trick, time in times.items()}
    return {
        "name": f"tricks {work}",
        "unit": "iteration",
        "iterations_per_measurement": units,
        "ours_seconds_per_iteration": mine.median,
        "ours_spread": mine.spread,
        "without": {
            trick: {
                "seconds_per_iteration": time.median,
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
    return measure(name, compiled, DIP, units=units, rounds=options.rounds)


def of_lapsrn(options: Options) -> dict[str, Any]:
    """The tricks of a training step of LapSRN."""
    recipe = lapsrn.RECIPE
    key, image_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (recipe.batch, recipe.size, recipe.size, 1))
    start = training.init(key, lapsrn.NETWORKS["paper"], recipe)
    units = options.steps
    compiled = functools.partial(lapsrn_step, start, images, units)
    return measure("lapsrn training step", compiled, LAPSRN, units=units, rounds=options.rounds)


def say(result: Mapping[str, Any]) -> str:
    """A line on one kind of work."""
    line = "; ".join(f"{trick} {x['gain']:.2f}" for trick, x in result["without"].items())
    return f"{result['name']}: {result['ours_seconds_per_iteration']:.4f} s; gains: {line}"


def run(options: Options) -> dict[str, Any]:
    """Measures every size, then LapSRN, printing as it goes; returns, and writes if asked, all.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [dip.parse_size(text) for text in options.sizes]
    peers.check_counts(iterations=options.iterations, steps=options.steps, rounds=options.rounds)
    measurements = [functools.partial(of_dip, size, options) for size in sizes]
    with jax.default_matmul_precision("highest"):
        return peers.collect(
            "tricks",
            [*measurements, functools.partial(of_lapsrn, options)],
            json=options.json,
            alone=True,
            say=say,
            rounds=options.rounds,
        )


def main(args: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return peers.main(Options, run, args)


if __name__ == "__main__":
    sys.exit(main())
