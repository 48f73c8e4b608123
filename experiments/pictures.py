"""Small crops of some images beside their records, from which figures are drawn."""

import contextlib
import pathlib

import numpy as np

from experiments import tables
from experiments.tables import Cell
from jaxsr import images
from jaxsr.errors import InputError
from jaxsr.protocols import with_true_chroma


def path(folder: pathlib.Path, cell: Cell) -> pathlib.Path:
    """Where a ledger in `folder` keeps the crop of a cell."""
    return folder / f"{cell.name}.png"


def keep(
    folder: pathlib.Path, cell: Cell, hr: np.ndarray, low: np.ndarray, result: np.ndarray
) -> None:
    """The crop of a cell that is shown and, for its table, of truth and low resolution.

    Luma alone is shown under the chroma of the truth, as its protocol scores it.

    Raises:
      InputError: an image is too small for the crop, or a file cannot be written.
    """
    shown = result if result.shape == hr.shape else with_true_chroma(result, hr)
    kept = {path(folder, cell): _crop(cell.image, shown)}
    kept[folder / cell.table / "truth" / f"{cell.image}.png"] = _crop(cell.image, hr)
    if low.shape[-1] == hr.shape[-1]:
        factor = hr.shape[0] // low.shape[0]
        kept[folder / cell.table / "lr" / f"{cell.image}.png"] = _crop(cell.image, low, factor)
    for file, pixels in kept.items():
        with contextlib.suppress(OSError):  # writing tells
            file.parent.mkdir(parents=True, exist_ok=True)
        images.write(file, pixels)


def keep_snapshots(folder: pathlib.Path, cell: Cell, fit: pathlib.Path) -> list[int]:
    """The crops of a run's snapshots side by side; the iterations that they were taken after.

    Raises:
      InputError: a snapshot is damaged, or the file cannot be written.
    """
    files = sorted((fit / "snapshots").glob("*.png"))
    crops = [_crop(cell.image, images.read(file).pixels) for file in files]
    if crops:
        images.write(folder / f"{cell.name}_snapshots.png", np.concatenate(crops, axis=1))
    return [int(file.stem) for file in files]


def _crop(image: str, pixels: np.ndarray, factor: int = 1) -> np.ndarray:
    """The crop of an image, of full resolution or smaller by a factor."""
    side = tables.SIDE // factor
    top, left = (place // factor for place in tables.SHOWN[image])
    height, width = pixels.shape[:2]
    if top + side > height or left + side > width:
        shown = f"{side}x{side} pixels from ({left}, {top}) on"
        raise InputError(f"{image} (of {width}x{height}) must have what is shown of it, {shown}")
    return pixels[top : top + side, left : left + side]
