"""Resampling as matrices.

Every resizer here is linear and separable: an image of (..., H, W, C) becomes rows @ image @
cols^T. The matrices, (n_out, n_in), are NumPy float64 and read-only, and depend on sizes alone.
Pixel i covers [i, i + 1), so that output sample o lies at (o + 1/2) n_in / n_out on the input's
axis.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr.errors import InputError, as_float, require_floats, require_size

Array = Any  # a NumPy or JAX array


def lanczos(x: np.ndarray, support: int) -> np.ndarray:
    """sinc(x) sinc(x / support) within |x| < support."""
    return np.where(np.abs(x) < support, np.sinc(x) * np.sinc(x / support), 0.0)


def cubic(x: Array, a: float = -0.5) -> Array:
    """Keys' cubic convolution kernel (IEEE ASSP 1981), support 2; a = -1/2 is third order."""
    x, where = abs(x), x.__array_namespace__().where
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return where(x <= 1, near, where(x < 2, far, 0.0))


_MATRICES = 16  # of each kind kept: those of a 12-megapixel photograph take some 30 MB each
_PILLOW = {
    "lanczos": (lambda x: lanczos(x, 3), 3.0),
    "bicubic": (cubic, 2.0),
}


def _frozen(matrix: np.ndarray) -> np.ndarray:
    matrix.setflags(write=False)
    return matrix


@functools.lru_cache(maxsize=_MATRICES)
def pillow_matrix(n_in: int, n_out: int, kernel: str) -> np.ndarray:
    """Pillow's `resize` before rounding; `kernel` is lanczos or bicubic.

    The kernel is stretched when shrinking, cut off at the borders and renormalised
    (`precompute_coeffs` in Pillow's Resample.c).
    """
    weight, support = _PILLOW[kernel]
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    reach = support * stretch
    matrix = np.zeros((n_out, n_in))
    for row, center in zip(matrix, (np.arange(n_out) + 0.5) * scale, strict=True):
        first, last = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), n_in)
        taps = weight((np.arange(first, last) + 0.5 - center) / stretch)
        row[first:last] = taps / taps.sum()
    return _frozen(matrix)


@functools.lru_cache(maxsize=_MATRICES)
def matlab_matrix(n_in: int, scale: float, n_out: int) -> np.ndarray:
    """MATLAB's bicubic `imresize` by `scale`: antialiased when shrinking, symmetric borders.

    Output sample x (from 1) lies at x / scale + (1 - 1 / scale) / 2, also where n_out is not
    n_in * scale (`contributions` in MATLAB's imresize.m).
    """
    stretch = max(1 / scale, 1.0)
    width = 4 * stretch
    center = (np.arange(n_out) + 1) / scale + (1 - 1 / scale) / 2
    first = np.floor(center - width / 2)
    positions = first[:, None] + np.arange(math.ceil(width) + 2)
    taps = cubic((center[:, None] - positions) / stretch)
    mirrored = np.concatenate([np.arange(n_in), np.arange(n_in)[::-1]])
    return _scatter(taps, mirrored[(positions.astype(int) - 1) % (2 * n_in)], n_in)


@functools.lru_cache(maxsize=_MATRICES)
def strided_matrix(n_in: int, factor: int, support: int) -> np.ndarray:
    """Deep Image Prior's downsampler: a strided Lanczos convolution with replicated borders.

    For even factors equal to the released code with phase 1/2; for odd ones that code samples half
    a pixel off, here the taps stay centred on the output pixel. Output size n_in // factor.
    """
    centers = (np.arange(n_in // factor) + 0.5) * factor - 0.5
    reach = support * factor
    positions = np.ceil(centers - reach)[:, None] + np.arange(2 * reach + 1)
    taps = lanczos((positions - centers[:, None]) / factor, support)
    return _scatter(taps, np.clip(positions.astype(int), 0, n_in - 1), n_in)


def _scatter(taps: np.ndarray, indices: np.ndarray, n_in: int) -> np.ndarray:
    matrix = np.zeros((len(taps), n_in))
    rows = np.broadcast_to(np.arange(len(taps))[:, None], indices.shape)
    np.add.at(matrix, (rows, indices), taps / taps.sum(axis=1, keepdims=True))
    return _frozen(matrix)


def convolution_matrix(size: int, taps: np.ndarray) -> np.ndarray:
    """(size, size): the convolution with an odd number of taps, replicated borders, size kept."""
    rows, matrix = np.arange(size), np.zeros((size, size))
    for shift, tap in enumerate(taps, start=-(len(taps) // 2)):
        np.add.at(matrix, (rows, np.clip(rows - shift, 0, size - 1)), tap)
    return _frozen(matrix)


@functools.lru_cache(maxsize=_MATRICES)
def area_matrix(n_in: int, n_out: int) -> np.ndarray:
    """The mean over the [o n_in / n_out, (o + 1) n_in / n_out) that an output pixel covers.

    Pixels covered in part count in part. For whole factors this is the mean of each block.
    """
    edges = np.arange(n_out + 1)[:, None] * n_in / n_out
    covered = np.clip(edges - np.arange(n_in), 0, 1)
    return _frozen(np.diff(covered, axis=0) * n_out / n_in)


def lanczos_kernel(factor: int, support: int) -> np.ndarray:
    """Deep Image Prior's 2-D kernel with phase 1/2, (2 support factor,) * 2, sum 1."""
    reach = support * factor
    taps = lanczos((np.arange(2 * reach) + 0.5 - reach) / factor, support)
    kernel = np.outer(taps, taps)
    return kernel / kernel.sum()


def imresize(
    image: np.ndarray, scale: float | None = None, *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """MATLAB's bicubic `imresize` of (..., H, W, C), float64, neither clipped nor rounded.

    By `scale` the output size is ceil(n * scale); by `size` = (height, width) it is that, and the
    scale of each axis is output over input size, as in MATLAB.

    Raises:
      InputError: not one of the two is given, it is out of its range, or the image has fewer than
        three axes.
    """
    if image.ndim < 3:
        raise InputError(f"the image (of shape {image.shape}) must be (..., H, W, C)")
    if (scale is None) == (size is None):
        raise InputError(f"give one of `scale` (={scale}) and `size` (={size})")
    height, width = image.shape[-3:-1]
    if size is not None:
        require_size(size)
        rows = matlab_matrix(height, size[0] / height, size[0])
        cols = matlab_matrix(width, size[1] / width, size[1])
    elif scale is not None and 0 < (factor := as_float("scale", scale)) < math.inf:
        rows = matlab_matrix(height, factor, math.ceil(height * factor))
        cols = matlab_matrix(width, factor, math.ceil(width * factor))
    else:
        raise InputError(f"`scale` (={scale}) must be above 0, and finite")
    tall = np.einsum("oh,...hwc->...owc", rows, np.asarray(image, np.float64), optimize=True)
    return np.einsum("ow,...hwc->...hoc", cols, tall, optimize=True)


def separable(x: jax.Array, rows: np.ndarray, cols: np.ndarray) -> jax.Array:
    """rows @ x @ cols^T on the two axes before the last of (..., H, W, C), at full precision.

    Raises:
      InputError: x holds no floats.
    """
    x = jnp.asarray(x)
    require_floats("the image", x.dtype)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    x = product("oh,...hwc->...owc", jnp.asarray(rows, x.dtype), x)
    return product("ow,...hwc->...hoc", jnp.asarray(cols, x.dtype), x)


def double_bilinear(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, 2H, 2W, C): bilinear, half-pixel centres, replicated borders.

    Equal to `jax.image.resize(..., "bilinear")`; slices instead of its dense matrices.
    """
    for axis in (1, 2):
        part = functools.partial(jax.lax.slice_in_dim, x, axis=axis)
        before = jnp.concatenate([part(0, 1), part(0, -1)], axis)
        after = jnp.concatenate([part(1, None), part(-1, None)], axis)
        doubled = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = doubled.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return x


def double_nearest(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, 2H, 2W, C): each pixel four times."""
    n, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (n, height, 2, width, 2, channels))
    return wide.reshape(n, 2 * height, 2 * width, channels)
