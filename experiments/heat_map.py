"""What the cells of `experiments.robustness` add up to, loss by corruption: table and heat map."""

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from experiments import scores
from experiments.ledger import Record
from jaxsr import losses, plots

SCALE = 0.05  # of Barron's losses
LOSSES = losses.LOSSES | {f"general-{a:g}": losses.general(a, scale=SCALE) for a in (1.5, 0.5, 0)}
FIGURES = ("psnr", "psnr_output", "psnr_peak", "psnr_output_peak")
SHOWN = {  # file, and what it shows
    "psnr": ("robustness", "after the last iteration"),
    "psnr_peak": ("robustness_peak", "at the peak (oracle)"),
}
Records = Mapping[tuple[str, str, int], Record]  # by loss, corruption and seed


def mean(records: Records, figure: str, loss: str, corruption: str) -> float | None:
    """Of a figure over all seeds; None where one has no fit on record, or that diverged."""
    found = _of(records, loss, corruption)
    if len(found) < _seeds(records) or not all(record["finite"] for record in found):
        return None
    return statistics.fmean(record[figure] for record in found)


def _of(records: Records, loss: str, corruption: str) -> list[Record]:
    return [r for (a, b, _), r in records.items() if (a, b) == (loss, corruption)]


def _seeds(records: Records) -> int:
    return max(1, len({seed for _, _, seed in records}))


def text(records: Records, figure: str, loss: str, corruption: str) -> str:
    """The same in dB, with the deviation over seeds where there are several."""
    found, seeds = _of(records, loss, corruption), _seeds(records)
    value = mean(records, figure, loss, corruption)
    if len(found) < seeds:
        return f"{len(found)} of {seeds} seeds" if found else "missing"
    if value is None:
        return "diverged"
    if len(found) == 1 or not math.isfinite(value):
        return f"{value:.2f}"
    return f"{value:.2f} ± {statistics.stdev(r[figure] for r in found):.2f}"


def table(records: Records, figure: str, losses: Sequence[str], corruptions: Sequence[str]) -> str:
    """A row a loss, a column a corruption."""
    lines = [[loss, *(text(records, figure, loss, c) for c in corruptions)] for loss in losses]
    return scores.table([["loss", *corruptions], *lines])


def draw(
    path: pathlib.Path,
    records: Records,
    losses: Sequence[str],
    corruptions: Sequence[str],
    *,
    figure: str,
    title: str,
) -> None:
    """A figure of the records in dB, coloured by its gain over the mean squared error's.

    Raises:
      InputError: the file cannot be written.
    """

    def gain(loss: str, corruption: str) -> float | None:
        value, base = (mean(records, figure, name, corruption) for name in (loss, "mse"))
        return None if value is None or base is None else value - base

    plots.heat_map(
        path,
        {loss: [gain(loss, c) for c in corruptions] for loss in losses},
        texts={loss: [text(records, figure, loss, c) for c in corruptions] for loss in losses},
        columns=corruptions,
        label="PSNR over that of mse (dB)",
        title=title,
    )
