"""What a ledger of `experiments.robustness` holds, as `jaxsr.page` shows it."""

import collections
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments import heat_map, shown
from experiments.corruptions import CORRUPTIONS
from experiments.ledger import Ledger, Record
from jaxsr import page
from jaxsr.errors import InputError

OF_A_CELL = ("loss", "corruption", "seed")
Key = tuple[str, str, int]  # these three


def holds(folder: pathlib.Path) -> bool:
    """Whether a folder is a ledger of corrupted low resolutions."""
    return any(_files(Ledger(folder)))


def read(folder: pathlib.Path, name: str) -> page.Run:
    """Of each image PSNR by loss and corruption, after the last iteration and at its peak; curves.

    Raises:
      InputError: a record is damaged, or of no cell that the experiment has.
    """
    ledger = Ledger(folder, figures=heat_map.FIGURES)
    alike: dict[str, dict[Key, Record]] = {}  # by the settings that cells have in common
    for path in _files(ledger):
        record = _record(ledger, path)
        key = tuple(record["settings"][each] for each in OF_A_CELL)
        alike.setdefault(json.dumps(_common(record)), {})[key] = record
    parts = dict(_labelled(json.loads(common) for common in alike))
    images = dict(zip(parts, alike.values(), strict=True))
    first = next(iter(parts.values()))
    same = {k: v for k, v in first.items() if all(own.get(k) == v for own in parts.values())}
    own = {label: {k: v for k, v in x.items() if k not in same} for label, x in parts.items()}
    return page.Run(
        name,
        "experiments.robustness",
        same,
        {label: shown.cost([*records.values()]) for label, records in images.items()},
        curves=[
            shown.thinned(record, f"{loss}, seed {seed}", f"{corruption}: {label}")
            for label, records in images.items()
            for (loss, corruption, seed), record in sorted(records.items(), key=_place)
        ],
        tables=[table for label, records in images.items() for table in _tables(label, records)],
        parts=own,
    )


def _files(ledger: Ledger) -> Iterator[pathlib.Path]:
    for corruption in CORRUPTIONS:
        yield from ledger.paths(f"*/{corruption}/*")


def _record(ledger: Ledger, path: pathlib.Path) -> Record:
    """Of a file of the ledger.

    Raises:
      InputError: it is damaged, or of no cell that the experiment has.
    """
    name = path.relative_to(ledger.folder).with_suffix("").as_posix()
    record = ledger.read(name, {})
    try:
        assert record is not None
        image, loss, corruption, seed = (record["settings"][k] for k in ("image", *OF_A_CELL))
        cell = f"{image}/{corruption}/{loss}_seed{seed:d}"
        heat_map.mean({(loss, corruption, seed): record}, "psnr", loss, corruption)
        _label(_common(record))
        shown.thinned(record, "", "")
        shown.cost([record])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"`{path}` is damaged ({error!r}): delete it to go on") from error
    if cell != name or loss not in heat_map.LOSSES:
        raise InputError(
            f"`{path}` is of {cell}, which is not its name or not of this version: move it out of "
            f"`{ledger.folder}`"
        )
    return record


def _place(item: tuple[Key, Record]) -> tuple[int, int, int]:
    """In the order of the tables: by corruption, loss and seed."""
    (loss, corruption, seed), _ = item
    return [*CORRUPTIONS].index(corruption), [*heat_map.LOSSES].index(loss), seed


def _common(record: Record) -> dict[str, Any]:
    return {k: v for k, v in record["settings"].items() if k not in OF_A_CELL}


def _label(made: Mapping[str, Any]) -> str:
    words = "{image}, {factor}x, {iterations} iterations, protocol {protocol}"
    return words.format_map(made)


def _labelled(settings: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each under a name of its own: those alike in what it says are numbered from the second on."""
    seen = collections.Counter[str]()
    for made in settings:
        label = _label(made)
        seen[label] += 1
        yield label if seen[label] == 1 else f"{label} ({seen[label]})", made


def _tables(label: str, records: Mapping[Key, Record]) -> Iterator[page.Table]:
    losses = [x for x in heat_map.LOSSES if any(loss == x for loss, _, _ in records)]
    columns = [x for x in CORRUPTIONS if any(struck == x for _, struck, _ in records)]
    for figure, (_, when) in heat_map.SHOWN.items():
        lines = []
        for loss in losses:
            texts = [heat_map.text(records, figure, loss, x) for x in columns]
            lines.append((loss, [None if x == "missing" else x for x in texts]))
        yield page.Table(f"{label}, PSNR in dB, {when}", ("loss", *columns), lines)
