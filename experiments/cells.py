"""How the cells of a table that a ledger lacks are computed and added to it."""

import functools
import itertools
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from experiments import command, fits, methods, pictures, rows
from experiments.inputs import Input
from experiments.ledger import Ledger, Record
from experiments.omissions import Omissions
from experiments.tables import Cell
from jaxsr import images, reports
from jaxsr.errors import InputError, within_memory
from jaxsr.protocols import PROTOCOLS


def fill(
    ledger: Ledger,
    wanted: Iterable[Cell],
    found: Mapping[str, Mapping[str, Input]],
    places: rows.Places,
    on: jax.Device,
    omissions: Omissions,
) -> None:
    """Sees to it that a ledger holds the cells whose images were found, of each table by name.

    Raises:
      InputError: the ledger holds one under other settings, or of another image.
      Stopped: `places.stop` said so.
    """
    for group, members in itertools.groupby(wanted, lambda cell: cell.group):
        table, row, recipe, _, seed = group
        inputs = found.get(table, {})
        here = [cell for cell in members if cell.image in inputs]
        if not here:
            continue
        made = {"row": row, "protocol": rows.protocol_name(row, table)}
        # Interpolations are NumPy's and Pillow's, which know no other.
        made["precision"] = "float32" if row in rows.INTERPOLATIONS else places.precision
        of_images = [
            {"image": cell.image, "input_sha256": inputs[cell.image].sha256} for cell in here
        ]
        try:
            method = rows.method(row, table, recipe, seed, places)
        except InputError as error:
            on_record = map(
                functools.partial(finished, ledger), here, [made | x for x in of_images]
            )
            if None in on_record:
                omissions.add(row, error)
            continue
        for cell, of_image in zip(here, of_images, strict=True):
            if places.stop():
                raise command.Stopped
            path, own = inputs[cell.image].path, made | method.settings | of_image
            known = functools.partial(finished, ledger, cell, own)
            if known() is not None:
                continue
            make = functools.partial(compute, ledger, cell, own, path, method, on)
            try:
                ledger.settled(cell.name, known, make)
            except InputError as error:
                omissions.add(cell.name, error)


def finished(ledger: Ledger, cell: Cell, made: Mapping[str, Any]) -> Record | None:
    """The record of a cell, if the ledger holds all that it keeps of it.

    Raises:
      InputError: it is damaged, or was made under other settings.
    """
    record = ledger.read(cell.name, made)
    whole = not cell.shown or pictures.path(ledger.folder, cell).exists()
    return record if whole else None


def compute(
    ledger: Ledger,
    cell: Cell,
    made: Mapping[str, Any],
    path: pathlib.Path,
    method: methods.Method,
    on: jax.Device,
) -> Record:
    """Adds a cell to the ledger; where its crop alone was missing, that. Its record.

    Raises:
      InputError: the image or what the method needs is missing or damaged, or a fit diverged.
    """
    start = time.perf_counter()
    protocol = PROTOCOLS[made["protocol"]]
    with within_memory(f"`{path}`"):
        hr, low = protocol.degrade(images.read(path).pixels, rows.FACTOR)
        baseline = protocol.bicubic(low, hr.shape[:2])
        result, figures = method.restore(methods.Case(cell.image, path, low, baseline))
    kept: dict[str, Any] = {**(figures or protocol.score(result, hr, rows.FACTOR))}
    seconds, environment = time.perf_counter() - start, reports.environment(on)
    fit = method.fits / cell.image if method.fits else None
    if fit:
        kept |= fits.kept(fit)
        seconds, environment = fits.cost(fit)
    if cell.shown:
        pictures.keep(ledger.folder, cell, hr, low, result)
        if fit:
            kept["snapshots"] = pictures.keep_snapshots(ledger.folder, cell, fit)
    record = ledger.read(cell.name, {})
    if record is not None:
        return record
    return ledger.write(cell.name, made, kept, seconds=seconds, environment=environment)
