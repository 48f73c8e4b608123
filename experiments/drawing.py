"""What the paper's figures are drawn from, and how one says what it lacks."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Literal

from experiments import tables
from experiments.recipes import Recipe
from jaxsr.options import Listed

TITLES = {
    "bicubic": "bicubic",
    "tv": "total variation",
    "lapsrn-1-1": "LapSRN (1,1)",
    "lapsrn-2-1": "LapSRN (2,1)",
    "lapsrn-1-2": "LapSRN (1,2)",
    "dip-mse": "DIP (MSE)",
    "dip-charbonnier": "DIP (Charbonnier)",
}
TABLE = "python -m experiments.table1 --bsds300 BSDS300"
FITS = f"{TABLE} --only dip-mse dip-charbonnier"
NETWORKS = f"{TABLE} --lapsrn runs/lapsrn"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Draw the paper's figures from the records."""

    only: Listed[str] = ()
    """Which: 1 to 9 (5 and 6 are one), impedance. Default: all."""
    results: pathlib.Path = pathlib.Path("results")
    """Folder of the records: table1, lapsrn and impedance lie in it."""
    lapsrn: pathlib.Path = pathlib.Path("runs/lapsrn")
    """Where `experiments.lapsrn` left trainings that are not on record."""
    recipe: Recipe = "reference"
    """Of the fits of Deep Image Prior."""
    out: pathlib.Path = pathlib.Path("runs/figures")
    """Folder of the files, and of captions.json."""
    format: Literal["png", "pdf", "svg"] = "png"
    """Of figures of lines and boxes; images side by side are PNG files, which keep their pixels."""


def shown() -> tuple[str, ...]:
    """The images of table `paper` that crops are kept of."""
    return tuple(image for image in tables.names_of("paper") if image in tables.SHOWN)


def fits(settings: Settings) -> str:
    """The command that fits what the figures of Deep Image Prior show."""
    return FITS if settings.recipe == "reference" else f"{FITS} --recipes {settings.recipe}"


def shown_fits(settings: Settings) -> str:
    """Of those the images that crops are kept of."""
    return f"{fits(settings)} --images {' '.join(shown())}"


class Missing(Exception):
    """What a figure lacks, and the command that makes it."""


Drawn = Iterator[tuple[pathlib.Path, str]]  # files, and their captions
