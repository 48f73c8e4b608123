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
import pathlib
import sys
import typing
from collections.abc import Iterator

from experiments import budget, command, inputs, pages, recorded, rows
from experiments.cells import fill
from experiments.ledger import Ledger
from experiments.omissions import Omissions
from experiments.recipes import Recipe
from experiments.tables import Cell, TableName, names_of, show
from jaxsr.errors import InputError
from jaxsr.options import Given, Listed

RUNS = pathlib.Path("runs/table1")  # of fits, and of the page


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compute Table 1, cell by cell; without --bsds300 and --set5, show the finished cells."""

    bsds300: Given[pathlib.Path] = None
    """A folder with the test images of BSDS300, at any depth."""
    set5: Given[pathlib.Path] = None
    """A folder with the five images of Set5."""
    lapsrn: pathlib.Path = pathlib.Path("runs/lapsrn")
    """Folder of the networks that `experiments.lapsrn` trained, by level weights and seed."""
    tables: Listed[TableName] = ()
    """Which tables. Default: those of the images given; without any, all."""
    only: tuple[str, ...] = rows.NAMES
    """Which rows."""
    images: Listed[str] = ()
    """Which images, by name. Default: all of the table."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the fits of Deep Image Prior, and of LapSRN's trainings."""
    recipes: tuple[Recipe, ...] = ("reference",)
    """For the rows dip-mse and dip-charbonnier: `reference`, as released, or `best`, ours."""
    budget: Given[float] = None
    """Minutes after which to stop; the next call resumes an unfinished fit."""
    results: pathlib.Path = pathlib.Path("results/table1")
    """Folder of the records."""
    precision: command.Precision = "float32"
    """Precision of matrix products."""
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
        budget.check(self.seeds, self.budget)
        return dataclasses.replace(self, tables=tuple(dict.fromkeys(chosen)))

    def data(self, table: str) -> pathlib.Path | None:
        """The folder of a table's images, where it is given."""
        return self.set5 if table == "set5" else self.bsds300


def cells(settings: Settings) -> Iterator[Cell]:
    """All that is asked for, the cheap first."""
    for row in sorted(settings.only, key=rows.NAMES.index):
        for seed in settings.seeds if rows.seeded(row) else (0,):
            for recipe in settings.recipes if row in rows.DIP else ("reference",):
                for table in settings.tables:
                    for image in names_of(table):
                        if not settings.images or image in settings.images:
                            yield Cell(table, row, recipe, image, seed)


def run(settings: Settings) -> int:
    """Computes what is missing and can be, then shows the tables; the exit code, 1 if it cannot."""
    settings = settings.resolved()
    over = budget.spent(settings.budget)
    ledger, omissions = Ledger(settings.results), Omissions()
    try:
        with command.interruptible() as pressed:
            on = command.device(settings.device)
            places = rows.Places(
                settings.lapsrn,
                RUNS,
                settings.device,
                settings.precision,
                stop=lambda: pressed() or over(),
            )
            try:
                with command.computing(on, settings.precision):
                    found = find(settings, omissions)
                    fill(ledger, cells(settings), found, places, on, omissions)
                code = 1 if omissions else 0
            except command.Stopped:
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


def find(settings: Settings, omissions: Omissions) -> dict[str, dict[str, inputs.Input]]:
    """The images of the tables whose folder is given, by table and name.

    Raises:
      InputError: a folder holds none of them, or two files of one name that differ.
    """
    found: dict[str, dict[str, inputs.Input]] = {}
    for table in settings.tables:
        names = dict.fromkeys(cell.image for cell in cells(settings) if cell.table == table)
        folder = settings.data(table)
        if folder and names:
            found[table] = inputs.find(folder, names)
            for name in names:
                if name not in found[table]:
                    omissions.add(name, f"`{folder}` must hold {name}.jpg or {name}.png")
    return found


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
