"""Several fits of Deep Image Prior at once, by three ways in one run: which is the fastest?

    python -m benchmarks.fits --sizes 128x128 --fits 2 4 8 --json FILE

`in turn`, one after another, each with the whole device; on a CPU `vmap`, one program of all (a GPU
would get convolutions in groups, whose gradients it has no fast kernels for); and, where there are
several, `devices`, each with its share from a thread of its own, on a CPU one device a core, at
most so many as fits. Seconds are those of one iteration of one fit, in exact float32.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import ours, peers, timing
from benchmarks.dip import default_iterations, parse_size
from jaxsr import reports
from jaxsr.models import SkipUNet
from jaxsr.options import Given

WAYS = ("in turn", "vmap", "devices")


@dataclasses.dataclass(frozen=True)
class Options:
    """Fits a second by the way in which several are computed."""

    sizes: tuple[str, ...] = ("128x128",)
    """Image sizes, HEIGHTxWIDTH in pixels, multiples of 32, at least 64."""
    fits: tuple[int, ...] = (2, 4, 8)
    """Fits at once."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    iterations: Given[int] = None
    """Iterations of each fit in one measurement. By default the fewer, the more pixels the fits
    have together."""
    rounds: int = 7
    """Measurements of each way; their median is reported."""


def programs(
    fit: ours.Fit,
    iterations: int,
    fits: int,
    devices: Sequence[jax.Device],
    pool: concurrent.futures.Executor,
) -> dict[str, Callable[[], Any]]:
    """The ways, each a call that does so many iterations of so many fits; `devices` by `pool`."""
    keys = jax.random.split(fit.state.key, fits)
    ways: dict[str, Callable[[], Any]] = {
        "in turn": _queue(fit.on(devices[0]).each(iterations, keys))
    }
    if devices[0].platform == "cpu":
        ways["vmap"] = fit.compiled(iterations, fits=fits).call
    if len(devices) > 1:
        # Those of one device follow one another: it has them in a queue of its own.
        shares = np.array_split(np.arange(fits), len(devices))
        queues = [
            _queue(fit.on(device).each(iterations, keys[share]))
            for device, share in zip(devices, shares, strict=True)
        ]
        ways["devices"] = lambda: [*itertools.chain(*pool.map(lambda queue: queue(), queues))]
    return ways


def _queue(calls: Sequence[Callable[[], jax.Array]]) -> Callable[[], list[jax.Array]]:
    return lambda: [jax.block_until_ready(call()) for call in calls]


def measure(size: tuple[int, int], fits: int, options: Options) -> dict[str, dict[str, Any]]:
    """The figures of each way, as they stand in the JSON file."""
    iterations = options.iterations or default_iterations(size, fits)
    fit = ours.fit_of(size, model=SkipUNet(), loss="charbonnier")
    devices = jax.local_devices()[:fits]
    with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        times = timing.interleaved(
            programs(fit, iterations, fits, devices, pool),
            rounds=options.rounds,
            units=iterations * fits,
            pause=peers.pause(),
        )
    found = {}
    for way, time in times.items():
        ratio, spread = timing.ratio(times["in turn"], time)
        found[way] = {
            "name": f"fits {size[0]}x{size[1]} {fits} {way}",
            "size": f"{size[0]}x{size[1]}",
            "fits": fits,
            "way": way,
            "devices": len(devices) if way == "devices" else 1,
            "unit": "iteration",
            "ours_seconds_per_iteration": time.median,
            "ours_spread": time.spread,
            "ratio_to_in_turn": ratio,
            "ratio_spread": spread,
        }
    return found


def run(options: Options) -> dict[str, Any]:
    """Measures every case, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [parse_size(text) for text in options.sizes]
    peers.check_counts(iterations=options.iterations, rounds=options.rounds)
    for fits in options.fits:
        peers.check_counts(fits=fits)
    jax.config.update("jax_num_cpu_devices", min(reports.cores(), max(options.fits, default=1)))
    found: dict[tuple[tuple[int, int], int], dict[str, dict[str, Any]]] = {}

    def one(size: tuple[int, int], fits: int, way: str) -> dict[str, Any]:
        if (size, fits) not in found:
            found[size, fits] = measure(size, fits, options)
        return found[size, fits][way]

    several = len(jax.local_devices()) > 1
    possible = {"vmap": jax.default_backend() == "cpu", "devices": several}
    cases = [
        (size, fits, way)
        for size, fits, way in itertools.product(sizes, options.fits, WAYS)
        if possible.get(way, True) and (way != "devices" or fits > 1)
    ]
    with jax.default_matmul_precision("highest"):
        return peers.collect(
            "fits",
            [functools.partial(one, *case) for case in cases],
            json=options.json,
            alone=True,
            say=say,
            rounds=options.rounds,
        )


def say(result: Mapping[str, Any]) -> str:
    """A line on a way."""
    return (
        f"{result['name']}: {result['ours_seconds_per_iteration']:.4f} s an iteration of a fit "
        f"(spread {result['ours_spread']:.4f}), {result['ratio_to_in_turn']:.2f} times as fast as "
        "in turn"
    )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
