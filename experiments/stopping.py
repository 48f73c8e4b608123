"""Does the least variance find the peak? What ES-EMV would have done, from runs that went on.

    python -m experiments.dip --task denoise --hr crops --iterations 5000 --patience 5000 --out es
    python -m experiments.stopping es/* --patience 1000

Of each finished run of `experiments.dip` with a ground truth and its variances on record: the PSNR
of the running average where a fit of that patience would have found the minimum, after the last
iteration, and at its peak, which only an oracle knows; and the iterations that the stop would have
saved. A run's own patience only ends it: the outputs until then are those of any other patience.
"""

import dataclasses
import math
import pathlib
import statistics
import sys
from typing import Any, NamedTuple

import tyro

from experiments import command, scores
from experiments.record import asked_for, by_name, read_metrics
from jaxsr import reports
from jaxsr.errors import InputError, require_integers
from jaxsr.options import Given

OF_THE_RUN = ("iterations", "seed", "precision", "device", "versions")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What ES-EMV would have done in finished runs of experiments.dip."""

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Their folders; files, which a glob may name too, are passed over."""
    patience: int = 1000
    """Iterations without a new minimum after which a fit ends."""
    json: Given[pathlib.Path] = None
    """A file for the figures."""


class Stop(NamedTuple):
    """Iterations count from 1; PSNR in dB."""

    found: int  # of the least variance
    ended: int
    psnr: float  # at `found`
    psnr_end: float  # of all iterations
    psnr_peak: float


def detect(variances: list[float], psnr: list[float], patience: int) -> Stop:
    """Where a fit of a patience stops, given the history of one that went on."""
    found, least = 1, math.inf
    for iteration, variance in enumerate(variances, start=1):
        if iteration > found + patience:
            break
        if variance < least:
            found, least = iteration, variance
    ended = min(found + patience, len(variances))
    return Stop(found, ended, psnr[found - 1], psnr[-1], max(psnr))


def read(run: pathlib.Path, patience: int) -> tuple[Stop, dict[str, Any]]:
    """The stop of a run, and its metrics.

    Raises:
      InputError: it is not finished, or has no PSNR or variances on record up to its end.
    """
    if not run.is_dir():
        raise InputError(f"`RUNS` (={run}) must be folders of finished runs")
    metrics = read_metrics(run)
    if not metrics:
        raise InputError(f"`{run}` must be the folder of a finished run of experiments.dip")
    path = run / "history.csv"
    columns = reports.read_csv(path)
    if not {"psnr", "variance"} <= columns.keys():
        raise InputError(
            f"`{path}` must hold the columns psnr and variance, as a finished run of "
            f"experiments.dip --hr IMAGE --patience N leaves them"
        )
    variances, psnr = columns["variance"].tolist(), columns["psnr"].tolist()
    if not metrics.get("iterations") == asked_for(metrics) == len(variances) > 0:
        raise InputError(
            f"`{run}` must have done all its iterations, which its patience may have cut short: "
            "fit it elsewhere with a larger `--patience` of experiments.dip"
        )
    return detect(variances, psnr, patience), metrics


def run(settings: Settings) -> int:
    """Prints the table; the exit code."""
    require_integers(patience=settings.patience)
    found = {name: read(path, settings.patience) for name, path in by_name(settings.runs).items()}
    lines = [
        ["image", "stop", "ended", "saved", "at the stop", "at the end", "peak (oracle)", "off"]
    ]
    for name, (stop, metrics) in found.items():
        share = f"{100 * (1 - stop.ended / metrics['iterations']):.0f} %"
        values = (stop.psnr, stop.psnr_end, stop.psnr_peak, stop.psnr_peak - stop.psnr)
        counts = (str(stop.found), str(stop.ended), share)
        lines.append([name, *counts, *(f"{value:.2f}" for value in values)])
    stops = [stop for stop, _ in found.values()]
    saved = statistics.fmean(1 - stop.ended / x["iterations"] for stop, x in found.values())
    means = [statistics.fmean(getattr(stop, f) for stop in stops) for f in Stop._fields]
    off = means[4] - means[2]
    counts = (f"{means[0]:.0f}", f"{means[1]:.0f}", f"{100 * saved:.0f} %")
    lines.append(["mean", *counts, *(f"{value:.2f}" for value in (*means[2:], off))])
    print("PSNR in dB on all channels, not rounded, whatever the runs' protocol")
    print(scores.table(lines))
    if settings.json:
        record = {
            name: stop._asdict() | {x: metrics.get(x) for x in OF_THE_RUN}
            for name, (stop, metrics) in found.items()
        }
        mean = dict(zip(Stop._fields, means, strict=True)) | {"off": off, "saved": saved}
        reports.write_json(
            settings.json, {"patience": settings.patience, "runs": record, "mean": mean}
        )
    return 0


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
