"""Figures of many images: their mean, as an aligned table and as CSV.

The figures of an image are numbers by name; a name may also hold figures, such as those of bicubic.
"""

import csv
import io
import math
import os
import statistics
from collections.abc import Sequence
from typing import Any

from jaxsr.files import atomic

Figures = dict[str, Any]
Rows = Sequence[tuple[str, Figures]]


def mean(figures: Sequence[Figures]) -> Figures:
    """Of every number that all of them have (gray images lack those of RGB)."""
    common = [name for name in figures[0] if all(name in other for other in figures)]
    means: Figures = {}
    for name in common:
        values = [image[name] for image in figures]
        means[name] = mean(values) if isinstance(values[0], dict) else statistics.fmean(values)
    return means


def flat(figures: Figures) -> dict[str, Any]:
    """Without nesting: `bicubic_psnr` is the `psnr` of `bicubic`."""
    numbers: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            numbers |= {f"{name}_{inner}": number for inner, number in flat(value).items()}
        else:
            numbers[name] = value
    return numbers


def summary(rows: Rows, *, beside: str) -> str:
    """PSNR and SSIM as a table; `beside` names figures in each row to show next to them, if any."""
    digits = (".3f", ".4f", ".3f", ".4f", "+.3f")
    lines = [["image", *columns(beside)]]
    for name, row in rows:
        cells = zip(figures(row, beside), digits, strict=False)
        lines.append([name, *(x if isinstance(x, str) else f"{x:{d}}" for x, d in cells)])
    return table(lines)


def columns(beside: str) -> tuple[str, ...]:
    """What `figures` gives, in words."""
    own = ("PSNR", "SSIM")
    return (*own, *(f"{beside} {name}" for name in own), "gain") if beside else own


def figures(row: Figures, beside: str = "") -> list[float | str]:
    """PSNR and SSIM; beside other figures in the row also those, and the gain.

    Over what is exact, as it is itself, there is none: a dash.
    """
    own = float(row["psnr"]), float(row["ssim"])
    if not beside:
        return [*own]
    other = float(row[beside]["psnr"]), float(row[beside]["ssim"])
    gain = own[0] - other[0]
    return [*own, *other, "-" if math.isnan(gain) else gain]


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def write_csv(path: str | os.PathLike[str], rows: Rows) -> None:
    """Writes one line for each row, `image` first, numbers with all their digits.

    A number that an image lacks is left empty.

    Raises:
      InputError: the file cannot be written.
    """
    lines = [{"image": name} | flat(figures) for name, figures in rows]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    with atomic(path) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8", errors="backslashreplace"))
