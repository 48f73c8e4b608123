"""The paper's figures, drawn from the records of finished work, and its networks from the modules.

    python -m experiments.figures                   all that can be drawn, to runs/figures
    python -m experiments.figures --only 4 9 --out figures
    python -m experiments.figures --format pdf      lines and boxes as vectors, for a paper

1, 2 the two architectures; 3 PSNR by iteration, MSE against Charbonnier; 4 PSNR by epoch, by level
weights; 5 methods side by side with a closer look, which is the paper's 6; 7 an image through the
iterations; 8 the two losses' images; 9 the level weights' images; and `impedance`, on which section
3.3 rests. Beside them, captions.json says what each shows. What a figure lacks is said in one line,
with the command that makes it.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import command, curves, rows
from experiments.drawing import NETWORKS, TITLES, Drawn, Missing, Settings, shown, shown_fits
from experiments.ledger import Ledger, Record
from experiments.tables import Cell
from jaxsr import diagrams, figures, images, reports
from jaxsr.errors import InputError
from jaxsr.models import LapSRN, SkipUNet

MOMENTS = 5  # of figure 7


def run(settings: Settings) -> int:
    """Draws what can be drawn; the exit code, 1 if nothing could."""
    for name in settings.only:
        if name not in FIGURES:
            raise InputError(f"`--only` (={name}) must be among {', '.join(FIGURES)}")
    command.make(settings.out)
    captions: dict[str, str] = {}
    wanted: dict[Callable[[Settings], Drawn], str] = {}
    for name in settings.only or FIGURES:
        wanted.setdefault(FIGURES[name], name)
    try:
        for draw, name in wanted.items():
            try:
                for path, caption in draw(settings):
                    print(f"{path}: {caption}")
                    captions[path.name] = caption
            except Missing as what:
                print(f"figure {name}: {what}")
            except (KeyError, IndexError, TypeError, ArithmeticError) as error:
                raise InputError(
                    f"`--results` (={settings.results}) holds a damaged record, of which figure "
                    f"{name} is made: {error!r}"
                ) from error
    finally:
        _keep(settings.out / "captions.json", captions)
    return 0 if captions else 1


def _keep(path: pathlib.Path, captions: dict[str, str]) -> None:
    """Adds captions to those of figures that an earlier call drew.

    Raises:
      InputError: the file is damaged or cannot be written.
    """
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"`{path}` is damaged ({error}): delete it to go on") from error
    if captions:
        reports.write_json(path, dict(sorted({**earlier, **captions}.items())))


def architectures(settings: Settings) -> Drawn:
    """Figure 1."""
    path = settings.out / f"figure1.{settings.format}"
    diagrams.lapsrn(path, LapSRN(), side=32)
    yield path, "LapSRN, 4x, of 128x128 pixels: each layer's output, filters and parameters"


def skip_network(settings: Settings) -> Drawn:
    """Figure 2."""
    path = settings.out / f"figure2.{settings.format}"
    diagrams.skip_unet(path, SkipUNet(), side=256)
    yield path, "Deep Image Prior's skip U-Net, 256x256 pixels: output, filters and parameters"


def methods(settings: Settings) -> Drawn:
    """Figures 5 and 6: a crop of each method, and a closer look at it."""
    names = ("bicubic", "lapsrn-1-1", "dip-mse", "dip-charbonnier")
    yield from _side_by_side(settings, "figure5", names, ("bicubic", "lapsrn-1-1"), NETWORKS)


def iterations(settings: Settings) -> Drawn:
    """Figure 7: the crops of the snapshots."""
    ledger, drawn = Ledger(settings.results / "table1"), False
    for image in shown():
        for row in rows.DIP:
            cell = Cell("paper", row, settings.recipe, image, 0)
            record = ledger.read(cell.name, {})
            strip = ledger.folder / f"{cell.name}_snapshots.png"
            if record is None or not strip.exists():
                continue
            steps, history = record["snapshots"], record["history"]
            tiles = np.split(images.read(strip).pixels, len(steps), axis=1)
            chosen = np.unique(np.linspace(0, len(steps) - 1, MOMENTS).round().astype(int))
            panels, captions = {}, {}
            for i in chosen:
                heading = f"iteration {steps[i]}"
                panels[heading] = tiles[i]
                if steps[i] % history["every"] == 0:
                    value = history["psnr"][steps[i] // history["every"] - 1]
                    captions[heading] = f"{value:.2f} dB"
            path = settings.out / f"figure7_{image}_{row}.png"
            figures.comparison(path, panels, captions, zoom=figures.most_detailed(tiles[-1]))
            drawn = True
            what = "running average" if record["settings"]["average"] else "output"
            caption = f"the {what} through the iterations, PSNR of the whole image by paper-dip"
            yield path, f"a crop of {image} by {TITLES[row]}: {caption}"
    if not drawn:
        which = " or ".join(shown())
        raise Missing(f"no fit of {which} is on record with its crops; {shown_fits(settings)}")


def losses_side_by_side(settings: Settings) -> Drawn:
    """Figure 8."""
    yield from _side_by_side(settings, "figure8", rows.DIP, rows.DIP, shown_fits(settings))


def weights_side_by_side(settings: Settings) -> Drawn:
    """Figure 9."""
    yield from _side_by_side(settings, "figure9", rows.LAPSRN, rows.LAPSRN, NETWORKS)


FIGURES: dict[str, Callable[[Settings], Drawn]] = {
    "1": architectures,
    "2": skip_network,
    "3": curves.losses_by_iteration,
    "4": curves.weights_by_epoch,
    "5": methods,
    "6": methods,
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
    for image in shown():
        found: dict[str, tuple[Record, pathlib.Path]] = {}
        for row in wanted:
            cell = Cell("paper", row, settings.recipe, image, 0)
            record, crop = ledger.read(cell.name, {}), ledger.folder / f"{cell.name}.png"
            if record is not None and crop.exists():
                found[row] = record, crop
        truth = ledger.folder / "paper" / "truth" / f"{image}.png"
        if not truth.exists() or not set(needed) <= set(found):
            continue
        panels: dict[str, Any] = {}
        low = ledger.folder / "paper" / "lr" / f"{image}.png"
        if name == "figure5" and low.exists():  # as the paper's, of which it is (a)
            small = images.read(low).pixels
            panels["low resolution"] = small.repeat(rows.FACTOR, 0).repeat(rows.FACTOR, 1)
        panels |= {TITLES[row]: images.read(crop).pixels for row, (_, crop) in found.items()}
        # The paper's rows were made under two protocols, whose figures do not compare.
        protocols = {row: record["settings"]["protocol"] for row, (record, _) in found.items()}
        captions = {
            TITLES[row]: f"{record['psnr']:.2f} dB, {protocols[row]}"
            for row, (record, _) in found.items()
        }
        panels["ground truth"] = images.read(truth).pixels
        path = settings.out / f"{name}_{image}.png"
        closer = figures.most_detailed(panels.get(TITLES["bicubic"], next(iter(panels.values()))))
        figures.comparison(path, panels, captions, zoom=closer)
        caption = f"a crop of {image}, seed 0, PSNR of the whole image by the protocol named"
        if "paper-lapsrn" in protocols.values():
            caption += "; paper-lapsrn has the truth's chroma"
        if lacking := [row for row in wanted if row not in found]:
            titles, recipe = ", ".join(TITLES[row] for row in lacking), settings.recipe
            makes = f"{NETWORKS} --only {' '.join(lacking)} --images {image}"
            makes += f" --recipes {recipe}" * (recipe != "reference")
            caption += f" (missing: {titles}; {makes})"
        drawn = True
        yield path, caption
    if not drawn:
        raise Missing(f"no image has {' and '.join(TITLES[row] for row in needed)}; {made_by}")


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
