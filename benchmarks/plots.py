"""What a record of the suite looks like: seconds an iteration by the image's size, as a PNG."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from benchmarks import comparison
from jaxsr import plots


def seconds_by_size(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Deep Image Prior (Charbonnier, float32, one fit), ours and each peer, against megapixels.

    Both axes are logarithmic: a line of slope 1 is a cost that grows with the pixels.

    Raises:
      InputError: the file cannot be written.
    """
    lines: dict[str, dict[float, float]] = {}
    for name, row in comparison.rows(record).items():
        if not re.fullmatch(r"(dip|sizes): dip \d+x\d+ charbonnier float32", name):
            continue
        height, width = map(int, row["size"].split("x"))
        lines.setdefault("jaxsr", {})[height * width / 1e6] = row["ours_seconds_per_iteration"]
        for peer, times in row["peers"].items():
            line = lines.setdefault(f"PyTorch {peer}", {})
            line[height * width / 1e6] = times["seconds_per_iteration"]
    plots.lines(
        path,
        {name: dict(sorted(line.items())) for name, line in lines.items()},
        xlabel="megapixels",
        ylabel="seconds an iteration",
        logarithmic="xy",
    )
