"""What every benchmark against PyTorch shares: the check beforehand, the figures, the command line.

Without PyTorch (the extra `torch`) the programs are timed alone.
"""

import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike

from benchmarks import machine, timing
from jaxsr import reports
from jaxsr.errors import InputError, reason, require_integers
from jaxsr.options import main as command_line

AGREEMENT = 1e-4
PAUSE = 0.3  # seconds; OpenMP's threads spin for 0.2 by default

Options = TypeVar("Options")


def pause() -> float:
    """Seconds to wait before a measurement; none on a GPU, whose clock would fall."""
    return PAUSE if jax.default_backend() == "cpu" else 0.0


def disagreement(ours: ArrayLike, theirs: ArrayLike, *, allowed: float = AGREEMENT) -> float:
    """The largest difference of losses or images, relative to theirs' largest value.

    Raises:
      RuntimeError: above `allowed`: then the two do not compute the same, and speed means nothing.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    difference = float(np.abs(a - b).max() / np.abs(b).max())
    if not difference <= allowed:
        raise RuntimeError(
            "programs that should compute the same disagree from one start: relative difference "
            f"{difference:.1e}, allowed {allowed}"
        )
    return difference


def compare(
    ours: Callable[[], Any],
    theirs: Mapping[str, Callable[[], Any]],
    *,
    unit: str,
    units: int,
    rounds: int,
) -> dict[str, Any]:
    """Times all programs in turns; the figures as they stand in the JSON file.

    Args:
      ours: `units` units of work.
      theirs: the same in PyTorch, by name; none where it is left out.
      unit: what the figures are seconds of: an iteration, an image.
      units: in one call of each program.
      rounds: measurements of each program.
    """
    programs = {"ours": ours, **theirs}
    times = timing.interleaved(programs, rounds=rounds, units=units, pause=pause())
    mine = times.pop("ours")
    best = min(times.values(), key=lambda t: t.median, default=None)
    ratio, ratio_spread = timing.ratio(best, mine) if best else (None, None)
    return {
        "unit": unit,
        f"ours_seconds_per_{unit}": mine.median,
        "ours_spread": mine.spread,
        f"{unit}s_per_second": 1 / mine.median,
        f"torch_seconds_per_{unit}": best.median if best else None,
        "ratio": ratio,
        "ratio_spread": ratio_spread,
        "peers": {
            name: {f"seconds_per_{unit}": t.median, "spread": t.spread} for name, t in times.items()
        },
        f"{unit}s_per_measurement": units,
        "peak_rss_bytes": machine.peak_rss_bytes(),
        "device_peak_bytes": machine.device_peak_bytes(),
    }


def report(result: Mapping[str, Any]) -> str:
    """What `compare` found, with `name` and `compile_seconds`, in one line."""
    unit = result["unit"]
    line = (
        f"{result['name']}: {result[f'{unit}s_per_second']:.2f} {unit}s/s "
        f"({result[f'ours_seconds_per_{unit}']:.4f} s, spread {result['ours_spread']:.4f}), "
        f"compiled in {result['compile_seconds']:.1f} s"
    )
    if "gflop_per_second" in result:
        share = f"{result['share_of_product_ceiling']:.0%} of a product's"
        line += f", {result['gflop_per_second']:.0f} GFLOP/s, {share}"
    if "share_of_copy_ceiling" in result:
        line += f", {result['share_of_copy_ceiling']:.0%} of a copy's bytes/s"
    if result["ratio"] is None:
        return line
    peers = ", ".join(
        f"{peer} {times[f'seconds_per_{unit}']:.4f} s" for peer, times in result["peers"].items()
    )
    return f"{line}; PyTorch {peers}: ratio {result['ratio']:.2f} +- {result['ratio_spread']:.2f}"


def collect(
    benchmark: str,
    measurements: Iterable[Callable[[], dict[str, Any]]],
    *,
    json: pathlib.Path | None,
    alone: bool,
    say: Callable[[Mapping[str, Any]], str] = report,
    **settings: Any,
) -> dict[str, Any]:
    """Measures one after another, prints each result and writes all so far; returns all.

    Each result has a `name`, by which `benchmarks.comparison` finds it again. One that fails, for
    want of memory, say, does not keep the others.

    Raises:
      InputError: some failed, each for a reason that is printed; the first is told at the end.
    """
    found: dict[str, Any] = {
        "benchmark": benchmark,
        **settings,
        "environment": machine.environment(alone=alone),
        "results": [],
    }
    if json:  # one that cannot be written is refused before the work
        reports.write_json(json, found)
    failed: list[str] = []
    for measure in measurements:
        try:
            result = measure()
        except RuntimeError as error:  # JAX's and PyTorch's, and a disagreement
            failed.append(reason(error))
            print(f"left out: {failed[-1]}", file=sys.stderr)
            continue
        found["results"].append(result)
        print(say(result), flush=True)
        if json:
            reports.write_json(json, found)
    if failed:
        raise InputError(f"{len(failed)} of the measurements failed: {failed[0]}")
    return found


def is_alone(asked: bool) -> bool:
    """Whether PyTorch is left out, as asked or because it is not installed (which is printed).

    Raises:
      InputError: it is installed, but without a GPU where JAX does not compute on the CPU.
    """
    missing = not asked and importlib.util.find_spec("torch") is None
    if missing:
        print("PyTorch is not installed (the extra `torch`): timing jaxsr alone")
    if not (asked or missing) and jax.default_backend() != "cpu":
        import torch

        if not torch.cuda.is_available():
            rule = "and JAX does not compute on the CPU: give `--alone` to leave PyTorch out"
            raise InputError(f"PyTorch finds no GPU, {rule}")
    return asked or missing


def parse_size(text: str, *, multiple: int, least: int, option: str = "sizes") -> tuple[int, int]:
    """Turns HEIGHTxWIDTH into (height, width).

    Raises:
      InputError: not HEIGHTxWIDTH, or not multiples of `multiple` from `least`.
    """
    sides = text.split("x")
    if len(sides) == 2 and all(side.isascii() and side.isdigit() for side in sides):
        height, width = map(int, sides)
        if min(height, width) >= least and height % multiple == width % multiple == 0:
            return height, width
    rule = f"each a multiple of {multiple}, at least {least}"
    raise InputError(f"`{option}` (={text}) must be HEIGHTxWIDTH, {rule}")


def check_counts(**counts: int | None) -> None:
    """Refuses counts under 1.

    Raises:
      InputError: one is.
    """
    require_integers(**{name: value for name, value in counts.items() if value is not None})


def precisions(asked: Sequence[str] | None) -> Sequence[str]:
    """Those asked for, else float32 and, but for a CPU, tf32.

    Raises:
      InputError: tf32 is asked for on a CPU, whose products would be exact under that name.
    """
    on_cpu = jax.default_backend() == "cpu"
    if asked is None:
        return ("float32",) if on_cpu else ("float32", "tf32")
    if "tf32" in asked and on_cpu:
        raise InputError(f"`precisions` (={' '.join(asked)}): a CPU has no tf32")
    return asked


def main(
    options: type[Options],
    run: Callable[[Options], Any],
    args: Sequence[str] | None = None,
    *,
    stopped: str = "stopped: the results above are in the JSON file, if one was asked for",
) -> int:
    """The command line; returns the exit code, as `jaxsr.options.main`."""

    def work(parsed: Options) -> int:
        run(parsed)
        return 0

    return command_line(options, work, args, stopped=stopped)
