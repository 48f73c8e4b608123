"""Training patches, cut on the device: a bank of luma images and random views of it.

A view crops, scales, turns and mirrors in one step: two small matrices of cubic weights, rows and
columns, act on a window of one image. Nothing waits for the host, and the key alone says which
patches come.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxsr.errors import InputError, require_integers
from jaxsr.images import from_uint8, rgb_to_y
from jaxsr.resample import cubic

LEAST_SCALE = 0.5
_REACH = 2  # of the cubic kernel, in pixels of the patch
_LEVELS = 2**16 - 1


class Bank(NamedTuple):
    """Luma images of any sizes, one after another.

    Attributes:
      pixels: (all of them,) uint16, BT.601 studio-range luma times 65535.
      start, height, width: (images,) int32.
    """

    pixels: Array
    start: Array
    height: Array
    width: Array


class View(NamedTuple):
    """Which part of a bank a patch shows, and how.

    Attributes:
      image: () int32, its index.
      scale: () in [LEAST_SCALE, 1], of the image.
      corner: (2,) whole numbers, the patch's first row and column in the scaled image.
      flips: (3,) bool: upside down, then left to right, then transposed.
    """

    image: Array
    scale: Array
    corner: Array
    flips: Array


def bank(images: Sequence[np.ndarray], *, size: int) -> Bank:
    """Takes up images, (H, W, 1 or 3) uint8, from which patches of `size` a side will be cut.

    Raises:
      InputError: `size` is no integer from 1; there are no images, they are too many (2^31
        pixels), or one is smaller than a patch, of another type or neither gray nor RGB.
    """
    require_integers(size=size)
    if not len(images):
        raise InputError("there are no training images: give at least one")
    for image in images:
        if image.dtype != np.uint8:
            raise InputError(f"a training image (of {image.dtype}) must be of uint8")
        if image.ndim != 3:
            raise InputError(f"a training image (of shape {image.shape}) must be (H, W, C)")
    shapes = np.array([image.shape[:2] for image in images], np.int64)
    if shapes.min() < size:
        height, width = shapes[shapes.min(1).argmin()]
        raise InputError(
            f"a training image (of {width}x{height} pixels) is smaller than a patch (={size})"
        )
    ends = shapes.prod(1).cumsum()
    if ends[-1] >= 2**31:
        raise InputError(f"the training images' pixels (={ends[-1]}) must be fewer than 2^31")
    luma = [rgb_to_y(from_uint8(image)).ravel() for image in images]
    return Bank(
        jnp.asarray(np.concatenate([np.rint(y * _LEVELS).astype(np.uint16) for y in luma])),
        jnp.asarray(np.concatenate([[0], ends[:-1]]), jnp.int32),
        jnp.asarray(shapes[:, 0], jnp.int32),
        jnp.asarray(shapes[:, 1], jnp.int32),
    )


def draw(key: Array, bank: Bank, *, size: int, dtype: Any = jnp.float32) -> View:
    """A random view, `size` a side, every part of it uniform (Indulkar and Upadhyay, section 3.2).

    The scale is from [0.5, 1], or from what still holds a patch. Key consumed.
    """
    which, how, where, turn = jax.random.split(key, 4)
    image = jax.random.randint(which, (), 0, bank.start.shape[0])
    sides = jnp.stack([bank.height[image], bank.width[image]])
    least = jnp.maximum(LEAST_SCALE, size / sides.min()).astype(dtype)
    scale = jax.random.uniform(how, dtype=dtype, minval=least, maxval=1.0)
    room = jnp.maximum(jnp.floor(sides * scale) - size, 0)
    corner = jnp.floor(jax.random.uniform(where, (2,), dtype) * (room + 1))
    return View(image, scale, corner, jax.random.bernoulli(turn, shape=(3,)))


def cut(bank: Bank, view: View, *, size: int) -> Array:
    """The patch that a view shows, (size, size, 1) in [16/255, 235/255] (the cubic may overshoot).

    As MATLAB's bicubic `imresize` of the whole image, cropped, but at the image's borders, where
    the kernel is cut off and renormalised.
    """
    height, width = bank.height[view.image], bank.width[view.image]
    first_row, rows = _axis(height, view.corner[0], view.scale, size)
    first_column, columns = _axis(width, view.corner[1], view.scale, size)
    span = jnp.arange(rows.shape[1])
    y = jnp.clip(first_row + span, 0, height - 1)
    x = jnp.clip(first_column + span, 0, width - 1)
    window = bank.pixels[bank.start[view.image] + y[:, None] * width + x[None, :]]
    window = window.astype(rows.dtype) / _LEVELS
    patch = jnp.einsum("oy,yx,px->op", rows, window, columns, precision=lax.Precision.HIGHEST)
    patch = jnp.where(view.flips[0], patch[::-1], patch)
    patch = jnp.where(view.flips[1], patch[:, ::-1], patch)
    return jnp.where(view.flips[2], patch.T, patch)[..., None]


def sample(key: Array, bank: Bank, *, batch: int, size: int, dtype: Any = jnp.float32) -> Array:
    """Random patches, (batch, size, size, 1): `cut` of `draw`. Key consumed."""

    def one(key: Array) -> Array:
        return cut(bank, draw(key, bank, size=size, dtype=dtype), size=size)

    return jax.vmap(one)(jax.random.split(key, batch))


def _axis(side: Array, corner: Array, scale: Array, size: int) -> tuple[Array, Array]:
    """`size` samples from `corner` on, along `side` pixels scaled by `scale`.

    Returns:
      the first pixel of the window, and the weights (size, window) of its pixels.
    """
    centers = (corner + jnp.arange(size) + 0.5) / scale
    first = jnp.floor((corner + 0.5 - _REACH) / scale).astype(jnp.int32)
    pixels = first + jnp.arange(int((size + 2 * _REACH) / LEAST_SCALE) + 1)
    inside = (pixels >= 0) & (pixels < side)
    weights = cubic((pixels[None, :] + 0.5 - centers[:, None]) * scale) * inside[None, :]
    return first, weights / weights.sum(1, keepdims=True)
