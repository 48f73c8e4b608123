"""Table 1 of *Robust Loss with Deep Image Prior*, reproduced and corrected, cell by cell.

    python -m experiments.table1 --bsds300 BSDS300 --lapsrn runs/lapsrn      all that is missing
    python -m experiments.table1 --bsds300 BSDS300 --only dip-mse --seeds 0 1 --budget 60
    python -m experiments.table1 --set5 Set5 --tables set5                   Set5, protocol `dip`
    python -m experiments.table1                                             what is there

Ten test images of BSDS300 at 4x, in two tables: `paper`, each row under the protocol that the paper
used for it (they differ), and `standard`, all under the field's. A third, `set5`, is the paper's
question for future work. Each finished cell (method, image, seed) is a record under --results: runs
add up, none is computed twice, what is missing is shown as missing.
"""

import dataclasses
import itertools
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from experiments import command, dip, methods, pages, recorded, rows
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
    tables: tuple[TableName, ...] = ("paper", "standard")
    """Which tables."""
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

    def check(self) -> None:
        """Refuses what names nothing.

        Raises:
          InputError: a row or an image is unknown, or a number out of its range.
        """
        for name in self.only:
            if name not in rows.NAMES:
                raise InputError(f"`--only` (={name}) must be among {', '.join(rows.NAMES)}")
        known = [name for table in self.tables for name in names_of(table)]
        for name in self.images:
            if name not in known:
                raise InputError(f"`--images` (={name}) must be among {', '.join(known)}")
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**32:
            raise InputError(f"`--seeds` (={self.seeds}) must be one or more in [0, 2^32)")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise InputError(f"`--budget` (={self.budget}) must be above 0")


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
    """Computes what is missing and can be, then shows the tables; the exit code."""
    settings.check()
    ledger, on = Ledger(settings.results), command.device(settings.device)
    stop = threading.Timer(60 * (settings.budget or 0), os.kill, (os.getpid(), signal.SIGINT))
    stop.daemon = True  # as if Ctrl-C were pressed: a fit keeps what it has
    code = 0
    try:
        if settings.budget is not None:
            stop.start()
        with command.computing(on, settings.precision):
            for group, members in itertools.groupby(cells(settings), lambda cell: cell.group):
                data = settings.set5 if group.table == "set5" else settings.bsds300
                if data is not None:
                    compute(list(members), data, settings, ledger, on)
    except KeyboardInterrupt:
        print("stopped: what is finished is kept, the same command goes on from there")
        code = command.INTERRUPTED
    finally:
        stop.cancel()
    records = {cell: ledger.read(cell.name, {}) for cell in cells(settings)}
    for table in settings.tables:
        print(show(table, {c: record for c, record in records.items() if c.table == table}))
    if any(records.values()):
        pages.beside(recorded.read, settings.results, out=RUNS / pages.NAME)
    return code


def compute(
    group: list[Cell], data: pathlib.Path, settings: Settings, ledger: Ledger, on: jax.Device
) -> None:
    """Sees to it that the ledger holds these cells, which differ in their images alone.

    Raises:
      InputError: it holds one under other settings, or what they need is missing.
    """
    table, row, recipe, _, seed = group[0]
    places = rows.Places(settings.lapsrn, RUNS, settings.device, settings.precision)
    method = rows.method(row, table, recipe, seed, places)
    protocol = PROTOCOLS[rows.protocol_name(row, table)]
    made: dict[str, Any] = {"row": row, "protocol": protocol.name, "precision": settings.precision}
    made |= {name: value for name, value in method.settings.items() if name != "checkpoint_every"}
    for cell in group:
        if ledger.read(cell.name, made | {"image": cell.image}) is not None:
            continue
        path = _file(data, cell.image)
        print(f"{cell.name} ...", flush=True)
        start = time.perf_counter()
        hr, low = protocol.degrade(images.read(path).pixels, rows.FACTOR)
        baseline = protocol.bicubic(low, hr.shape[:2])
        result, figures = method.restore(methods.Case(cell.image, path, low, baseline))
        ledger.write(
            cell.name,
            made | {"image": cell.image},
            figures or protocol.score(result, hr, rows.FACTOR),
            seconds=time.perf_counter() - start,
            environment=reports.environment(on),
        )


def _file(data: pathlib.Path, name: str) -> pathlib.Path:
    files = sorted(path for path in data.rglob(f"{name}.*") if path.suffix in (".jpg", ".png"))
    if not files:
        raise InputError(f"`{data}` must hold {name}.jpg or {name}.png, at any depth")
    return files[0]


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
