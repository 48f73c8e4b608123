"""The memory that Deep Image Prior needs at its peak, by size of the image, with and without remat.

    python -m benchmarks.memory --sizes 512x512 1024x1024 --json FILE

Each figure is of a fresh process, `python -m benchmarks.dip --alone`, from its start to its end: on
a CPU the largest the process has been, on a GPU the most that JAX had allocated there, also while
the compiler tried kernels; `program_bytes` is what the program needs by the compiler's count.
Remat's cost is in the same rows: seconds an iteration.
"""

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks import dip, peers
from jaxsr.errors import InputError
from jaxsr.options import Given


@dataclasses.dataclass(frozen=True)
class Options:
    """Peak memory of Deep Image Prior (float32, Charbonnier)."""

    sizes: tuple[str, ...] = ("512x512", "1024x1024")
    """Image sizes, HEIGHTxWIDTH in pixels, multiples of 32, at least 64."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    rounds: int = 3
    """Measurements of the time of two or more iterations; their median is reported."""


def measure(size: str, *, remat: bool, rounds: int) -> dict[str, Any]:
    """The figures of one size, as they stand in the JSON file.

    Where the process did not end well, as for want of memory, `failed` says why in their place.
    """
    name = f"memory {size}" + (" remat" if remat else "")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "dip.json")
        command = [sys.executable, "-m", "benchmarks.dip", "--alone", "--sizes", size]
        command += ["--precisions", "float32", "--rounds", str(rounds), "--json", str(path)]
        command += ["--remat"] if remat else []
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            said = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
            return {
                "name": name,
                "size": size,
                "remat": remat,
                "failed": said[0].removeprefix("error: "),
            }
        (result,) = json.loads(path.read_text(encoding="utf-8"))["results"]
    kept = (
        *("size", "remat", "compile_seconds", "program_bytes"),
        *("unit", "ours_seconds_per_iteration", "ours_spread", "seconds_per_megapixel"),
    )
    return {
        "name": name,
        **{key: result[key] for key in kept},
        "peak_bytes": result["device_peak_bytes"] or result["peak_rss_bytes"],
    }


def say(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    if "failed" in result:
        return f"{result['name']}: failed ({result['failed']})"
    return (
        f"{result['name']}: {result['peak_bytes'] / 2**30:.2f} GiB at the peak, "
        f"{result['ours_seconds_per_iteration']:.4f} s an iteration"
    )


def run(options: Options) -> dict[str, Any]:
    """Measures every size; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used, or a size that failed.
    """
    for size in options.sizes:
        dip.parse_size(size)
    peers.check_counts(rounds=options.rounds)
    found = peers.collect(
        "memory",
        [
            functools.partial(measure, size, remat=remat, rounds=options.rounds)
            for size in options.sizes
            for remat in (False, True)
        ],
        json=options.json,
        alone=True,
        say=say,
    )
    failed = [result["name"] for result in found["results"] if "failed" in result]
    if failed:
        raise InputError(f"{', '.join(failed)}: failed, the rest is kept")
    return found


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
