"""PSNR, SSIM, and the named protocols that say what a published figure means.

Images are (H, W, C) in [0, 1] unless `peak` says otherwise. A figure means nothing without its
colour space, shave, peak and window: a `Protocol` fixes them, and how low resolution is made.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import PIL.Image
from PIL.Image import Resampling
from scipy import ndimage

from jaxsr import images
from jaxsr.errors import InputError
from jaxsr.operators import Kernel
from jaxsr.resample import imresize

Array = Any  # a NumPy or JAX array


def psnr(prediction: Array, target: Array, *, peak: float = 1.0, shave: int = 0) -> Array:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error); equal images: inf.

    Args:
        prediction, target: (..., H, W, C) floats, NumPy or JAX (also traced); their dtype is kept.
        peak: the largest value an image can take.
        shave: pixels left out on each side.

    Raises:
        InputError: the shapes differ, the values are no floats, or nothing is left to compare.
    """
    prediction, target = _comparable(prediction, target, shave)
    error = ((prediction - target) ** 2).mean()
    with np.errstate(divide="ignore"):
        return -10 * error.__array_namespace__().log10(error / peak**2)


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

    Args:
        prediction, target: (..., H, W, C) floats, computed in float64.
        window: `uniform` is 7x7 with sample covariance, scikit-image's default; `gaussian` is 11x11
            of sigma 1.5 with population covariance, as in the paper.
        border: `crop` averages over the windows that lie inside the image, as scikit-image does;
            `replicate` over all pixels, continuing the border pixels.
        peak: the largest value an image can take, called data range elsewhere.
        shave: pixels left out on each side, before windows are laid.

    Raises:
        InputError: the shapes differ, the values are no floats, an option is unknown, or no
            window fits.
    """
    if window not in ("uniform", "gaussian"):
        raise InputError(f"`window` (={window!r}) must be uniform or gaussian")
    if border not in ("crop", "replicate"):
        raise InputError(f"`border` (={border!r}) must be crop or replicate")
    side = 7 if window == "uniform" else 11
    x, y = (np.asarray(image, np.float64) for image in _comparable(prediction, target, shave))
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


def _comparable(prediction: Array, target: Array, shave: int) -> tuple[Array, Array]:
    if prediction.shape != target.shape or prediction.ndim < 3:
        raise InputError(f"images must be alike (..., H, W, C): {prediction.shape}, {target.shape}")
    if any(np.dtype(image.dtype).kind in "iub" for image in (prediction, target)):
        raise InputError(f"images ({prediction.dtype}, {target.dtype}) must be of a float type")
    if shave < 0 or min(target.shape[-3:-1]) <= 2 * shave:
        raise InputError(f"`shave` (={shave}) must leave some of the image {target.shape}")
    return _shaved(prediction, shave), _shaved(target, shave)


def _shaved(image: Array, shave: int) -> Array:
    height, width = image.shape[-3:-1]
    return image[..., shave : height - shave, shave : width - shave, :]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How low resolution is made from high, and results are compared with it. NumPy only.

    degrade(hr, factor) -> (hr, lr): `hr` cropped so that a result of the factor has its size, and
        the low resolution; both float32, (H, W, C). Under `standard` `lr` may leave [0, 1].
    bicubic(lr, (height, width)) -> the baseline, float32.
    score(result, hr, factor) -> `psnr` (dB) and `ssim`, the figures that the protocol publishes,
        and `psnr_rgb`, `ssim_rgb`, `psnr_y`, `ssim_y`, the same on RGB (range 1; left out for gray
        images) and on studio-range Y; float64.
    kernel: the `operators.downsample` kernel that equals `degrade`.
    multiple: sides are cropped to a multiple of this and of the factor.
    """

    name: str
    description: str
    kernel: Kernel
    multiple: int
    degrade: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
    bicubic: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray, int], dict[str, float]]


def _pillow_resize(pixels: np.ndarray, size: tuple[int, int], resampling: Resampling) -> np.ndarray:
    resized = np.asarray(images.to_pillow(pixels).resize(size[::-1], resampling))
    return images.from_uint8(resized.reshape(*size, -1))


def _pillow_bicubic(lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return _pillow_resize(lr, size, Resampling.BICUBIC)


def _matlab_bicubic(lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return imresize(lr, size[0] / lr.shape[0], size=size).astype(np.float32)


def _pillow_lanczos_lr(
    hr: np.ndarray, factor: int, *, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    hr = images.crop_to_multiple(hr, math.lcm(multiple, factor))
    return hr, _pillow_resize(hr, _shrunk(hr, factor), Resampling.LANCZOS)


def _pillow_luma_lr(hr: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    hr = images.crop_to_multiple(hr, factor)
    return hr, _pillow_resize(jpeg_luma(hr), _shrunk(hr, factor), Resampling.BICUBIC)


def _shrunk(hr: np.ndarray, factor: int) -> tuple[int, int]:
    return hr.shape[0] // factor, hr.shape[1] // factor


def _matlab_lr(hr: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    hr = images.crop_to_multiple(hr, factor, anchor="top-left")
    return hr, imresize(hr, 1 / factor).astype(np.float32)


def jpeg_luma(pixels: np.ndarray) -> np.ndarray:
    """Y of Pillow's YCbCr (full range, 8 bits), (H, W, 1); gray is its own luma."""
    if pixels.shape[-1] == 1:
        return pixels
    return images.from_uint8(np.asarray(images.to_pillow(pixels).convert("YCbCr"))[..., :1])


def _with_true_chroma(result: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """The luma of `result` under the Cb and Cr of `hr`, rounded to 8 bits in between and after."""
    luma = jpeg_luma(result)
    if hr.shape[-1] == 1:
        return images.from_uint8(images.to_uint8(luma))
    _, blue, red = images.to_pillow(hr).convert("YCbCr").split()
    merged = PIL.Image.merge("YCbCr", (images.to_pillow(luma), blue, red)).convert("RGB")
    return images.from_uint8(np.asarray(merged))


def _figures(
    result: np.ndarray, hr: np.ndarray, *, on_y: bool = False, peak: float = 1.0, **options: Any
) -> dict[str, float]:
    """Figures on RGB and on Y, and those published: on Y or as stored, the SSIM with `peak`."""
    shave = options.get("shave", 0)
    result, hr = np.asarray(result, np.float64), np.asarray(hr, np.float64)
    luma = (images.rgb_to_y(result), images.rgb_to_y(hr))
    published = luma if on_y else (result, hr)
    figures = {
        "psnr": float(psnr(*published, shave=shave)),
        "ssim": ssim(*published, peak=peak, **options),
    }
    for name, pair in {"rgb": (result, hr), "y": luma}.items():
        if name == "y" or hr.shape[-1] == 3:
            figures[f"psnr_{name}"] = float(psnr(*pair, shave=shave))
            figures[f"ssim_{name}"] = ssim(*pair, **options)
    return figures


def _luma_figures(result: np.ndarray, hr: np.ndarray, shave: int) -> dict[str, float]:
    """Of the result rounded to 8 bits; Y itself is not rounded."""
    options: dict[str, Any] = {"shave": shave, "window": "gaussian", "border": "replicate"}
    return _figures(images.to_uint8(result) / 255.0, hr, on_y=True, **options)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="plain",
            description="8-bit RGB, no shave, SSIM 7x7 uniform, range 1; LR by Pillow Lanczos",
            kernel="pillow-lanczos",
            multiple=1,
            degrade=_pillow_lanczos_lr,
            bicubic=_pillow_bicubic,
            score=lambda result, hr, _: _figures(images.to_uint8(result) / 255.0, hr),
        ),
        Protocol(
            name="paper-dip",
            description="RGB, unrounded, no shave, SSIM 7x7 uniform, range 2; LR by Pillow Lanczos",
            kernel="pillow-lanczos",
            multiple=32,
            degrade=functools.partial(_pillow_lanczos_lr, multiple=32),
            bicubic=_pillow_bicubic,
            score=lambda result, hr, _: _figures(result, hr, peak=2.0),
        ),
        Protocol(
            name="paper-lapsrn",
            description="RGB of 8 bits with the ground truth's chroma, no shave, SSIM 7x7 uniform, "
            "range 1; LR by Pillow bicubic of Y",
            kernel="pillow-bicubic",
            multiple=1,
            degrade=_pillow_luma_lr,
            bicubic=_pillow_bicubic,
            score=lambda result, hr, _: _figures(_with_true_chroma(result, hr), hr),
        ),
        Protocol(
            name="standard",
            description="Y (BT.601 studio range) of 8-bit RGB, shave by the factor, SSIM 11x11 "
            "Gaussian, range 1; LR by MATLAB bicubic, not rounded",
            kernel="matlab-bicubic",
            multiple=1,
            degrade=_matlab_lr,
            bicubic=_matlab_bicubic,
            score=_luma_figures,  # shaved by the factor
        ),
        Protocol(
            name="dip",
            description="Y (BT.601 studio range) of 8-bit RGB, shave 4, SSIM 11x11 Gaussian, "
            "range 1; LR by Pillow Lanczos",
            kernel="pillow-lanczos",
            multiple=32,
            degrade=functools.partial(_pillow_lanczos_lr, multiple=32),
            bicubic=_pillow_bicubic,
            score=lambda result, hr, _: _luma_figures(result, hr, 4),
        ),
    )
}
