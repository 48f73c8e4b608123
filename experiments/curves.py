"""The paper's figures of numbers: PSNR by iteration and by epoch, and the prior's impedance."""

import json
import pathlib
from typing import Any

import numpy as np

from experiments import rows
from experiments.drawing import FITS, TITLES, Drawn, Missing, Settings
from experiments.ledger import Ledger
from experiments.tables import Cell
from jaxsr import plots
from jaxsr.errors import InputError

# Of the trainings in figure 4: the paper's recipe (section 3.2), whatever the level weights.
PAPER = {"data": "bsds300", "scale": 4, "loss": "charbonnier", "depth": 5, "pyramid": True}
PAPER |= {"residual": True, "epochs": 50, "iterations": 30, "batch": 16}
AVERAGE = "running average"


def losses_by_iteration(settings: Settings) -> Drawn:
    """Figure 3: of the images and seeds that both losses have, of the output and of its average."""
    histories = {row: _histories(settings, row) for row in rows.DIP}
    common = sorted(set.intersection(*map(set, histories.values())))
    if not common:
        raise Missing(f"no image was fitted by both losses; {FITS}")
    # Images differ by more than losses do: each is moved to the mean of all.
    levels: dict[str, list[float]] = {}
    for found in histories.values():
        for image, seed in common:
            levels.setdefault(image, []).append(found[image, seed]["psnr"][-1])
    whole = np.mean([np.mean(values) for values in levels.values()])
    moves = np.array([[whole - np.mean(levels[image])] for image, _ in common])
    measured = {}
    for column, what in (("psnr", AVERAGE), ("psnr_output", "output")):
        for row in rows.DIP:
            made = [histories[row][key] for key in common]
            length = min(len(curve[column]) for curve in made)
            y = np.array([curve[column][:length] for curve in made])
            x = made[0]["every"] * np.arange(1, length + 1)
            measured[f"{TITLES[row]}: {what}"] = {"x": x, "y": y + moves}
            if what == "output":
                measured[f"{TITLES[row]}: {what}"]["of"] = f"{TITLES[row]}: {AVERAGE}"
    path = settings.out / "figure3.png"
    plots.bands(path, measured, xlabel="iteration", ylabel="PSNR (dB)", aside=0.1)
    names = ", ".join(f"{image} seed {seed}" for image, seed in common)
    caption = f"PSNR (RGB, paper-dip) by iteration, over {len(common)} fits a loss: {names}"
    if len(common) > 1:
        caption += "; mean, and as a band the standard deviation"
    if len(levels) > 1:
        caption += "; each image moved to the mean level of all"
    yield path, caption


def weights_by_epoch(settings: Settings) -> Drawn:
    """Figure 4: luma, on the whole test set; of several seeds the mean and the deviation."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((settings.results / "lapsrn").glob("*.json")):
        record = _read(path)
        made, history = record["settings"], record["history"]
        if {name: made[name] for name in PAPER} == PAPER:
            weights = ",".join(f"{w:g}" for w in made["level_weights"])
            found.setdefault(f"weights ({weights})", []).append(history)
    if not found:
        raise Missing("no training is on record; python -m experiments.lapsrn --data bsds300")
    curves = {}
    for name, histories in sorted(found.items()):
        curves[f"{name}, {len(histories)} seed{'s'[: len(histories) - 1]}"] = {
            "x": histories[0]["epoch"],
            "y": [history["psnr"] for history in histories],
        }
    out = settings.out / "figure4.png"
    plots.bands(out, curves, xlabel="epoch", ylabel="PSNR on Y, 100 test images (dB)")
    yield out, "LapSRN's PSNR on BSDS300's test images by epoch and level weights"


def impedance(settings: Settings) -> Drawn:
    """The loss of fitting an image, the image with noise, its pixels shuffled, and noise."""
    folder = settings.results / "impedance"
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = Ledger(folder, figures=("loss",)).read(
            str(path.relative_to(folder).with_suffix("")), {}
        )
        assert record is not None
        history, name = record["history"], record["settings"]["image"]
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
        out = settings.out / f"impedance_{name}.png"
        shown = {what.replace("-", " "): curves[what] for what in order}
        plots.bands(out, shown, xlabel="iteration", ylabel="mean squared error", logarithmic="xy")
        yield out, f"impedance: {name}, fitted by the skip U-Net, of the same start each"


def _histories(settings: Settings, row: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Of a row's fits in table `paper`, by image and seed."""
    ledger = Ledger(settings.results / "table1")
    found = {}
    for path in sorted((ledger.folder / "paper" / f"{row}_{settings.recipe}").glob("*.json")):
        image, _, seed = path.stem.rpartition("_seed")
        record = ledger.read(Cell("paper", row, settings.recipe, image, int(seed)).name, {})
        if record is not None:
            found[image, int(seed)] = record["history"]
    return found


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made, history = record["settings"], record["history"]
        {name: made[name] for name in (*PAPER, "level_weights")}, history["epoch"], history["psnr"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"`{path}` is damaged ({error!r}): delete it to go on") from error
    return record
