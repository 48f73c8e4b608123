"""Curves and tables of numbers as PNG, PDF or SVG, each whole, the same bytes every time.

Colours are Okabe and Ito's, which the colour-blind tell apart ("Color Universal Design", 2008).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from jaxsr.figures import Path, save, style

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLE: list[Any] = ["default", {"axes.prop_cycle": cycler(color=_COLOURS)}]


def curves(
    path: Path,
    histories: Mapping[str, Mapping[str, Any]],
    *,
    columns: Mapping[str, str],
    ylabel: str,
    xlabel: str = "iteration",
    baseline: Mapping[str, float] | None = None,
) -> None:
    """Plots histories against what `xlabel` counts, from 1, to a file.

    So that the start does not squash the rest, the vertical axis covers the baselines and what
    comes after the first tenth, the lowest 0.5 % aside.

    Args:
      path: of the file to write, by its suffix PNG, PDF or SVG.
      histories: name of a run -> column -> 1-D array.
      columns: column -> its label, in the order of drawing; a run need not have all of them.
      ylabel: quantity and unit.
      xlabel: what the values are counted by.
      baseline: label -> level of a dashed line; levels that are not finite are left out.

    Raises:
      InputError: the file cannot be written.
    """
    baseline = {label: level for label, level in (baseline or {}).items() if np.isfinite(level)}
    levels: list[float] = []
    with style(*_STYLE):
        figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        for run, history in histories.items():
            for column in (column for column in columns if column in history):
                values = np.asarray(history[column], np.float64)
                label = columns[column] if len(histories) == 1 else f"{run}: {columns[column]}"
                axes.plot(np.arange(1, len(values) + 1), values, linewidth=1.2, label=label)
                levels.extend(values[len(values) // 10 :])
        for label, level in baseline.items():
            axes.axhline(level, color="0.35", linestyle="--", linewidth=1.2, label=label)
        _settle(axes, levels, *baseline.values())
        axes.margins(x=0.01)
        _finish(path, figure, axes, xlabel, ylabel)


def _settle(axes: Axes, levels: Sequence[float], *more: float) -> None:
    """The vertical axis covers `levels`, the lowest 0.5 % aside, and `more`."""
    settled = np.array([level for level in levels if np.isfinite(level)])
    if settled.size:
        low = min([np.percentile(settled, 0.5), *more])
        high = max([settled.max(), *more])
        space = 0.06 * (high - low) or 0.5
        axes.set_ylim(low - space, high + space)


def lines(
    path: Path,
    points: Mapping[str, Mapping[float, float]],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: str = "",
) -> None:
    """Draws a line with marks through each named set of points, x -> y, to a file.

    Args:
      logarithmic: the axes that are, "x", "y" or "xy".

    Raises:
      InputError: the file cannot be written.
    """
    with style(*_STYLE):
        figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        for name, line in points.items():
            axes.plot(list(line), list(line.values()), marker="o", linewidth=1.2, label=name)
        axes.set(**{f"{axis}scale": "log" for axis in logarithmic})
        _finish(path, figure, axes, xlabel, ylabel)


def bands(
    path: Path,
    measured: Mapping[str, Mapping[str, Any]],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: str = "",
    aside: float = 0.0,
) -> None:
    """Draws the mean of several curves each and, around it, as far as their deviation, to a file.

    Args:
      path: of the file to write, by its suffix PNG, PDF or SVG.
      measured: by name, `x` (n,) and `y` (curves, n). Of two curves or more the band is the
        deviation over them, of samples. With `of`, the name of one before, it is drawn dotted in
        that one's colour.
      xlabel: with its unit, as `ylabel`.
      ylabel: of the curves.
      logarithmic: the axes that are, "x", "y" or "xy".
      aside: the share of each curve, from its start, that a linear vertical axis need not cover.

    Raises:
      InputError: the file cannot be written.
    """
    with style(*_STYLE):
        figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        levels: list[float] = []
        colours: dict[str, Any] = {}
        for name, curve in measured.items():
            x, y = np.asarray(curve["x"]), np.asarray(curve["y"], np.float64)
            mean, off = y.mean(0), y.std(0, ddof=1) if len(y) > 1 else 0 * y[0]
            like: dict[str, Any] = {}
            if "of" in curve:
                like = {"color": colours[curve["of"]], "linestyle": ":"}
            (line,) = axes.plot(x, mean, linewidth=1.4, label=name, **like)
            colours[name] = line.get_color()
            if len(y) > 1:
                axes.fill_between(
                    x, mean - off, mean + off, color=colours[name], alpha=0.2, linewidth=0
                )
            start = int(aside * len(x))
            levels += [*(mean - off)[start:], *(mean + off)[start:]]
        axes.set(**{f"{axis}scale": "log" for axis in logarithmic})
        if "y" not in logarithmic:
            _settle(axes, levels)
        axes.margins(x=0.01)
        _finish(path, figure, axes, xlabel, ylabel)


def heat_map(
    path: Path,
    values: Mapping[str, Sequence[float | None]],
    *,
    texts: Mapping[str, Sequence[str]],
    columns: Sequence[str],
    label: str,
    title: str = "",
) -> None:
    """Draws a table: each cell's text on a colour by its value, white where it is None.

    Red is below 0, blue above, as far as the largest value there is either way.

    Args:
      path: of the file to write, by its suffix PNG, PDF or SVG.
      values: by row, one a column.
      texts: the same.
      columns: names.
      label: of the values, with their unit.
      title: above it.

    Raises:
      InputError: the file cannot be written.
    """
    numbers = np.array([[np.nan if v is None else v for v in row] for row in values.values()])
    known = np.abs(numbers[np.isfinite(numbers)])
    limit = max(known.max(initial=0), 0.1)
    with style("default"):
        size = (2.5 + 1.1 * len(columns), 1.2 + 0.45 * len(values))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        axes = figure.add_subplot()
        drawn = axes.imshow(numbers, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=20, parse_math=False)
        axes.set_yticks(range(len(values)), list(values), parse_math=False)
        for i, row in enumerate(texts.values()):
            for j, text in enumerate(row):
                strong = np.isfinite(numbers[i, j]) and abs(numbers[i, j]) > 0.7 * limit
                colour = "white" if strong else "black"
                axes.text(j, i, text, ha="center", va="center", size=9, color=colour)
        axes.set_title(title, size=10)
        figure.colorbar(drawn, label=label)
        save(path, figure)


def _finish(path: Path, figure: Figure, axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel, axisbelow=True)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    for columns in (4, 3, 2, 1):  # as many as the width holds
        legend = figure.legend(frameon=False, loc="outside upper center", ncols=columns)
        for text in legend.get_texts():
            text.set_parse_math(False)  # names of files may hold dollars
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    save(path, figure)
