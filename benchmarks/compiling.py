"""How long a person waits for the demo's first iteration: cold, and from the compilation cache.

    python -m benchmarks.compiling --json FILE

Each figure is the time from the start of a fresh process, the demo's own command, until its bar
shows that an iteration is done: cold with an empty compilation cache, cached with what that run
left there.
"""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from benchmarks import machine, peers, timing
from jaxsr.errors import InputError
from jaxsr.options import Given

DEMO = ("experiments.dip", "--loss", "charbonnier")
_DONE = re.compile(rb"\D[1-9]\d*/\d+ ")  # of the bar: at least one iteration of all


@dataclasses.dataclass(frozen=True)
class Options:
    """Seconds to the demo's first iteration."""

    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    rounds: int = 3
    """Measurements of each; their median is reported."""


def first_iteration(out: str, environment: Mapping[str, str]) -> float:
    """Seconds until the demo, writing to `out`, has shown its first iteration; then it is killed.

    Raises:
      InputError: it ended before.
    """
    command = [sys.executable, "-m", *DEMO, "--out", out]
    start, shown = time.perf_counter(), b""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as demo:
        assert demo.stderr is not None
        try:
            while not _DONE.search(shown):
                more = os.read(demo.stderr.fileno(), 4096)
                if not more:
                    said = shown.decode(errors="replace").strip().splitlines() or ["nothing said"]
                    raise InputError(f"the demo (={' '.join(DEMO)}) ended early: {said[-1]}")
                shown += more
            return time.perf_counter() - start
        finally:
            demo.kill()


def measure(rounds: int) -> list[dict[str, Any]]:
    """The figures of both kinds of start, as they stand in the JSON file; in seconds.

    Raises:
      InputError: the demo does not run.
    """
    found: dict[str, list[float]] = {"cold": [], "cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            environment = machine.child_environment(f"{folder}/cache")
            for kind, seconds in found.items():
                seconds.append(first_iteration(f"{folder}/{kind}", environment))
    return [
        {
            "name": f"first iteration, {kind}",
            "unit": "start",
            "ours_seconds_per_start": timing.Timing(tuple(seconds)).median,
            "ours_spread": timing.Timing(tuple(seconds)).spread,
        }
        for kind, seconds in found.items()
    ]


def say(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    return f"{result['name']}: {result['ours_seconds_per_start']:.1f} s"


def run(options: Options) -> dict[str, Any]:
    """Measures both; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    peers.check_counts(rounds=options.rounds)
    measured = functools.cache(functools.partial(measure, options.rounds))  # both in turns

    def result(place: int) -> dict[str, Any]:
        return dict(measured()[place])

    return peers.collect(
        "compiling",
        [functools.partial(result, place) for place in range(2)],
        json=options.json,
        alone=True,
        say=say,
        rounds=options.rounds,
    )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
