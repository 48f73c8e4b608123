"""What a ledger of `experiments.table1` holds, as `jaxsr.page` shows it."""

import dataclasses
import pathlib
import statistics
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments import pictures, rows, shown, tables
from experiments.ledger import Ledger, Record
from experiments.tables import Cell
from jaxsr import page
from jaxsr.errors import InputError


def holds(folder: pathlib.Path) -> bool:
    """Whether a folder is a ledger of tables."""
    return any(_files(Ledger(folder)))


def read(folder: pathlib.Path, name: str) -> page.Run:
    """The tables of a ledger, what is missing included; of fits the curves, and crops kept.

    Raises:
      InputError: a record is damaged, or of no cell that a table has.
    """
    ledger = Ledger(folder)
    found = dict(_cell(ledger, path) for path in _files(ledger))
    records = {cell: found.get(cell) for cell in _wanted(found)}
    both: list[page.Table] = []
    for table in dict.fromkeys(cell.table for cell in records):
        part = {cell: record for cell, record in records.items() if cell.table == table}
        heads, means = tables.lines(table, part)
        said = f"{tables.title(table)}; {tables.note(table, part)}".removesuffix("; ")
        columns = [head.replace("+-", "±") for head in heads]
        both += [page.Table(said.replace("+-", "±"), columns, means), _by_image(table, part)]
    labels: dict[str, list[Record]] = {}
    for cell, record in records.items():
        if record is not None:
            labels.setdefault(cell.label, []).append(record)
    costs = {label: shown.cost(made) for label, made in labels.items()}
    same, own = _settings(labels)
    return page.Run(
        name,
        "experiments.table1",
        same,
        costs,
        [each for cell, record in found.items() for each in _crop(folder, cell, record)],
        [_beside_bicubic(cell, found) for cell, r in records.items() if r and "history" in r],
        both,
        parts=own,
    )


def _files(ledger: Ledger) -> Iterator[pathlib.Path]:
    for table in typing.get_args(tables.TableName):
        yield from ledger.paths(f"{table}/*/*")


def _cell(ledger: Ledger, path: pathlib.Path) -> tuple[Cell, Record]:
    """A record and what it is of.

    Raises:
      InputError: it is damaged, or of no cell that a table has.
    """
    name = path.relative_to(ledger.folder).with_suffix("").as_posix()
    record = ledger.read(name, {})
    try:
        assert record is not None
        made = record["settings"]
        seed, recipe = made.get("seed", 0), made.get("recipe", "reference")
        table: Any = path.parts[-3]
        cell = Cell(table, made["row"], recipe, made["image"], seed)
        if "history" in record:
            _curve(cell, record)
        shown.cost([record])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"`{path}` is damaged ({error!r}): delete it to go on") from error
    if cell.row not in rows.NAMES or cell.image not in tables.names_of(table):
        raise InputError(
            f"`{path}` is of row {cell.row} and image {cell.image}, which no table of this version "
            f"has: move it out of `{ledger.folder}`"
        )
    if cell.name != name:
        raise InputError(f"`{path}` is of {cell.name}: rename it, or move it elsewhere")
    return cell, record


def _curve(cell: Cell, record: Record) -> page.Curve:
    name = f"{cell.label}, seed {cell.seed}"
    return shown.thinned(record, name, f"{cell.image}, table {cell.table}")


def _beside_bicubic(cell: Cell, found: Mapping[Cell, Record]) -> page.Curve:
    bicubic = found.get(Cell(cell.table, "bicubic", "reference", cell.image, 0))
    protocol = found[cell]["settings"].get("protocol")
    levels = shown.levels("bicubic", bicubic, protocol) if bicubic else {}
    return dataclasses.replace(_curve(cell, found[cell]), levels=levels)


def _crop(folder: pathlib.Path, cell: Cell, record: Record) -> Iterator[page.Picture]:
    """The crop beside a record, low resolution and truth; the figures are of the whole image."""
    label = f"{cell.label}, seed {cell.seed}" if rows.seeded(cell.row) else cell.label
    role: page.Role = "baseline" if cell.row in rows.INTERPOLATIONS else "result"
    scene = f"{cell.image}, a crop, table {cell.table}"
    protocol = f"{record['settings'].get('protocol')}, whole image"
    for picture in shown.picture(pictures.path(folder, cell), scene, label, role, record, protocol):
        yield picture
        # The low resolution is shown as large as the rest; all cells of the image have the same.
        others: tuple[tuple[str, str, page.Role], ...] = (
            ("lr", "low resolution", "input"),
            ("truth", "ground truth", "truth"),
        )
        for place, name, part in others:
            file = folder / cell.table / place / f"{cell.image}.png"
            for other in shown.picture(file, scene, name, part, None, ""):
                yield dataclasses.replace(other, size=picture.size)


def _wanted(found: Iterable[Cell]) -> Iterator[Cell]:
    """The cells of the tables begun, by row, with the seeds and recipes that are there."""
    found = list(found)
    for table in dict.fromkeys(cell.table for cell in found):
        for row in rows.NAMES:
            alike = [c for c in found if (c.table, c.row) == (table, row)]
            kinds = sorted(
                {(c.recipe, c.seed) for c in alike}, key=lambda kind: (kind[0] == "best", kind[1])
            )
            for recipe, seed in kinds or [("reference", 0)]:
                for image in tables.names_of(table):
                    yield Cell(table, row, recipe, image, seed)


def _by_image(table: str, records: Mapping[Cell, Record | None]) -> page.Table:
    """PSNR of each row and image, the mean over seeds."""
    images = tables.names_of(table)
    lines = []
    for label in dict.fromkeys(cell.label for cell in records):
        values: list[float | None] = []
        for image in images:
            own = [
                r["psnr"] for c, r in records.items() if r and (c.label, c.image) == (label, image)
            ]
            values.append(statistics.fmean(own) if own else None)
        lines.append((label, values))
    return page.Table(f"{tables.title(table)}, by image", ("row", *images), lines)


def _settings(
    labels: Mapping[str, Sequence[Record]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the cells were made with: what is the same for all rows, and each row's own."""
    each: dict[str, dict[str, Any]] = {}
    for label, made in labels.items():
        names = dict.fromkeys(name for record in made for name in record["settings"])
        each[label] = {
            name: _one_or_all(record["settings"].get(name) for record in made)
            for name in names
            if name not in tables.OF_A_CELL
        }
    first = next(iter(each.values()))
    same = {k: v for k, v in first.items() if all(own.get(k) == v for own in each.values())}
    return same, {
        label: {k: v for k, v in own.items() if k not in same} for label, own in each.items()
    }


def _one_or_all(values: Iterable[Any]) -> Any:
    """The value, where there is one; else all of them as text."""
    values = [*values]
    return values[0] if all(value == values[0] for value in values) else shown.distinct(values)
