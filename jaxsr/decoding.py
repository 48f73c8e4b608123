"""What Pillow decoded of an image file, as float32 arrays."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from jaxsr.errors import InputError

# PNG's grays of few bits, as Pillow scales them to 8; the transparent one it leaves as it is.
_SCALED = {"L;2": 85, "L;4": 17}
_DEEP = ("LA;16", "RGB;16", "RGBA;16", "RGBX;16", "RGBa;16", "CMYK;16")  # decoded to 8 bits


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A picture as read from a file.

    pixels: (H, W, 1) gray or (H, W, 3) RGB, float32 in [0, 1], not multiplied by alpha.
    alpha: (H, W, 1), float32 in [0, 1], 1 opaque; None where the file has no transparency.
    bits: 16 where these pixels are told apart by more than 8 (gray without transparency), else 8.
    narrowed: whether a PNG or TIFF file has 16 bits a channel, which were read as 8.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    narrowed: bool = False


def upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Turned and mirrored as its EXIF tag says."""
    with contextlib.suppress(Exception):  # of damaged EXIF data, which say nothing then
        return PIL.ImageOps.exif_transpose(picture)
    return picture


def from_pillow(picture: PIL.Image.Image, path: pathlib.Path, *, stored: Any = None) -> Image:
    """Gray, or RGB for all that is not; alpha apart.

    Args:
      picture: loaded.
      path: of the file, for messages.
      stored: how the file holds the pixels (Pillow's arguments of its decoder).

    Raises:
      InputError: gray of 32 bits is out of its range.
    """
    picture = _with_key(picture, stored)
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture)[..., None]
        clear = picture.info.get("transparency")  # the one value that is transparent
        alpha = None if clear is None else (values != clear).astype(np.float32)
        pixels = values.astype(np.float32) / np.float32(65535)
        return Image(pixels, alpha, bits=16 if alpha is None else 8)
    if picture.mode in ("I", "F"):
        peak = 65535 if picture.mode == "I" else 1
        values = np.asarray(picture)
        if not np.all((values >= 0) & (values <= peak)):
            raise InputError(
                f"`{path}` holds values from {values.min()} to {values.max()}: gray of 32 bits "
                f"must lie in [0, {peak}]"
            )
        return Image((values / peak).astype(np.float32)[..., None], bits=16)
    gray = picture.mode in ("1", "L", "LA", "La")
    clear = picture.has_transparency_data
    values = np.asarray(picture.convert(("L" if gray else "RGB") + ("A" if clear else "")))
    pixels = values.astype(np.float32).reshape(*values.shape[:2], -1) / np.float32(255)
    mode = stored[0] if isinstance(stored, tuple) and stored else stored
    narrowed = str(mode).startswith(_DEEP)
    if clear:
        colours, alpha = (np.ascontiguousarray(x) for x in (pixels[..., :-1], pixels[..., -1:]))
        return Image(colours, alpha, narrowed=narrowed)
    return Image(pixels, narrowed=narrowed)


def _with_key(picture: PIL.Image.Image, stored: Any) -> PIL.Image.Image:
    """The picture, of pixels that were `stored` so, with what Pillow leaves to do."""
    clear = picture.info.get("transparency")
    if stored == "LA;16B":  # decoded to RGBA
        return picture.convert("LA")
    if isinstance(clear, int) and stored in _SCALED:
        picture.info["transparency"] = _SCALED[stored] * clear
    elif isinstance(clear, tuple) and stored == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    return picture
