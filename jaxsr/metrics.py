"""PSNR and SSIM, of (..., H, W, C) images in [0, 1] unless `peak` says otherwise."""

import functools
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from jaxsr.errors import InputError, require_floats, require_integers

Array = Any  # a NumPy or JAX array


def psnr(prediction: Array, target: Array, *, peak: float = 1.0, shave: int = 0) -> Array:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error); equal images: inf.

    One number: the error is the mean over all axes. Of a batch, `jax.vmap` gives one an image, of
    which the mean is another figure.

    Args:
      prediction, target: (..., H, W, C) floats, NumPy or JAX (also traced); of half precision
        computed in float32, else in theirs.
      peak: the largest value an image can take.
      shave: pixels left out on each side.

    Raises:
      InputError: the shapes differ, the values are no floats, `peak` is not above 0 and
        finite, or nothing is left to compare.
    """
    prediction, target = _comparable(prediction, target, peak, shave)
    off = _wide(prediction) - _wide(target)
    xp = off.__array_namespace__()  # of the array: scalars of NumPy 2.0 have none
    error = (off**2).mean()
    with np.errstate(divide="ignore"):
        return -10 * xp.log10(error / peak**2)


def ssim(
    prediction: np.ndarray,
    target: np.ndarray,
    *,
    window: Literal["uniform", "gaussian"] = "uniform",
    border: Literal["crop", "replicate"] = "crop",
    peak: float = 1.0,
    shave: int = 0,
) -> float:
    """Structural similarity (Wang et al., TIP 2004), the mean of its map over pixels and channels.

    By NumPy and SciPy: it cannot be traced, and has no gradient.

    Args:
      prediction, target: (..., H, W, C) floats, computed in float64.
      window: `uniform` is 7x7 with sample covariance, scikit-image's default; `gaussian` is 11x11
        of sigma 1.5 with population covariance, as in Wang et al.
      border: `crop` averages over the windows that lie inside the image, as scikit-image does;
        `replicate` over all pixels, continuing the border pixels.
      peak: the largest value an image can take, called data range elsewhere.
      shave: pixels left out on each side, before windows are laid.

    Raises:
      InputError: the shapes differ, the values are no floats, an option is unknown or out of its
        range, or no window fits.
    """
    if window not in ("uniform", "gaussian"):
        raise InputError(f"`window` (={window!r}) must be uniform or gaussian")
    if border not in ("crop", "replicate"):
        raise InputError(f"`border` (={border!r}) must be crop or replicate")
    side = 7 if window == "uniform" else 11
    x, y = (np.asarray(image, np.float64) for image in _comparable(prediction, target, peak, shave))
    height, width = x.shape[-3:-1]
    if min(height, width) < side:
        raise InputError(f"the image (of {width}x{height}) must hold a {side}x{side} window")
    if window == "uniform":
        local = functools.partial(ndimage.uniform_filter, size=side, axes=(-3, -2), mode="nearest")
        unbiased = side**2 / (side**2 - 1)
    else:
        local = functools.partial(
            ndimage.gaussian_filter, sigma=1.5, radius=side // 2, axes=(-3, -2), mode="nearest"
        )
        unbiased = 1.0
    mean_x, mean_y = local(x), local(y)
    var_x = unbiased * (local(x * x) - mean_x**2)
    var_y = unbiased * (local(y * y) - mean_y**2)
    covariance = unbiased * (local(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast_structure = (2 * covariance + c2) / (var_x + var_y + c2)
    margin = side // 2 if border == "crop" else 0
    return float(_shaved(luminance * contrast_structure, margin).mean())


def _comparable(prediction: Array, target: Array, peak: float, shave: int) -> tuple[Array, Array]:
    if not 0 < peak < float("inf"):
        raise InputError(f"`peak` (={peak}) must be above 0, and finite")
    require_integers(shave=shave, least=0)
    shave = int(shave)  # NumPy's may be too narrow for a side
    if prediction.ndim < 3 or target.ndim < 3:
        shapes = f"{prediction.shape} and {target.shape}"
        raise InputError(f"images (of shapes {shapes}) must be (..., H, W, C), also gray ones")
    if prediction.shape != target.shape:
        raise InputError(f"images must be alike (..., H, W, C): {prediction.shape}, {target.shape}")
    for image in (prediction, target):
        require_floats("the image", image.dtype)
    if 0 in target.shape:
        raise InputError(f"images (of shape {target.shape}) must hold pixels")
    if min(target.shape[-3:-1]) <= 2 * shave:
        raise InputError(f"`shave` (={shave}) must leave some of the image {target.shape}")
    return _shaved(prediction, shave), _shaved(target, shave)


def _wide(image: Array) -> Array:
    xp = image.__array_namespace__()
    return image.astype(xp.promote_types(image.dtype, xp.float32))


def _shaved(image: Array, shave: int) -> Array:
    height, width = image.shape[-3:-1]
    return image[..., shave : height - shave, shave : width - shave, :]
