"""Convolution by the convolution theorem: a product of spectra, whatever the kernel's size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy import fft

from jaxsr.errors import require_floats


def convolve(x: jax.Array, kernel: ArrayLike) -> jax.Array:
    """(..., H, W, C) convolved with a 2-D kernel of odd sides, replicated borders, size kept.

    Computed in x's dtype, of half precision in float32. Either may be traced. A pixel that is NaN
    makes all of its channel so.

    Raises:
      InputError: x holds no floats.
    """
    require_floats("the image", x.dtype)
    traced = isinstance(kernel, jax.core.Tracer)
    taps: Any = kernel if traced else np.asarray(kernel, np.float64)
    height, width = x.shape[-3:-1]
    down, across = (side // 2 for side in taps.shape)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    borders = [(0, 0)] * (x.ndim - 3) + [(down, down), (across, across), (0, 0)]
    wide = jnp.pad(wide, borders, mode="edge")
    # A product of spectra wraps around, by twice the border: of what is cut off here.
    canvas = [fft.next_fast_len(side, real=True) for side in wide.shape[-3:-1]]
    fourier = jnp.fft if traced else np.fft
    response = fourier.rfft2(taps.astype(wide.dtype) if traced else taps, canvas)
    spectrum = jnp.fft.rfft2(wide, canvas, axes=(-3, -2))
    response = jnp.asarray(response, spectrum.dtype)
    spectrum = spectrum * jnp.expand_dims(response, (*range(x.ndim - 3), -1))
    found = jnp.fft.irfft2(spectrum, canvas, axes=(-3, -2))
    rows, cols = slice(2 * down, 2 * down + height), slice(2 * across, 2 * across + width)
    return found[..., rows, cols, :].astype(x.dtype)
