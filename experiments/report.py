"""Finished runs as one HTML page: images to compare, curves, scores and settings.

    python -m experiments.report runs/dip/coffee_x4_charbonnier_seed0 --out report.html
    python -m experiments.report runs/dip/* scores/set5 runs/lapsrn/* --out all.html
    python -m experiments.report results/table1 results/robustness --out ledgers.html

RUN is a folder that experiments.dip, experiments.evaluate or experiments.lapsrn left, or the ledger
of experiments.table1 or experiments.robustness. The page works offline and asks nothing of the
network; every number in it is as the run recorded it.
"""

import dataclasses
import pathlib
import sys

import tyro

from experiments import command, corrupted, finished, pages, recorded
from experiments.record import by_name
from jaxsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Finished runs as one HTML page."""

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders that experiments.dip, .evaluate or .lapsrn left, or ledgers of experiments.table1
    or .robustness; files, which a glob may name too, are passed over."""
    out: pathlib.Path = pathlib.Path("report.html")
    """The page to write."""
    megabytes: float = finished.MEGABYTES
    """Of an evaluation's images: those beyond are left out of the page, which says so."""


def run(settings: Settings) -> int:
    """The page; the exit code, 1 if unfinished runs had to be left out."""
    if settings.out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`--out` (={settings.out}) must end in .html")
    if not settings.megabytes >= 0:
        raise InputError(f"`--megabytes` (={settings.megabytes}) must be at least 0")
    runs, left_out = [], list[finished.Unfinished]()
    for name, folder in by_name(settings.runs).items():
        try:
            if ledger := next((kind for kind in (recorded, corrupted) if kind.holds(folder)), None):
                runs.append(ledger.read(folder, name))
            else:
                runs.append(finished.read(folder, name, megabytes=settings.megabytes))
        except finished.Unfinished as unfinished:
            left_out.append(unfinished)
    if not runs:
        raise left_out[0]
    pages.write(runs, settings.out)
    for error in left_out:
        print(f"left out: {error}", file=sys.stderr)
    print(f"{settings.out}: open it in a browser")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
