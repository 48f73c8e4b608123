"""Restoration without a network: interpolation, and least squares with total variation."""

import jax.numpy as jnp
import numpy as np
import PIL.Image

from jaxsr import operators, tv
from jaxsr.errors import InputError

RESAMPLING = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}

# Chosen on six training images of BSDS300, see `tv_least_squares`.
TV = {"tv_weight": 1e-3, "tolerance": 1e-3}


def interpolated(low: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    """`low` (h, w, C), any real range, enlarged to `size` by Pillow in float32, not rounded."""
    channels = [
        PIL.Image.fromarray(np.ascontiguousarray(low[..., c], np.float32)).resize(
            size[::-1], RESAMPLING[kernel]
        )
        for c in range(low.shape[-1])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def tv_least_squares(
    low: np.ndarray,
    start: np.ndarray,
    operator: operators.Operator,
    *,
    tv_weight: float,
    tolerance: float,
) -> np.ndarray:
    """The handcrafted prior of the paper's section 3.3, see `jaxsr.tv`; (H, W, C) as `start`.

    The weight was chosen on six training images of BSDS300 (100075, 145014, 187003, 238011, 310007,
    46076: every 34th by name), the middle 128x128 pixels of each at 4x, to tolerance 1e-3. Mean
    PSNR in dB, by `paper-dip` and by `standard`; bicubic has 26.299 and 27.909:

        3e-4  26.517, 28.496    1e-3  26.511, 28.495    3e-3  26.493, 28.491    1e-2  26.469, 28.446

    It matters little. Of 3e-4 and 1e-3 the latter takes a third of the iterations, and reaches the
    tolerance where float32's rounding keeps the former from it.

    Raises:
      InputError: the minimum was not found to the tolerance.
    """
    found = tv.least_squares(
        jnp.asarray(low),
        operator,
        start=jnp.asarray(start),
        weight=tv_weight,
        tolerance=tolerance,
    )
    if not found.converged:
        share = float(found.gap / found.objective)
        raise InputError(f"`tolerance` (={tolerance}) was not reached: the gap is {share:.1e}")
    return np.asarray(found.image)
