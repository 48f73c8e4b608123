"""Deep Image Prior's speed against PyTorch, in one run: 4x, the released network, one image.

    python -m benchmarks.dip --sizes 128x128 320x480 --json FILE

Ours is `jaxsr.dip.run`, several iterations to a compiled program; the peers are PyTorch eager as it
comes and with channels-last memory, their metrics off. Before anything is timed, both compute the
loss of the same weights and latent in float32, which must agree to 1e-4. Without PyTorch (the extra
`torch`), or with `--alone`, ours is timed by itself.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours, peers
from jaxsr import reports, weights
from jaxsr.models import SkipUNet

parse_size = functools.partial(peers.parse_size, multiple=32, least=64)


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


def measure(size: tuple[int, int], options: Options, *, alone: bool) -> dict[str, Any]:
    """The figures of one size, as they stand in the JSON file; times in seconds an iteration."""
    iterations = options.iterations or default_iterations(size)
    programs: dict[str, Callable[[], Any]] = {}
    difference = params = None
    if not alone:
        from benchmarks import torch_peer

        network = torch_peer.skip_unet()
        params = weights.skip_unet_from_torch(torch_peer.parameters_as_numpy(network))
        torch_peer.configure(threads=peers.cores(), precision="float32")
        with jax.default_matmul_precision("highest"):
            exact = ours.fit_of(size, model=SkipUNet(), loss=options.loss, params=params)
            start = (network, np.asarray(exact.state.latent), np.asarray(exact.target))
            peer = torch_peer.fit_of(*start, loss=options.loss)
            difference = peers.disagreement(exact.forward_loss(), peer.loss_at(peer.latent).item())
        torch_peer.configure(threads=peers.cores(), precision=options.precision)
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
    return {
        "size": f"{size[0]}x{size[1]}",
        "compile_seconds": compile_seconds,
        "loss_disagreement": difference,
        **peers.compare(
            program, programs, unit="iteration", units=iterations, rounds=options.rounds
        ),
    }


def default_iterations(size: tuple[int, int]) -> int:
    """Iterations in one measurement where none are asked for."""
    at_128 = 10 if jax.default_backend() == "cpu" else 1000
    return max(2, round(at_128 * 128**2 / (size[0] * size[1])))


def run(options: Options) -> dict[str, Any]:
    """Measures every size, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [parse_size(text) for text in options.sizes]
    peers.check_counts(iterations=options.iterations, rounds=options.rounds)
    alone = peers.is_alone(options.alone)
    found: dict[str, Any] = {
        "benchmark": "dip",
        "loss": options.loss,
        "precision": options.precision,
        "rounds": options.rounds,
        "environment": peers.environment(alone=alone),
        "results": [],
    }
    for size in sizes:
        result = measure(size, options, alone=alone)
        found["results"].append(result)
        print(peers.report(result["size"], result, unit="iteration"), flush=True)
        if options.json:
            reports.write_json(options.json, found)
    return found


def main(args: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return peers.main(Options, run, args)


if __name__ == "__main__":
    sys.exit(main())
