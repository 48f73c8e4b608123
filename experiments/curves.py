"""The paper's figures of numbers: PSNR by iteration and by epoch, and the prior's impedance."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments import rows, tables
from experiments.drawing import TITLES, Drawn, Missing, Settings, fits
from experiments.ledger import Ledger, Record
from experiments.tables import Cell
from jaxsr import plots, reports
from jaxsr.errors import InputError

AVERAGE = "running average"


def losses_by_iteration(settings: Settings) -> Drawn:
    """Figure 3: of the images and seeds that both losses have, of the output and of its average."""
    records = {row: _records(settings, row) for row in rows.DIP}
    common = sorted(set.intersection(*map(set, records.values())))
    if not common:
        raise Missing(f"no image was fitted by both losses; {fits(settings)}")
    histories = {
        row: {key: found[key]["history"] for key in common} for row, found in records.items()
    }
    averaged = any(
        found[key]["settings"]["average"] for found in records.values() for key in common
    )
    # Images differ by more than losses do: each is moved to the mean of all.
    levels: dict[str, list[float]] = {}
    for made in histories.values():
        for image, seed in common:
            levels.setdefault(image, []).append(made[image, seed]["psnr"][-1])
    whole = np.mean([np.mean(values) for values in levels.values()])
    moves = np.array([[whole - np.mean(levels[image])] for image, _ in common])
    measured: dict[str, dict[str, Any]] = {}
    columns = {"psnr": AVERAGE} if averaged else {}
    for column, what in (columns | {"psnr_output": "output"}).items():
        for row in rows.DIP:
            curves = [histories[row][key] for key in common]
            length = min(len(curve[column]) for curve in curves)
            y = np.array([curve[column][:length] for curve in curves])
            x = curves[0]["every"] * np.arange(1, length + 1)
            name = f"{TITLES[row]}: {what}" if averaged else TITLES[row]
            measured[name] = {"x": x, "y": y + moves}
            if averaged and what == "output":
                measured[name]["of"] = f"{TITLES[row]}: {AVERAGE}"
    path = settings.out / f"figure3.{settings.format}"
    plots.bands(path, measured, xlabel="iteration", ylabel="PSNR (dB)", aside=0.1)
    names = ", ".join(f"{image} seed {seed}" for image, seed in common)
    of = "" if averaged else " of the output"
    caption = f"PSNR{of} (RGB, paper-dip) by iteration, over {len(common)} fits a loss: {names}"
    if len(common) > 1:
        caption += "; mean, and as a band the standard deviation"
    if len(levels) > 1:
        caption += "; each image moved to the mean level of all"
    yield path, caption


def weights_by_epoch(settings: Settings) -> Drawn:
    """Figure 4: luma, on the whole test set; of several seeds the mean and the deviation."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for made, history in _trainings(settings):
        if {name: made[name] for name in rows.PAPER} == rows.PAPER and made.get("test") is None:
            weights = ",".join(f"{w:g}" for w in made["level_weights"])
            found.setdefault(f"weights ({weights})", {}).setdefault(made["seed"], history)
    if not found:
        raise Missing("no training is finished; python -m experiments.lapsrn --data bsds300")
    curves = {}
    for name, seeds in sorted(found.items()):
        curves[f"{name}, {len(seeds)} seed{'s'[: len(seeds) - 1]}"] = {
            "x": np.arange(1, len(next(iter(seeds.values()))["psnr"]) + 1),
            "y": [history["psnr"] for history in seeds.values()],
        }
    out = settings.out / f"figure4.{settings.format}"
    plots.bands(out, curves, xlabel="epoch", ylabel="PSNR on Y, 100 test images (dB)")
    several = any(len(seeds) > 1 for seeds in found.values())
    band = "; of several seeds the mean and, as a band, the standard deviation" if several else ""
    yield out, f"LapSRN's PSNR on BSDS300's test images by epoch and level weights{band}"


def impedance(settings: Settings) -> Drawn:
    """The loss of fitting an image, the image with noise, its pixels shuffled, and noise."""
    ledger = Ledger(settings.results / "impedance", figures=("loss",))
    found: dict[str, dict[str, Any]] = {}
    of_an_image: dict[str, list[tuple[pathlib.Path, Record]]] = {}
    for path in ledger.paths("*/*"):
        name = path.parent.name
        record = ledger.read(f"{name}/{path.stem}", {})
        assert record is not None
        history = record["history"]
        of_an_image.setdefault(name, []).append((path, record))
        _require_comparable(of_an_image[name], own=("seed", "target"))
        if not history["loss"]:  # of fewer iterations than are kept
            continue
        x = history["every"] * np.arange(1, len(history["loss"]) + 1)
        curves = found.setdefault(name, {})
        curve = curves.setdefault(record["settings"]["target"], {"x": x, "y": []})
        curve["y"].append(history["loss"])
    if not found:
        raise Missing("no fit is on record; python -m experiments.impedance")
    for name, curves in found.items():
        order = [
            what for what in ("image", "image-and-noise", "shuffled", "noise") if what in curves
        ]
        out = settings.out / f"impedance_{name}.{settings.format}"
        shown = {what.replace("-", " "): curves[what] for what in order}
        plots.bands(out, shown, xlabel="iteration", ylabel="mean squared error", logarithmic="xy")
        yield out, f"impedance: {name}, fitted by the skip U-Net, of the same start each"


def _records(settings: Settings, row: str) -> dict[tuple[str, int], Record]:
    """Of a row's fits in table `paper`, by image and seed."""
    ledger = Ledger(settings.results / "table1")
    found: dict[tuple[str, int], Record] = {}
    read: list[tuple[pathlib.Path, Record]] = []
    for path in ledger.paths(f"paper/{row}_{settings.recipe}/*"):
        image, _, seed = path.stem.rpartition("_seed")
        if not seed.isdecimal():  # no cell
            continue
        record = ledger.read(Cell("paper", row, settings.recipe, image, int(seed)).name, {})
        if record is not None:
            found[image, int(seed)] = record
            read.append((path, record))
            _require_comparable(read, own=tables.OF_A_CELL)
    return found


def _require_comparable(
    read: Sequence[tuple[pathlib.Path, Record]], *, own: tuple[str, ...]
) -> None:
    """Refuses the last of the fits read where its settings are not the first's.

    own: settings that may differ.

    Raises:
      InputError: they are not.
    """
    first, last = read[0][0], read[-1][0]
    one, other = (record["settings"] for _, record in (read[0], read[-1]))
    for name in dict.fromkeys((*one, *other)):
        if name not in own and one.get(name) != other.get(name):
            raise InputError(
                f"`{first}` and `{last}` differ in `{name}` (={one.get(name)} and "
                f"{other.get(name)}), and curves of different settings are not compared: move one "
                "of them elsewhere"
            )


def _trainings(settings: Settings) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Settings and history of trainings: those on record, then those of finished folders.

    Raises:
      InputError: a file is damaged.
    """
    records = sorted((settings.results / "lapsrn").glob("[!.]*.json"))
    for path in (*records, *sorted(settings.lapsrn.glob("*/metrics.json"))):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            made = {"network": "lapsrn"} | record["settings"]  # which early records do not name
            history = record.get("history")
            if history is None:
                columns = reports.read_csv(path.parent / "history.csv")
                history = {"psnr": list(columns.get("psnr", ()))}
            {name: made[name] for name in (*rows.PAPER, "level_weights", "seed")}
            if len(history["psnr"]) == made["epochs"]:  # there were test images
                yield made, history
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"`{path}`, or the history beside it,"
            raise InputError(f"{what} is damaged ({error!r}): delete it to go on") from error
