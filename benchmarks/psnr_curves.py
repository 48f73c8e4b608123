"""What is told of PSNR curves: values, when a level stays reached, and both over seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

COUNTS = (250, 500, 1000, 2000)
Figures = dict[str, Any]


def stays_at(psnr: np.ndarray, level: float) -> int | None:
    """The iteration, from 1, from which on PSNR is never below a level; None: it ends below."""
    below = np.flatnonzero(~(psnr >= level))
    first = int(below[-1]) + 2 if below.size else 1
    return first if first <= len(psnr) else None


def figures_of(psnr: np.ndarray, psnr_output: np.ndarray, level: float) -> Figures:
    """What is told of a fit, None where it has no such figure.

    Args:
      psnr: of the result, dB, one an iteration, NaN after an overflow.
      psnr_output: the same of the network's own outputs.
      level: dB.
    """
    counts = [*(n for n in COUNTS if n < len(psnr)), len(psnr)]
    decibels = {f"psnr_{n}": psnr[n - 1] for n in counts} | {"psnr_output": psnr_output[-1]}
    return {
        **{name: float(value) if np.isfinite(value) else None for name, value in decibels.items()},
        "iterations_to_level": stays_at(psnr, level),
    }


def over_seeds(values: Sequence[float | None]) -> Figures:
    """Mean and sample standard deviation, None where a value or a second one is missing."""
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if len(known) == len(values) else None
    spread = statistics.stdev(known) if mean is not None and len(known) > 1 else None
    return {"mean": mean, "spread": spread, "seeds": len(known), "of": len(values)}
