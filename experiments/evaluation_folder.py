"""The folder of an evaluation: whose it may be, and how a new one takes an earlier one's place."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from experiments import command, pages
from jaxsr import files
from jaxsr.errors import InputError

PLACES = ("images", "bicubic", "hr")  # of results, baselines and ground truths
RECORDS = ("scores.json", "scores.csv", pages.NAME)
FITS = "dip"


@contextlib.contextmanager
def opened(out: pathlib.Path) -> Iterator[None]:
    """Makes the folder and its parts, and keeps other evaluations out of it meanwhile.

    Raises:
      InputError: there are other things in it than an evaluation leaves there, or another is at it,
        or it cannot be made.
    """
    command.make(out)
    held = files.lock(out)
    try:
        _require_own(out)
        command.make(out, *PLACES)
        yield
    finally:
        os.close(held)


def _require_own(out: pathlib.Path) -> None:
    own = {*PLACES, *RECORDS, FITS}
    for path in sorted(out.iterdir()):
        if path.name not in own and not path.name.startswith("."):
            rule = f"must be new, empty or of an evaluation: it holds {path.name}"
            raise InputError(f"`--out` (={out}) {rule}")
    held = [place for place in PLACES if (out / place).exists()]
    if 0 < len(held) < len(PLACES):  # an evaluation makes all of them at once
        rule = f"must be new, empty or of an evaluation: it holds {held[0]} alone"
        raise InputError(f"`--out` (={out}) {rule}")


def clear(out: pathlib.Path) -> None:
    """Removes the records of an earlier evaluation, and its images; fits stay, to be gone on."""
    records = [path for record in RECORDS if (path := out / record).exists()]
    images = [path for place in PLACES for path in (out / place).glob("*.png")]
    for path in (*records, *images):
        path.unlink()
