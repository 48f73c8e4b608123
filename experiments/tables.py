"""The tables of `experiments.table1`: their images, their cells, and what the cells add up to."""

import math
import statistics
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from experiments import recipes, rows, scores
from experiments.ledger import Record

TableName = Literal["paper", "standard", "set5"]
IMAGES: dict[str, tuple[str, ...]] = {
    "bsds300": (
        *("16077", "37073", "101085", "189080", "21077"),
        *("85048", "86000", "106024", "210088", "253027"),
    ),
    "set5": ("baby", "bird", "butterfly", "head", "woman"),
}

# Of these, figures show a crop of SIDE pixels a side; top and left of it, in multiples of 4 so that
# it has one in the low resolution. Chosen by eye for fine texture that 4x takes away and a method
# must invent: the zebras' stripes, where bicubic has the least PSNR of the ten (20.2 dB); the grid
# of the tower's windows, where it aliases; and the veins that every paper shows of the butterfly.
SHOWN = {"253027": (76, 184), "86000": (88, 88), "butterfly": (120, 140)}
SIDE = 96

OF_A_CELL = ("row", "image", "input_sha256", "seed")  # settings that may differ within a row
OF_A_SEED = ("weights_sha256",)  # and between its seeds


class Cell(NamedTuple):
    """What is computed once: an image by a row of a table."""

    table: TableName
    row: str
    recipe: recipes.Recipe
    image: str
    seed: int

    @property
    def group(self) -> "Cell":
        """The cell without its image."""
        return self._replace(image="")

    @property
    def label(self) -> str:
        """Of its row in the table."""
        return f"{self.row} ({self.recipe})" if self.row in rows.DIP else self.row

    @property
    def shown(self) -> bool:
        """Whether a crop of it is kept; of several seeds one is enough."""
        return self.image in SHOWN and self.seed == 0

    @property
    def name(self) -> str:
        """In the ledger."""
        row = f"{self.row}_{self.recipe}" if self.row in rows.DIP else self.row
        image = f"{self.image}_seed{self.seed}" if rows.seeded(self.row) else self.image
        return f"{self.table}/{row}/{image}"


def names_of(table: str) -> tuple[str, ...]:
    """The images of a table."""
    return IMAGES["set5" if table == "set5" else "bsds300"]


def title(table: str) -> str:
    """Of a table, in words."""
    return f"table {table}, {rows.FACTOR}x, PSNR in dB"


def lines(
    table: str, records: Mapping[Cell, Record | None]
) -> tuple[list[str], list[tuple[str, list[str | None]]]]:
    """A table's heads and rows: each row's means over its cells, beside what was published.

    What is of fewer images than the table has bears a star, a row without cells is None. Cells of
    a row that were made under different settings have no mean.
    """
    beside = ["RGB PSNR", "RGB SSIM"]
    if table == "paper":
        beside = ["published PSNR", "published SSIM", "difference", "of SSIM"]
    if table == "set5":
        beside += ["published PSNR", "difference"]
    heads = ["row", "PSNR", "+-", "SSIM", *beside, "cells", "protocol"]
    made = []
    for label in dict.fromkeys(cell.label for cell in records):
        wanted = {cell: record for cell, record in records.items() if cell.label == label}
        found = {cell: record for cell, record in wanted.items() if record is not None}
        row = next(iter(wanted)).row
        line: list[str | None] = []
        if not found:
            line.append(None)
        elif differing := _differing(found):
            line.append(f"mixed {', '.join(differing)}")
        else:
            psnr, ssim = (_mean(found, name) for name in ("psnr", "ssim"))
            published = rows.PUBLISHED.get(row)
            whole = {cell.image for cell in found} == {*names_of(table)}
            star = "" if whole else "*"
            line += [f"{psnr:.3f}{star}", _spread(table, found), f"{ssim:.4f}{star}"]
            if table != "paper":
                line += [_of_colour(found, *n) + star for n in (("psnr", 3), ("ssim", 4))]
                theirs = rows.PUBLISHED_SET5.get(row)
                if table == "set5" and theirs and whole:
                    line += [f"{theirs:.2f}", f"{psnr - theirs:+z.2f}"]
            elif published and whole:
                line += [f"{published[0]:.2f}", f"{published[1]:.4f}"]
                line += [f"{psnr - published[0]:+z.2f}", f"{ssim - published[1]:+z.4f}"]
        line += [""] * (len(heads) - 3 - len(line))
        line += [f"{len(found)}/{len(wanted)}", rows.protocol_name(row, table)]
        made.append((label, line))
    return heads, made


def note(table: str, records: Mapping[Cell, Record | None]) -> str:
    """What a table's stars and deviations mean, where it has some; else empty."""
    _, made = lines(table, records)
    said = []
    if any((figure or "").endswith("*") for _, line in made for figure in line[:2]):
        said.append("*: of some images alone, for comparison with figures of the same")
    if any(line[1] for _, line in made):
        said.append("+-: the deviation over seeds, of the images that all seeds have")
    return "; ".join(said)


def _differing(found: Mapping[Cell, Record]) -> list[str]:
    """The settings in which records of one row differ."""
    names = dict.fromkeys(name for record in found.values() for name in record["settings"])
    differing = []
    for name in (name for name in names if name not in OF_A_CELL):
        values: dict[int | None, list[Any]] = {}
        for cell, record in found.items():
            of = cell.seed if name in OF_A_SEED else None
            values.setdefault(of, []).append(record["settings"].get(name))
        if any(x != of[0] for of in values.values() for x in of):
            differing.append(name)
    return differing


def _mean(found: Mapping[Cell, Record], figure: str) -> float:
    """Over images, each the mean of its seeds."""
    images: dict[str, list[float]] = {}
    for cell, record in found.items():
        images.setdefault(cell.image, []).append(record[figure])
    return statistics.fmean(map(statistics.fmean, images.values()))


def _of_colour(found: Mapping[Cell, Record], figure: str, digits: int) -> str:
    """The mean of a figure on RGB, which gray images have none of."""
    name = f"{figure}_rgb"
    if not all(name in record for record in found.values()):
        return "gray"
    return f"{_mean(found, name):.{digits}f}"


def show(table: str, records: Mapping[Cell, Record | None]) -> str:
    """A table as text."""
    heads, made = lines(table, records)
    text = [[name, *("missing" if x is None else x for x in line)] for name, line in made]
    parts = f"\n{title(table)}", scores.table([heads, *text]), note(table, records)
    return "\n".join(filter(None, parts))


def spread_over_seeds(found: Mapping[Cell, Record]) -> tuple[float, set[str]] | None:
    """The standard deviation over seeds of the mean PSNR over images, and which images those are.

    They are the ones that every seed has. None for a single seed.
    """
    seeds: dict[int, dict[str, float]] = {}
    for cell, record in found.items():
        seeds.setdefault(cell.seed, {})[cell.image] = record["psnr"]
    common = set.intersection(*map(set, seeds.values()))
    if len(seeds) < 2 or not common:
        return None
    means = [statistics.fmean(psnr[image] for image in common) for psnr in seeds.values()]
    return (statistics.stdev(means), common) if all(map(math.isfinite, means)) else None


def _spread(table: str, found: Mapping[Cell, Record]) -> str:
    """The deviation over seeds as a table shows it; empty for a single seed."""
    if (spread := spread_over_seeds(found)) is None:
        return ""
    deviation, images = spread
    return f"{deviation:.3f}{'' if images == {*names_of(table)} else '*'}"
