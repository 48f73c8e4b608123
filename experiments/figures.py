"""The paper's figures, drawn from the records of finished work, and its networks from the modules.

    python -m experiments.figures                   all that can be drawn, to runs/figures
    python -m experiments.figures --only 4 9 --out figures

1, 2 the two architectures; 3 PSNR by iteration, MSE against Charbonnier; 4 PSNR by epoch, by level
weights; 5 methods side by side, with a closer
look, the paper's 6; 7 an image through the iterations; 8 the two
losses' images; 9 the level weights' images; and `impedance`, on which section 3.3 rests. What a
figure lacks is said in one line, with the command that makes it.
"""

import pathlib
import sys
from collections.abc import Callable

import numpy as np

from experiments import command, curves, rows, tables
from experiments.drawing import FITS, NETWORKS, TITLES, Drawn, Missing, Settings
from experiments.ledger import Ledger, Record
from experiments.tables import Cell
from jaxsr import diagrams, figures, images
from jaxsr.errors import InputError
from jaxsr.models import LapSRN, SkipUNet


def run(settings: Settings) -> int:
    """Draws what can be drawn; the exit code, 1 if nothing could."""
    for name in settings.only:
        if name not in FIGURES:
            raise InputError(f"`--only` (={name}) must be among {', '.join(FIGURES)}")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`--out` (={settings.out}) cannot be used: {error.strerror}") from error
    drawn = 0
    for name in settings.only or FIGURES:
        try:
            for path, caption in FIGURES[name](settings):
                print(f"{path}: {caption}")
                drawn += 1
        except Missing as what:
            print(f"figure {name}: {what}")
    return 0 if drawn else 1


def architectures(settings: Settings) -> Drawn:
    """Figure 1."""
    path = settings.out / "figure1.png"
    diagrams.lapsrn(path, LapSRN(), side=32)
    yield path, "LapSRN, 4x, of 128x128 pixels: each layer's output and parameters"


def skip_network(settings: Settings) -> Drawn:
    """Figure 2."""
    path = settings.out / "figure2.png"
    diagrams.skip_unet(path, SkipUNet(), side=256)
    yield path, "the skip U-Net of Deep Image Prior, of 256x256 pixels"


def methods(settings: Settings) -> Drawn:
    """Figures 5 and 6: a crop of each method, and a closer look at it."""
    names = ("bicubic", "tv", "lapsrn-1-1", "dip-mse", "dip-charbonnier")
    yield from _side_by_side(settings, "figure5", names, ("bicubic", "lapsrn-1-1"), NETWORKS)


def iterations(settings: Settings) -> Drawn:
    """Figure 7: the crops of the snapshots."""
    for image in tables.names_of("paper"):
        if image not in tables.SHOWN:
            continue
        for row in rows.DIP:
            cell = Cell("paper", row, settings.recipe, image, 0)
            record = Ledger(settings.results / "table1").read(cell.name, {})
            strip = settings.results / "table1" / f"{cell.name}_snapshots.png"
            if record is None or not strip.exists():
                continue
            pixels, steps = images.read(strip).pixels, record["snapshots"]
            tiles = np.split(pixels, len(steps), axis=1)
            chosen = steps[:: max(1, len(steps) // 6)]
            shown = {f"{step} iterations": tiles[steps.index(step)] for step in chosen}
            path = settings.out / f"figure7_{image}_{row}.png"
            figures.comparison(path, shown, {})
            yield path, f"{image} by {TITLES[row]}, the running average through the iterations"
            return
    raise Missing(f"no fit of {' or '.join(tables.SHOWN)} is on record; {FITS}")


def losses_side_by_side(settings: Settings) -> Drawn:
    """Figure 8."""
    yield from _side_by_side(settings, "figure8", rows.DIP, rows.DIP, FITS)


def weights_side_by_side(settings: Settings) -> Drawn:
    """Figure 9."""
    yield from _side_by_side(settings, "figure9", rows.LAPSRN, rows.LAPSRN, NETWORKS)


FIGURES: dict[str, Callable[[Settings], Drawn]] = {
    "1": architectures,
    "2": skip_network,
    "3": curves.losses_by_iteration,
    "4": curves.weights_by_epoch,
    "5": methods,
    "7": iterations,
    "8": losses_side_by_side,
    "9": weights_side_by_side,
    "impedance": curves.impedance,
}


def _side_by_side(
    settings: Settings, name: str, wanted: tuple[str, ...], needed: tuple[str, ...], made_by: str
) -> Drawn:
    """The crops of some rows beside the truth, for each image that has the needed ones."""
    ledger = Ledger(settings.results / "table1")
    drawn = False
    for image in tables.names_of("paper"):
        if image not in tables.SHOWN:
            continue
        found: dict[str, tuple[Record, pathlib.Path]] = {}
        for row in wanted:
            cell = Cell("paper", row, settings.recipe, image, 0)
            record, crop = ledger.read(cell.name, {}), ledger.folder / f"{cell.name}.png"
            if record is not None and crop.exists():
                found[row] = record, crop
        truth = ledger.folder / "paper" / "truth" / f"{image}.png"
        if not truth.exists() or not set(needed) <= set(found):
            continue
        shown = {TITLES[row]: images.read(crop).pixels for row, (_, crop) in found.items()}
        captions = {TITLES[row]: f"{record['psnr']:.2f} dB" for row, (record, _) in found.items()}
        shown["ground truth"] = images.read(truth).pixels
        path = settings.out / f"{name}_{image}.png"
        figures.comparison(path, shown, captions)
        lacking = ", ".join(TITLES[row] for row in wanted if row not in found)
        drawn = True
        yield (
            path,
            f"a crop of {image}, PSNR of the whole image"
            + (f" (missing: {lacking}; {FITS})" if lacking else ""),
        )
    if not drawn:
        raise Missing(f"no image has {' and '.join(TITLES[row] for row in needed)}; {made_by}")


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
