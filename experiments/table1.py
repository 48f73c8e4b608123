"""Table 1 of *Robust Loss with Deep Image Prior*, reproduced and corrected, cell by cell.

    python -m experiments.table1 --bsds300 BSDS300 --lapsrn runs/lapsrn      all that is missing
    python -m experiments.table1 --bsds300 BSDS300 --only dip-mse --seeds 0 1 --budget 60
    python -m experiments.table1 --set5 Set5                                 Set5, protocol `dip`
    python -m experiments.table1                                             what is there

Ten test images of BSDS300 at 4x, in two tables: `paper`, each row under the protocol that the paper
used for it (they differ), and `standard`, all under the field's. A third, `set5`, is the paper's
question for future work. Each finished cell (method, image, seed) is a record under --results, see
`experiments.ledger`: runs add up, none is computed twice, what is missing is shown as missing.
"""

import dataclasses
import itertools
import pathlib
import sys
import time
import typing
from collections.abc import Iterator
from typing import Any

import jax

from experiments import command, dip, fits, inputs, methods, pages, pictures, recorded, rows
from experiments.ledger import Ledger
from experiments.tables import Cell, TableName, names_of, show
from jaxsr import images, reports
from jaxsr.errors import InputError
from jaxsr.protocols import PROTOCOLS

RUNS = pathlib.Path("runs/table1")  # of fits, and of the page


@dataclasses.dataclass(frozen=True)
class Settings:
    """Table 1, cell by cell; without --bsds300 and --set5 it shows what is there."""

    bsds300: pathlib.Path | None = None
    """A folder with the test images of BSDS300, at any depth."""
    set5: pathlib.Path | None = None
    """A folder with the five images of Set5."""
    lapsrn: pathlib.Path = pathlib.Path("runs/lapsrn")
    """Where `experiments.lapsrn` left the networks of the three weights."""
    tables: tuple[TableName, ...] = ()
    """Which tables. Default: those of the images given; without any, all."""
    only: tuple[str, ...] = rows.NAMES
    """Which rows."""
    images: tuple[str, ...] = ()
    """Which images, by name. Default: all of the table."""
    seeds: tuple[int, ...] = (0,)
    """Of the rows dip-mse and dip-charbonnier."""
    recipes: tuple[dip.Recipe, ...] = ("reference",)
    """Of the same rows: as released, or `best`."""
    budget: float | None = None
    """Minutes after which to stop; an unfinished fit goes on from there the next time."""
    results: pathlib.Path = pathlib.Path("results/table1")
    """Folder of the records."""
    precision: command.Precision = "float32"
    """Of products of matrices."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""

    def resolved(self) -> "Settings":
        """With the tables filled in.

        Raises:
          InputError: a row or an image is unknown, or a number out of its range.
        """
        for name in self.only:
            if name not in rows.NAMES:
                raise InputError(f"`--only` (={name}) must be among {', '.join(rows.NAMES)}")
        given = [table for table in typing.get_args(TableName) if self.data(table)]
        chosen = self.tables or tuple(given) or typing.get_args(TableName)
        known = dict.fromkeys(name for table in chosen for name in names_of(table))
        for name in self.images:
            if name not in known:
                raise InputError(f"`--images` (={name}) must be among {', '.join(known)}")
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**32:
            raise InputError(f"`--seeds` (={self.seeds}) must be one or more in [0, 2^32)")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise InputError(f"`--budget` (={self.budget}) must be above 0")
        return dataclasses.replace(self, tables=tuple(dict.fromkeys(chosen)))

    def data(self, table: str) -> pathlib.Path | None:
        """The folder of a table's images, where it is given."""
        return self.set5 if table == "set5" else self.bsds300


def cells(settings: Settings) -> Iterator[Cell]:
    """All that is asked for, the cheap first."""
    for row in sorted(settings.only, key=rows.NAMES.index):
        seeded = rows.seeded(row)
        for seed in settings.seeds if seeded else (0,):
            for recipe in settings.recipes if seeded else ("reference",):
                for table in settings.tables:
                    for image in names_of(table):
                        if not settings.images or image in settings.images:
                            yield Cell(table, row, recipe, image, seed)


def run(settings: Settings) -> int:
    """Computes what is missing and can be, then shows the tables; the exit code, 1 if it cannot."""
    settings = settings.resolved()
    ledger, on = Ledger(settings.results), command.device(settings.device)
    end = time.monotonic() + 60 * (settings.budget or float("inf"))
    code = 0
    try:
        with command.interruptible() as pressed:
            places = rows.Places(
                settings.lapsrn,
                RUNS,
                settings.device,
                settings.precision,
                stop=lambda: pressed() or time.monotonic() > end,
            )
            try:
                with command.computing(on, settings.precision):
                    code = 0 if fill(settings, ledger, places, on) else 1
            except KeyboardInterrupt:
                print("stopped: what is finished is kept, the same command goes on from there")
                code = command.INTERRUPTED
            records = {cell: ledger.read(cell.name, {}) for cell in cells(settings)}
            for table in settings.tables:
                print(show(table, {c: record for c, record in records.items() if c.table == table}))
            if any(records.values()):
                pages.beside(recorded.read, settings.results, out=RUNS / pages.NAME)
    except KeyboardInterrupt:  # Ctrl-C again
        print("stopped")
        code = command.INTERRUPTED
    return code


def fill(settings: Settings, ledger: Ledger, places: rows.Places, on: jax.Device) -> bool:
    """Sees to it that the ledger holds what can be computed; whether that was all.

    What cannot is left out, and said once.

    Raises:
      InputError: the ledger holds a cell under other settings, or of another image.
      KeyboardInterrupt: `places.stop` said so.
    """
    told: set[str] = set()

    def leave_out(what: str, why: object) -> None:
        line = f"left out {what}: {why}"
        if line not in told:
            print(line, file=sys.stderr, flush=True)
        told.add(line)

    asked = dict.fromkeys((cell.table, cell.image) for cell in cells(settings))
    found = {
        table: inputs.find(folder, [image for of, image in asked if of == table])
        for table in dict.fromkeys(table for table, _ in asked)
        if (folder := settings.data(table))
    }
    for table, image in asked:
        if table in found and image not in found[table]:
            leave_out(image, f"`{settings.data(table)}` must hold {image}.jpg or {image}.png")
    for group, members in itertools.groupby(cells(settings), lambda cell: cell.group):
        table, row, recipe, _, seed = group
        if table not in found:
            continue
        try:
            method = rows.method(row, table, recipe, seed, places)
        except InputError as error:
            leave_out(row, error)
            continue
        made = {"row": row, "protocol": rows.protocol_name(row, table)}
        made |= {"precision": settings.precision} | method.settings
        for cell in (cell for cell in members if cell.image in found[table]):
            if places.stop():
                raise KeyboardInterrupt
            source = found[table][cell.image]
            own = made | {"image": cell.image, "input_sha256": source.sha256}
            if finished(cell, own, ledger):
                continue
            with ledger.claim(cell.name) as owner:
                if owner:
                    print(f"skipped {cell.name}: {owner} computes it, by {cell.name}.claim")
                elif not finished(cell, own, ledger):  # meanwhile
                    print(f"{cell.name} ...", flush=True)
                    try:
                        compute(cell, source.path, method, own, ledger, on)
                    except InputError as error:
                        leave_out(cell.name, error)
    return not told


def finished(cell: Cell, made: dict[str, Any], ledger: Ledger) -> bool:
    """Whether the ledger holds all that it keeps of a cell.

    Raises:
      InputError: its record is damaged, or was made under other settings.
    """
    record = ledger.read(cell.name, made)
    return bool(record) and (not cell.shown or pictures.path(ledger.folder, cell).exists())


def compute(
    cell: Cell,
    path: pathlib.Path,
    method: methods.Method,
    made: dict[str, Any],
    ledger: Ledger,
    on: jax.Device,
) -> None:
    """Adds a cell to the ledger; where its crop alone was missing, that.

    Raises:
      InputError: the image or what the method needs is missing or damaged, or a fit diverged.
    """
    start = time.perf_counter()
    protocol = PROTOCOLS[made["protocol"]]
    hr, low = protocol.degrade(images.read(path).pixels, rows.FACTOR)
    baseline = protocol.bicubic(low, hr.shape[:2])
    result, figures = method.restore(methods.Case(cell.image, path, low, baseline))
    kept: dict[str, Any] = {**(figures or protocol.score(result, hr, rows.FACTOR))}
    took = {"seconds": time.perf_counter() - start, **reports.environment(on)}
    if method.fits:
        took = fits.record(method.fits / cell.image)
        kept["history"] = took.pop("history")
    if cell.shown:
        pictures.keep(ledger.folder, cell, hr, low, result)
        if method.fits:
            folder = method.fits / cell.image
            kept["snapshots"] = pictures.keep_snapshots(ledger.folder, cell, folder)
    if ledger.read(cell.name, {}) is None:
        ledger.write(cell.name, made, kept, seconds=took.pop("seconds"), environment=took)


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
