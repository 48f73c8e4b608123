"""A plain folder of images, as a data set."""

import os
import pathlib

import numpy as np
import PIL.Image

from jaxsr import images
from jaxsr.errors import InputError


def files(path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The image files of a folder, known by their suffixes and sorted by name.

    Hidden files and sub-folders are left out.

    Raises:
      InputError: there is none, or `path` is not a folder that can be read.
    """
    path = pathlib.Path(path)
    formats = PIL.Image.registered_extensions()
    try:
        found = [
            file
            for file in sorted(path.iterdir())
            if formats.get(file.suffix.lower()) in PIL.Image.OPEN
            and not file.name.startswith(".")
            and file.is_file()
        ]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"`{path}` must be a folder of images: {reason}") from error
    if not found:
        raise InputError(f"`{path}` holds no image file; its own folders are not searched")
    return found


def load(path: str | os.PathLike[str], *, least: int = 1) -> list[np.ndarray]:
    """All images of a folder, in the order of `files`: (H, W, 1) gray or (H, W, 3) RGB, uint8.

    Read as `images.read` does, without transparency; of 16 bits the upper 8 are kept, rounded.

    Raises:
      InputError: there is none, or one, which is named, cannot be read or has fewer pixels a side
        than `least`.
    """
    loaded = []
    for file in files(path):
        pixels = images.to_uint8(images.read(file).pixels)
        height, width = pixels.shape[:2]
        if min(height, width) < least:
            raise InputError(f"`{file}` (of {width}x{height}) must have at least {least} a side")
        loaded.append(pixels)
    return loaded
