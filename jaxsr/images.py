"""Image files to float32 arrays and back.

Images are float32 arrays in [0, 1], channels last: (H, W, C) with C = 1 (gray) or 3 (RGB). They are
converted once, here. Luma and chroma are those of ITU-R BT.601, R'G'B' as stored (no
linearisation).
"""

import contextlib
import dataclasses
import os
import pathlib
import threading
import warnings
from typing import Any, Literal

import numpy as np
import PIL.Image
import PIL.ImageOps

from jaxsr.errors import InputError, require_integers
from jaxsr.files import atomic

Array = Any  # a NumPy or JAX array

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")  # hold all colours in every size
_WARNINGS = threading.Lock()  # Python's filters are the whole process's

# PNG's grays of few bits, as Pillow scales them to 8; the transparent one it leaves as it is.
_SCALED = {"L;2": 85, "L;4": 17}

# BT.601 in studio range, R'G'B' in [0, 1] to 8-bit code values, as in MATLAB's rgb2ycbcr.
_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A picture as read from a file.

    pixels: (H, W, 1) gray or (H, W, 3) RGB, float32 in [0, 1], not multiplied by alpha.
    alpha: (H, W, 1), float32 in [0, 1], 1 opaque; None where the file has no transparency.
    bits: 16 where these pixels are told apart by more than 8 (gray without transparency), else 8.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8


def read(path: str | os.PathLike[str]) -> Image:
    """Reads a PNG, JPEG, TIFF or WebP file (or another that Pillow knows), upright by its EXIF tag.

    Gray stays gray; palette, CMYK and other colour spaces become RGB; 16-bit gray keeps its 16 bits
    (colour, or gray with an alpha channel, of 16 bits a channel is decoded by Pillow to 8). Of
    several frames the first is read; colour profiles are ignored.

    Raises:
        InputError: there is no such file, or it is not an image that can be decoded in full, or has
            more pixels than Pillow's limit against decompression bombs.
    """
    path = pathlib.Path(path)
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"`{path}` is empty: an image file is needed")
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of metadata that are damaged
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as file:
                stored = [tile.args for tile in file.tile][:1]
                file.load()
                picture = _upright(file)
        return _from_pillow(_with_key(picture, *stored), path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"`{path}` does not exist: the path of an image file is needed") from None
    except IsADirectoryError:
        raise InputError(f"`{path}` is a folder: the path of an image file is needed") from None
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        limit = PIL.Image.MAX_IMAGE_PIXELS
        raise InputError(f"`{path}` is too large: an image has at most {limit} pixels") from None
    except PIL.UnidentifiedImageError:
        raise InputError(f"`{path}` is not an image in a known format") from None
    except Exception as error:  # decoders raise all kinds of exceptions on damaged files
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"`{path}` is damaged or cut off: {reason}") from None


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    with contextlib.suppress(Exception):  # of damaged EXIF data, which say nothing then
        return PIL.ImageOps.exif_transpose(picture)
    return picture


def _with_key(picture: PIL.Image.Image, stored: Any = None) -> PIL.Image.Image:
    """The picture, of pixels that were `stored` so, with what Pillow leaves to do."""
    clear = picture.info.get("transparency")
    if stored == "LA;16B":  # decoded to RGBA
        return picture.convert("LA")
    if isinstance(clear, int) and stored in _SCALED:
        picture.info["transparency"] = _SCALED[stored] * clear
    elif isinstance(clear, tuple) and stored == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    return picture


def _from_pillow(picture: PIL.Image.Image, path: pathlib.Path) -> Image:
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
    if picture.has_transparency_data:
        values = from_uint8(np.asarray(picture.convert("LA" if gray else "RGBA")))
        return Image(np.ascontiguousarray(values[..., :-1]), np.ascontiguousarray(values[..., -1:]))
    values = from_uint8(np.asarray(picture.convert("L" if gray else "RGB")))
    return Image(values.reshape(*values.shape[:2], -1))


def to_pillow(pixels: Array, *, alpha: Array | None = None) -> PIL.Image.Image:
    """(H, W, C) to a Pillow image, of 8 bits by `to_uint8`; uint16 of gray stays.

    Raises:
        InputError: `pixels` is not (H, W, 1) or (H, W, 3), or `alpha` not (H, W, 1) of that size,
            or their values are none of `to_uint8`.
    """
    values = np.asarray(pixels)
    if values.dtype != np.uint16 or alpha is not None or values.shape[-1:] != (1,):
        values = to_uint8(values)
    if values.ndim != 3 or values.shape[-1] not in (1, 3) or 0 in values.shape:
        raise InputError(f"`pixels` (of shape {values.shape}) must be (H, W, 1) or (H, W, 3)")
    if alpha is not None:
        if np.shape(alpha) != (*values.shape[:2], 1):
            raise InputError(f"`alpha` (of shape {np.shape(alpha)}) must be as `pixels`, 1 channel")
        values = np.concatenate([values, to_uint8(alpha)], axis=-1)
    return PIL.Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def write(path: str | os.PathLike[str], pixels: Array, *, alpha: Array | None = None) -> None:
    """Writes (H, W, C) in [0, 1], clipped and rounded to 8 bits, in the format of the suffix.

    uint8, and uint16 of gray, is written as it is. PNG where `path` has no suffix; JPEG and WebP
    lose little, at quality 95. The file appears whole or not at all.

    Raises:
        InputError: the shapes or values do not fit, the suffix is of none of FORMATS, or the file
            cannot be written.
    """
    path = pathlib.Path(path)
    file_format = PIL.Image.registered_extensions().get(path.suffix.lower() or ".png")
    if file_format not in FORMATS:
        raise InputError(f"`{path}` must end in .png, .jpg, .tif, .webp, .bmp or .ppm")
    picture = to_pillow(pixels, alpha=alpha)
    if alpha is not None and file_format in ("BMP", "PPM"):  # Pillow would drop it
        raise InputError(f"`{path}` cannot hold transparency: use .png, .tif or .webp")
    options = {"quality": 95} if file_format in ("JPEG", "WEBP") else {}
    with atomic(path) as temporary:
        try:
            picture.save(temporary, format=file_format, **options)
        except ValueError as error:  # too large for the format
            raise InputError(f"`{path}` cannot be written: {error}") from error


def to_uint8(pixels: Array) -> np.ndarray:
    """[0, 1] to 0..255: clipped, then rounded to the nearest (half to even). uint8 stays.

    Raises:
        InputError: the values are other integers, or one is NaN.
    """
    values = np.asarray(pixels)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind in "iu":
        raise InputError(f"the image (of {values.dtype}) must hold floats in [0, 1] or uint8")
    if np.isnan(values).any():
        raise InputError("the image must hold numbers: it holds NaN")
    wide = np.promote_types(values.dtype, np.float32)  # the product of a half is rounded
    return np.rint(np.clip(values, 0, 1).astype(wide) * 255).astype(np.uint8)


def from_uint8(values: np.ndarray) -> np.ndarray:
    """0..255 to float32 in [0, 1]."""
    return values.astype(np.float32) / np.float32(255)


def rgb_to_y(pixels: Array) -> Array:
    """BT.601 luma in studio range: [0, 1] (..., 3) to [16/255, 235/255] (..., 1), unrounded.

    Gray, (..., 1), is taken as R = G = B. For NumPy and JAX arrays, in the dtype given.

    Raises:
        InputError: the last axis is neither of 1 nor of 3, or the values are integers.
    """
    if np.dtype(pixels.dtype).kind in "iub":
        raise InputError(f"the image (of {pixels.dtype}) must hold floats in [0, 1]")
    if pixels.shape[-1] not in (1, 3):
        raise InputError(f"the image (of shape {pixels.shape}) must be (..., 1) or (..., 3)")
    weights = [float(weight) for weight in _YCBCR[0]]
    if pixels.shape[-1] == 1:
        return (16 + sum(weights) * pixels) / 255
    red, green, blue = pixels[..., 0:1], pixels[..., 1:2], pixels[..., 2:3]
    return (16 + weights[0] * red + weights[1] * green + weights[2] * blue) / 255


def rgb_to_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """BT.601 in studio range over 255, (..., 3) to (..., 3), float64 and unrounded."""
    return (np.asarray(pixels, np.float64) @ _YCBCR.T + _YCBCR_OFFSET) / 255


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """The inverse of `rgb_to_ycbcr`, float64 and unclipped."""
    return (np.asarray(pixels, np.float64) * 255 - _YCBCR_OFFSET) @ np.linalg.inv(_YCBCR).T


def crop_to_multiple(
    pixels: Array, multiple: int, *, anchor: Literal["center", "top-left"] = "center"
) -> Array:
    """The largest (H, W, C) window whose sides are multiples of `multiple`.

    With `center` it starts at half of what is cut, a half pixel rounded to even: Pillow's `crop` at
    ((W - w) / 2, (H - h) / 2), which takes the first 320 of 321 rows.

    Raises:
        InputError: a side is shorter than `multiple`, or that no integer from 1.
    """
    require_integers(multiple=multiple)
    if multiple < 1:
        raise InputError(f"`multiple` (={multiple}) must be at least 1")
    height, width = pixels.shape[:2]
    if min(height, width) < multiple:
        raise InputError(f"the image (of {width}x{height}) must have sides of at least {multiple}")
    rows, cols = height - height % multiple, width - width % multiple
    top = left = 0
    if anchor == "center":
        top, left = round((height - rows) / 2), round((width - cols) / 2)
    return pixels[top : top + rows, left : left + cols]
