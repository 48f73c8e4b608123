"""Time to quality: seconds until a published PSNR stays passed, against the published recipe's.

    python -m benchmarks.quality --hr butterfly.png --seeds 0 1 2 --json FILE

Ours is what a user gets: `python -m experiments.dip --protocol dip`, 4x, Charbonnier, float32; its
history of PSNR on Y is read afterwards. The published recipe takes 2000 iterations, whatever the
image; its seconds are those times PyTorch's (the best of `benchmarks.dip`'s peers, measured in the
same run at the same size, metrics off). Compilation is left out of both; ours, from an empty cache,
is told.
"""

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import dip, machine, peers
from benchmarks.psnr_curves import stays_at
from jaxsr import images, reports
from jaxsr.errors import InputError
from jaxsr.options import Given

PUBLISHED_ITERATIONS = 2000


@dataclasses.dataclass(frozen=True)
class Options:
    """Seconds until a published PSNR stays passed."""

    hr: pathlib.Path
    """Ground truth; figures are published for the images of Set5."""
    psnr: float = 26.23
    """What was published for it, in dB on Y: 26.23 for butterfly at 4x (Ulyanov et al., 2018)."""
    seeds: tuple[int, ...] = (0,)
    """Of the fits."""
    iterations: int = 1000
    """Of each fit: enough to see that it stays above."""
    rounds: int = 5
    """Measurements of PyTorch's speed; their median is taken."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    alone: bool = False
    """Leave PyTorch out even where it is installed."""


def published_seconds(options: Options) -> float:
    """What the published recipe takes on this machine.

    Raises:
      InputError: the ground truth cannot be read.
    """
    height, width = (side // 32 * 32 for side in images.read(options.hr).pixels.shape[:2])
    case: dict[str, Any] = {"sizes": (f"{height}x{width}",), "precisions": ("float32",)}
    found = dip.run(dip.Options(**case, rounds=options.rounds))
    seconds: float = found["results"][0]["torch_seconds_per_iteration"]
    return PUBLISHED_ITERATIONS * seconds


def measure(seed: int, options: Options, published: Callable[[], float | None]) -> dict[str, Any]:
    """The figures of one seed, as they stand in the JSON file.

    Raises:
      InputError: the fit did not end well; its last line says why.
    """
    theirs = published()  # first: if it fails, no fit was in vain
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.dip", "--protocol", "dip"]
        command += ["--loss", "charbonnier", "--hr", str(options.hr), "--out", f"{folder}/run"]
        command += ["--seed", str(seed), "--iterations", str(options.iterations)]
        own = machine.child_environment(f"{folder}/cache")
        ended = subprocess.run(command, capture_output=True, text=True, env=own)
        if ended.returncode:
            diverged = ended.returncode == 1  # which it says on its output, beside its bar
            said = (ended.stdout if diverged else ended.stderr).strip().splitlines()
            reason = said[-1] if said else f"exit code {ended.returncode}"
            raise InputError(f"`--hr` (={options.hr}) cannot be fitted: {reason}")
        run = pathlib.Path(folder, "run")
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        psnr = reports.read_csv(run / "history.csv")["psnr_y"]
    each = metrics["seconds"] / metrics["iterations"]  # what was done again is in it
    passed = stays_at(psnr, options.psnr)
    ours = None if passed is None else passed * each
    return {
        "name": f"{options.hr.stem} to {options.psnr} dB, seed {seed}",
        "iterations_to_quality": passed,
        "seconds_to_quality": ours,
        "seconds_per_iteration": each,
        "compile_seconds": metrics["compile_seconds"],
        "published_seconds": theirs,
        "ratio": theirs / ours if theirs and ours else None,
    }


def say(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    if result["seconds_to_quality"] is None:
        return f"{result['name']}: not reached"
    line = (
        f"{result['name']}: {result['seconds_to_quality']:.0f} s "
        f"({result['iterations_to_quality']} iterations; {result['compile_seconds']:.0f} s more "
        "to compile)"
    )
    if result["ratio"] is None:
        return line
    return f"{line}; published recipe {result['published_seconds']:.0f} s: {result['ratio']:.2f}x"


def run(options: Options) -> dict[str, Any]:
    """Measures every seed; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    peers.check_counts(iterations=options.iterations, rounds=options.rounds)
    alone = peers.is_alone(options.alone)
    published = functools.cache(lambda: None if alone else published_seconds(options))
    return peers.collect(
        "quality",
        [functools.partial(measure, seed, options, published) for seed in options.seeds],
        json=options.json,
        alone=alone,
        say=say,
        psnr=options.psnr,
        published_iterations=PUBLISHED_ITERATIONS,
    )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
