"""The middle of an image: the small square that an experiment of many fits is about."""

import pathlib

import jax.numpy as jnp
import numpy as np

from experiments import problem
from jaxsr import images, operators
from jaxsr.errors import InputError


def square(hr: pathlib.Path | None, size: int) -> tuple[str, np.ndarray]:
    """The name of an image, by default the built-in photograph, and its middle (size, size, C).

    Raises:
      InputError: the file is no image, or too small; or the network cannot take the size.
    """
    if size < 64 or size % 32:
        raise InputError(f"`--size` (={size}) must be a multiple of 32, at least 64")
    name, pixels = problem.PHOTOGRAPH, problem.photograph()
    if hr:
        name, pixels = hr.stem, images.read(hr).pixels
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise InputError(f"`--size` (={size}) must fit into {name}, of {width}x{height}")
    return name, np.asarray(operators.crop(size, size)(jnp.asarray(pixels)))
