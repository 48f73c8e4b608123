"""Images side by side as a PNG, and how figures are written: whole, the same bytes every time.

Images are float32 arrays in [0, 1], channels last: (H, W, C) with C = 1 (gray) or 3 (RGB).
"""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from jaxsr.errors import InputError
from jaxsr.files import atomic
from jaxsr.images import rgb_to_y, to_uint8

Path = str | os.PathLike[str]
Images = Mapping[str, Any]
Window = tuple[int, int, int, int]

_DPI, _MARGIN, _GAP, _HEADING, _COLUMN = 100, 16, 12, 48, 200  # of a comparison, in pixels
_PANEL = 384  # the least side of an image in a comparison where a whole factor allows, in pixels
_MARK, _EDGE = (255, 200, 0), (32, 32, 32)
_STYLE = threading.Lock()
_FILES = {"svg.hashsalt": "jaxsr", "pdf.fonttype": 42}  # the same names each time; fonts as such
# What would make the same figure another file.
_DATED: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def comparison(
    path: Path, images: Images, captions: Mapping[str, str], *, zoom: Window | None = None
) -> None:
    """Draws images side by side as a PNG and, under each, the same window of it enlarged.

    Pixels are repeated, never interpolated: images are enlarged by a whole factor to about 400
    pixels; only those of over 800 are shrunk, by averages of whole blocks.

    Args:
      path: of the PNG to write: pixels have no better form.
      images: (H, W, C) by heading, from left to right; the smaller are enlarged by whole factors.
      captions: by heading, the line under it; "" or nothing for none.
      zoom: the window (top, left, height, width) in pixels of the largest image. By default where
        the first image has the most detail.

    Raises:
      InputError: there are no images, their sizes do not fit, `zoom` is outside, or the file
        cannot be written.
    """
    if not images:
        raise InputError("`images` (=none) must be at least one")
    for name, image in images.items():
        if np.ndim(image) != 3:
            raise InputError(f"`images` (`{name}` of shape {np.shape(image)}) must be (H, W, C)")
    height, width = np.max([np.shape(image)[:2] for image in images.values()], axis=0)
    panels = {name: _to_size(name, image, height, width) for name, image in images.items()}
    if zoom is None:
        zoom = most_detailed(next(iter(panels.values())) / np.float32(255))
    top, left, rows, cols = zoom
    if min(zoom) < 0 or min(rows, cols) < 1 or top + rows > height or left + cols > width:
        raise InputError(f"`zoom` (={zoom}) must lie in the image, of {width}x{height}")
    grow = max(1, round(_PANEL / max(height, width)))
    shrink = min(-(-max(height, width) // 800), height, width)
    across, down = width * grow // shrink, height * grow // shrink
    grow_window = max(1, min(across // cols, down // rows))
    column = max(across, cols * grow_window, _COLUMN)
    base = _MARGIN + rows * grow_window + _GAP  # of the upper row, from below
    size = (2 * _MARGIN + len(images) * (column + _GAP) - _GAP, base + down + _HEADING + _MARGIN)
    with style("default"):
        figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
        for i, (name, panel) in enumerate(panels.items()):
            x = _MARGIN + i * (column + _GAP)
            shown = _repeat(_block_mean(panel, shrink), grow)
            y0, x0, y1, x1 = (e * grow // shrink for e in (top, left, top + rows, left + cols))
            framed = shown.copy()  # light, in a dark edge, so that it shows on any ground
            for wide, colour in ((3, _EDGE), (2, _MARK)):
                framed[max(0, y0 - wide) : y1 + wide, max(0, x0 - wide) : x1 + wide] = colour
            framed[y0:y1, x0:x1] = shown[y0:y1, x0:x1]
            closer = _repeat(panel[top : top + rows, left : left + cols], grow_window)
            for pixels, y in ((framed, base), (closer, _MARGIN)):
                figure.figimage(pixels, x + (column - pixels.shape[1]) // 2, y, origin="upper")
            caption = captions.get(name, "")
            for text, above, points, weight in (
                (name, 29, 11.5, "bold"),
                (caption, 10, 10.5, None),
            ):
                place = (x + column / 2) / size[0], (base + down + above) / size[1]
                figure.text(*place, text, ha="center", size=points, weight=weight, parse_math=False)
        save(path, figure)


def most_detailed(image: np.ndarray) -> Window:
    """The window (top, left, height, width), a quarter of each side, with the largest gradients."""
    luma = np.asarray(rgb_to_y(np.asarray(image, np.float64)))[..., 0]
    energy = np.zeros_like(luma)
    energy[:-1] += np.diff(luma, axis=0) ** 2
    energy[:, :-1] += np.diff(luma, axis=1) ** 2
    rows, cols = (max(1, side // 4) for side in luma.shape)
    sums = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = sums[rows:] - sums[:-rows]
    inside = sums[:, cols:] - sums[:, :-cols]
    top, left = np.unravel_index(np.argmax(np.round(inside, 9)), inside.shape)
    return int(top), int(left), rows, cols


def _to_size(name: str, image: Any, height: int, width: int) -> np.ndarray:
    """To RGB of 8 bits (height, width, 3), each pixel repeated by a whole factor."""
    values = to_uint8(image)
    rows, cols, channels = values.shape
    factor = height // rows
    if channels not in (1, 3) or (rows * factor, cols * factor) != (height, width):
        rule = f"must be {width}x{height} or smaller by a whole factor, with 1 or 3 channels"
        raise InputError(f"`images` (`{name}` of shape {values.shape}) {rule}")
    return np.broadcast_to(_repeat(values, factor), (height, width, 3))


def _repeat(image: np.ndarray, factor: int) -> np.ndarray:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    rows, cols = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor, 3)
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)


@contextlib.contextmanager
def style(*styles: Any) -> Iterator[None]:
    """Matplotlib's, in which a figure is drawn and saved; one at a time, since it is the process's.

    The user's own comes back afterwards.
    """
    with _STYLE, matplotlib.style.context([*styles, _FILES]):
        yield


def save(path: Path, figure: Figure) -> None:
    """Writes a Matplotlib figure, drawn in `style`, as PNG, PDF or SVG by the suffix of `path`.

    Raises:
      InputError: the suffix is another, or the file cannot be written.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in _DATED:
        raise InputError(f"`{path}` must end in {', '.join(_DATED)}")
    with atomic(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], metadata=_DATED[suffix])
