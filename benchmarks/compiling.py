"""How long a person waits for the demo's first iteration: cold, and from the compilation cache.

    python -m benchmarks.compiling --json FILE

Each figure is the time from the start to the end of a fresh process that runs the demo's command
for one iteration and writes its results: cold with an empty persistent cache, cached with what that
run left there.
"""

import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import peers, timing

DEMO = ("experiments.dip", "--loss", "charbonnier", "--iterations", "1")


@dataclasses.dataclass(frozen=True)
class Options:
    """Seconds to the demo's first iteration."""

    json: pathlib.Path | None = None
    """File for the results, with machine and versions."""
    rounds: int = 3
    """Measurements of each; their median is reported."""


def measure(rounds: int) -> list[dict[str, Any]]:
    """The figures of both kinds of start, as they stand in the JSON file; in seconds.

    Raises:
      subprocess.CalledProcessError: the demo does not run.
    """
    whole: dict[str, list[float]] = {"cold": [], "cached": []}
    program: dict[str, list[float]] = {"cold": [], "cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
            for kind in ("cold", "cached"):
                out = pathlib.Path(folder, kind)
                command = [sys.executable, "-m", *DEMO, "--out", str(out)]
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=environment)
                whole[kind].append(time.perf_counter() - start)
                metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
                program[kind].append(metrics["compile_seconds"])
    return [
        {
            "name": f"first iteration, {kind}",
            "unit": "start",
            "ours_seconds_per_start": timing.Timing(tuple(whole[kind])).median,
            "ours_spread": timing.Timing(tuple(whole[kind])).spread,
            "of_which_compile_seconds": statistics.median(program[kind]),
        }
        for kind in whole
    ]


def say(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    return (
        f"{result['name']}: {result['ours_seconds_per_start']:.1f} s, of which the fit's program "
        f"{result['of_which_compile_seconds']:.1f} s"
    )


def run(options: Options) -> dict[str, Any]:
    """Measures both; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    peers.check_counts(rounds=options.rounds)
    found = measure(options.rounds)
    return peers.collect(
        "compiling",
        [functools.partial(dict, result) for result in found],
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
