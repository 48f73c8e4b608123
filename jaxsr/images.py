"""Image files to float32 arrays and back.

Images are float32 arrays in [0, 1], channels last: (H, W, C) with C = 1 (gray) or 3 (RGB). They are
converted once, here. Luma and chroma are those of ITU-R BT.601, R'G'B' as stored (no
linearisation).
"""

import os
import pathlib
import threading
import warnings
from typing import Any, Literal

import numpy as np
import PIL.Image

from jaxsr.decoding import Image, from_pillow, upright
from jaxsr.errors import InputError, require_floats, require_integers
from jaxsr.files import atomic

Array = Any  # a NumPy or JAX array

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")  # hold all colours in every size
_WARNINGS = threading.Lock()  # Python's filters are the whole process's

# BT.601 in studio range, R'G'B' in [0, 1] to 8-bit code values, as in MATLAB's rgb2ycbcr.
_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])


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
                stored = file.tile[0].args if file.tile else None
                file.load()
                picture = upright(file)
        return from_pillow(picture, path, stored=stored)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"`{path}` does not exist: the path of an image file is needed") from None
    except IsADirectoryError:
        raise InputError(f"`{path}` is a folder: the path of an image file is needed") from None
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        limit = PIL.Image.MAX_IMAGE_PIXELS
        raise InputError(f"`{path}` is too large: an image has at most {limit} pixels") from None
    except MemoryError:
        raise InputError(f"`{path}` is too large for this machine's memory") from None
    except PIL.UnidentifiedImageError:
        raise InputError(f"`{path}` is not an image in a known format") from None
    except Exception as error:  # decoders raise all kinds of exceptions on damaged files
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"`{path}` is damaged or cut off: {reason}") from None


def to_pillow(pixels: Array, *, alpha: Array | None = None) -> PIL.Image.Image:
    """(H, W, C) to a Pillow image, of 8 bits by `to_uint8`; uint16 of gray stays.

    Raises:
      InputError: `pixels` is not (H, W, 1) or (H, W, 3), or `alpha` not (H, W, 1) of that size,
        or their values are not ones that `to_uint8` takes.
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


def format_of(path: pathlib.Path) -> str | None:
    """The format, by Pillow's name, in which `write` puts a path; None where its suffix has none.

    PNG where there is no suffix.
    """
    suffix = path.suffix.lower() or ".png"
    if suffix in (".pbm", ".pfm"):  # Pillow's PPM, of two levels and of floats alone
        return None
    known = PIL.Image.registered_extensions().get(suffix)
    return known if known in _FORMATS else None


def write(path: str | os.PathLike[str], pixels: Array, *, alpha: Array | None = None) -> None:
    """Writes (H, W, C) in [0, 1], clipped and rounded to 8 bits, in the format of the suffix.

    uint8, and uint16 of gray, is written as it is. PNG where `path` has no suffix; JPEG and WebP
    lose little, at quality 95. The file appears whole or not at all.

    Raises:
      InputError: the shapes or values do not fit, the suffix has no format, or the file cannot be
        written.
    """
    path = pathlib.Path(path)
    if (file_format := format_of(path)) is None:
        raise InputError(f"`{path}` must end in .png, .jpg, .tif, .webp, .bmp or .ppm")
    picture = to_pillow(pixels, alpha=alpha)
    if alpha is not None and file_format in ("BMP", "PPM"):  # Pillow would drop it
        raise InputError(f"`{path}` cannot hold transparency: use .png, .tif or .webp")
    if picture.mode == "I;16" and file_format not in ("PNG", "TIFF", "PPM"):  # or clip to 8 bits
        raise InputError(f"`{path}` cannot hold 16 bits: use .png, .tif or .ppm")
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


def require_in_range(image: np.ndarray) -> None:
    """Refuses an image that is not of finite floats, or is plainly of another range than [0, 1].

    Results and resampled images may leave [0, 1], but by far less than to 2, which is the bound.

    Raises:
      InputError: the image holds no floats, some that are NaN or infinite, or one beyond the bound.
    """
    require_floats("the image", image.dtype, within=" in [0, 1]")
    if not np.isfinite(image).all():
        raise InputError("the image must be finite: it holds NaN or infinite values")
    if image.size and (most := np.abs(image).max()) > 2:
        raise InputError(f"the image (up to {most:g}) must hold floats in [0, 1]")


def rgb_to_y(pixels: Array) -> Array:
    """BT.601 luma in studio range: [0, 1] (..., 3) to [16/255, 235/255] (..., 1), unrounded.

    Gray, (..., 1), is taken as R = G = B. For NumPy and JAX arrays, in the dtype given.

    Raises:
      InputError: the last axis is neither of 1 nor of 3, or the values are integers.
    """
    require_floats("the image", pixels.dtype, within=" in [0, 1]")
    if pixels.shape[-1] not in (1, 3):
        raise InputError(f"the image (of shape {pixels.shape}) must be (..., 1) or (..., 3)")
    weights = [float(weight) for weight in _YCBCR[0]]
    if pixels.shape[-1] == 1:
        return (16 + sum(weights) * pixels) / 255
    red, green, blue = pixels[..., 0:1], pixels[..., 1:2], pixels[..., 2:3]
    return (16 + weights[0] * red + weights[1] * green + weights[2] * blue) / 255


def rgb_to_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """BT.601 in studio range over 255, (..., 3) to (..., 3), float64 and unrounded.

    Raises:
      InputError: the last axis is not of 3, or the values are integers.
    """
    _require_colour(pixels)
    return (np.asarray(pixels, np.float64) @ _YCBCR.T + _YCBCR_OFFSET) / 255


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """The inverse of `rgb_to_ycbcr`, float64 and unclipped.

    Raises:
      InputError: as there.
    """
    _require_colour(pixels)
    return (np.asarray(pixels, np.float64) * 255 - _YCBCR_OFFSET) @ np.linalg.inv(_YCBCR).T


def _require_colour(pixels: np.ndarray) -> None:
    require_floats("the image", pixels.dtype, within=" in [0, 1]")
    if pixels.shape[-1] != 3:
        raise InputError(f"the image (of shape {pixels.shape}) must be (..., 3)")


def crop_to_multiple(
    pixels: Array, multiple: int, *, anchor: Literal["center", "top-left"] = "center"
) -> Array:
    """The largest (H, W, C) window whose sides are multiples of `multiple`.

    With `center` it starts at half of what is cut, a half pixel rounded to even: Pillow's `crop` at
    ((W - w) / 2, (H - h) / 2), which takes the first 320 of 321 rows.

    Raises:
      InputError: a side is shorter than `multiple`, or that no integer from 1; or `anchor` is
        another.
    """
    require_integers(multiple=multiple)
    if anchor not in ("center", "top-left"):
        raise InputError(f"`anchor` (={anchor!r}) must be center or top-left")
    multiple = int(multiple)  # NumPy's may be too narrow for a side
    height, width = pixels.shape[-3:-1]
    if min(height, width) < multiple:
        raise InputError(f"the image (of {width}x{height}) must have sides of at least {multiple}")
    rows, cols = height - height % multiple, width - width % multiple
    top = left = 0
    if anchor == "center":
        top, left = round((height - rows) / 2), round((width - cols) / 2)
    return pixels[..., top : top + rows, left : left + cols, :]
