"""Deep Image Prior's speed against PyTorch, in one run: 4x, the released network, one image.

    python -m benchmarks.dip --sizes 128x128 320x480 --json FILE

Ours is `jaxsr.dip.run`, several iterations to a compiled program; the peers are PyTorch eager as it
comes and with channels-last memory, their metrics off. Before anything is timed, both compute the
loss of the same weights and latent in float32, which must agree to 1e-4. Without PyTorch (the extra
`torch`), or with `--alone`, ours is timed by itself.
"""

import dataclasses
import functools
import importlib.util
import os
import pathlib
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import ours, timing
from jaxsr import reports, weights
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet

AGREEMENT = 1e-4
PAUSE = 0.3  # seconds; OpenMP's threads spin for 0.2 by default


@dataclasses.dataclass(frozen=True)
class Options:
    """Deep Image Prior's iterations a second, against PyTorch in the same run."""

    sizes: tuple[str, ...] = ("128x128", "320x480")
    """Image sizes, HEIGHTxWIDTH in pixels, multiples of 32 from 64."""
    json: pathlib.Path | None = None
    """File for the results, with machine and versions."""
    loss: Literal["mse", "l1", "charbonnier"] = "charbonnier"
    """Loss of the fit."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the convolutions, in all programs alike; tf32 needs a GPU that has it."""
    iterations: int | None = None
    """Iterations in one measurement. By default ten at 128x128 on a CPU and a thousand on a GPU,
    fewer in proportion to the pixels, at least two."""
    rounds: int = 7
    """Measurements of each program; their median is reported."""
    alone: bool = False
    """Leave PyTorch out even where it is installed (for memory, or in a hurry)."""


def disagreement(ours: float, theirs: float) -> float:
    """Relative difference of the losses.

    Raises:
      RuntimeError: above AGREEMENT: then the two do not compute the same, and speed means nothing.
    """
    difference = abs(ours - theirs) / abs(theirs)
    if not difference <= AGREEMENT:
        raise RuntimeError(
            f"the losses of one start disagree: ours {ours}, PyTorch's {theirs} (relative "
            f"difference {difference:.1e}, allowed {AGREEMENT})"
        )
    return difference


def measure(size: tuple[int, int], options: Options, *, alone: bool) -> dict[str, Any]:
    """The figures of one size, as they stand in the JSON file; times in seconds an iteration."""
    iterations = options.iterations or default_iterations(size)
    programs: dict[str, Callable[[], Any]] = {}
    difference = params = None
    if not alone:
        from benchmarks import torch_peer

        network = torch_peer.skip_unet()
        params = weights.skip_unet_from_torch(torch_peer.parameters_as_numpy(network))
        torch_peer.configure(threads=_cores(), precision="float32")
        with jax.default_matmul_precision("highest"):
            exact = ours.fit_of(size, model=SkipUNet(), loss=options.loss, params=params)
            start = (network, np.asarray(exact.state.latent), np.asarray(exact.target))
            peer = torch_peer.fit_of(*start, loss=options.loss)
            difference = disagreement(exact.forward_loss(), peer.loss_at(peer.latent).item())
        torch_peer.configure(threads=_cores(), precision=options.precision)
        for name, channels_last in (("eager", False), ("eager-channels-last", True)):
            peer = torch_peer.fit_of(
                *start, loss=options.loss, channels_last=channels_last, precision=options.precision
            )
            programs[name] = functools.partial(peer.run, iterations)

    dtype = jnp.bfloat16 if options.precision == "bfloat16" else None
    with jax.default_matmul_precision(
        "tensorfloat32" if options.precision == "tf32" else "highest"
    ):
        fit = ours.fit_of(size, model=SkipUNet(dtype=dtype), loss=options.loss, params=params)
        program, compile_seconds = fit.compiled(iterations)
    times = timing.interleaved(
        {"ours": program, **programs}, rounds=options.rounds, units=iterations, pause=PAUSE
    )

    mine = times.pop("ours")
    best = min(times.values(), key=lambda t: t.median, default=None)
    ratio, ratio_spread = timing.ratio(best, mine) if best else (None, None)
    return {
        "size": f"{size[0]}x{size[1]}",
        "ours_seconds_per_iteration": mine.median,
        "ours_spread": mine.spread,
        "iterations_per_second": 1 / mine.median,
        "compile_seconds": compile_seconds,
        "torch_seconds_per_iteration": best.median if best else None,
        "ratio": ratio,
        "ratio_spread": ratio_spread,
        "peers": {
            name: {"seconds_per_iteration": t.median, "spread": t.spread}
            for name, t in times.items()
        },
        "loss_disagreement": difference,
        "iterations_per_measurement": iterations,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def default_iterations(size: tuple[int, int]) -> int:
    """Iterations in one measurement where none are asked for."""
    at_128 = 10 if jax.default_backend() == "cpu" else 1000
    return max(2, round(at_128 * 128**2 / (size[0] * size[1])))


def peak_rss_bytes() -> int:
    """The largest this process has been, all programs so far included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def parse_size(text: str) -> tuple[int, int]:
    """Turns HEIGHTxWIDTH into (height, width).

    Raises:
      InputError: not HEIGHTxWIDTH, or not multiples of 32 from 64.
    """
    sides = text.split("x")
    if len(sides) == 2 and all(side.isascii() and side.isdigit() for side in sides):
        height, width = map(int, sides)
        if min(height, width) >= 64 and height % 32 == width % 32 == 0:
            return height, width
    raise InputError(f"`sizes` (={text}) must be HEIGHTxWIDTH, each a multiple of 32 from 64")


def report(result: dict[str, Any]) -> str:
    """A result in one line."""
    line = (
        f"{result['size']}: {result['iterations_per_second']:.2f} iterations/s "
        f"({result['ours_seconds_per_iteration']:.4f} s, spread {result['ours_spread']:.4f}), "
        f"compiled in {result['compile_seconds']:.1f} s"
    )
    if result["ratio"] is None:
        return line
    peers = ", ".join(
        f"{name} {peer['seconds_per_iteration']:.4f} s" for name, peer in result["peers"].items()
    )
    return f"{line}; PyTorch {peers}: ratio {result['ratio']:.2f} +- {result['ratio_spread']:.2f}"


def run(options: Options) -> dict[str, Any]:
    """Measures every size, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [parse_size(text) for text in options.sizes]
    for name in ("iterations", "rounds"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"`{name}` (={value}) must be at least 1")
    alone = options.alone or importlib.util.find_spec("torch") is None
    if alone and not options.alone:
        print("PyTorch is not installed (the extra `torch`): timing jaxsr alone")
    environment = reports.environment(jax.devices()[0])
    if not alone:
        import torch

        environment["versions"]["torch"] = torch.__version__
        environment["torch_threads"] = _cores()
    found: dict[str, Any] = {
        "benchmark": "dip",
        "loss": options.loss,
        "precision": options.precision,
        "rounds": options.rounds,
        "environment": environment,
        "results": [],
    }
    for size in sizes:
        found["results"].append(measure(size, options, alone=alone))
        print(report(found["results"][-1]), flush=True)
        if options.json:
            reports.write_json(options.json, found)
    return found


def main(args: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = tyro.cli(Options, args=args, description=Options.__doc__)
    try:
        run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
