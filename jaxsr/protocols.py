"""The named protocols: how a low resolution was made, and what a published figure means.

Images are (H, W, C) in [0, 1]. A figure without its colour space, shave, peak and window cannot be
compared with another: a `Protocol` fixes them all.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
from PIL.Image import Resampling

from jaxsr import images
from jaxsr.errors import InputError, require_integers
from jaxsr.metrics import psnr, ssim
from jaxsr.operators import Kernel
from jaxsr.resample import imresize


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How low resolution is made from high, and results are compared with it. NumPy only.

    Can be pickled, for pools of processes.

    Images of integers are refused (InputError), for their range is not known; and of floats above
    2, which are meant for another.

    Attributes:
      degrade: (hr, factor) -> (hr, lr): `hr` cropped so that a result of the factor has its size
        (its sides under `dip` and `paper-dip` multiples of 32, too), and the low resolution; both
        float32, (H, W, C). Under `standard` `lr` may leave [0, 1]. InputError: the factor is no
        integer from 1, or the image too small to be cropped so.
      bicubic: (lr, (height, width)) -> the baseline, float32.
      score: (result, hr, factor) -> `psnr` (dB) and `ssim`, the figures that the protocol
        publishes, and `psnr_rgb`, `ssim_rgb`, `psnr_y`, `ssim_y`, the same on RGB (range 1; left
        out for gray images) and on studio-range Y; float64.
      kernel: the `operators.downsample` kernel that equals `degrade`.
    """

    name: str
    description: str
    kernel: Kernel
    degrade: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
    bicubic: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray, int], dict[str, float]]


def _pillow_resize(pixels: np.ndarray, size: tuple[int, int], resampling: Resampling) -> np.ndarray:
    resized = np.asarray(images.to_pillow(pixels).resize(size[::-1], resampling))
    return images.from_uint8(resized.reshape(*size, -1))


def _pillow_bicubic(lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return _pillow_resize(_floats(lr), size, Resampling.BICUBIC)


def _matlab_bicubic(lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return imresize(_floats(lr), size=size).astype(np.float32)


def _pillow_lanczos_lr(
    hr: np.ndarray, factor: int, *, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    require_integers(factor=factor)
    hr = images.crop_to_multiple(_truth(hr), math.lcm(multiple, factor))
    return hr, _pillow_resize(hr, _shrunk(hr, factor), Resampling.LANCZOS)


def _pillow_luma_lr(hr: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    require_integers(factor=factor)
    hr = images.crop_to_multiple(_truth(hr), factor)
    return hr, _pillow_resize(jpeg_luma(hr), _shrunk(hr, factor), Resampling.BICUBIC)


def _floats(image: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    images.require_in_range(image)
    return np.asarray(image, dtype)


def _truth(hr: np.ndarray) -> np.ndarray:
    hr = _floats(hr)
    if hr.ndim != 3 or hr.shape[-1] not in (1, 3):
        raise InputError(f"the image (of shape {hr.shape}) must be (H, W, 1) or (H, W, 3)")
    return hr


def _shrunk(hr: np.ndarray, factor: int) -> tuple[int, int]:
    return hr.shape[0] // factor, hr.shape[1] // factor


def _matlab_lr(hr: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    require_integers(factor=factor)
    hr = images.crop_to_multiple(_truth(hr), factor, anchor="top-left")
    return hr, imresize(hr, size=_shrunk(hr, factor)).astype(np.float32)


def jpeg_luma(pixels: np.ndarray) -> np.ndarray:
    """Y of Pillow's YCbCr (full range, 8 bits), (H, W, 1); gray is its own luma."""
    if pixels.shape[-1] == 1:
        return pixels
    return images.from_uint8(np.asarray(images.to_pillow(pixels).convert("YCbCr"))[..., :1])


def with_true_chroma(result: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """The luma of `result` under the Cb and Cr of `hr`, rounded to 8 bits in between and after."""
    luma = jpeg_luma(_floats(result, result.dtype))
    if luma.shape[:2] != hr.shape[:2]:
        raise InputError(f"the result (of shape {result.shape}) must be of the truth's {hr.shape}")
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
    height, width = hr.shape[:2]
    if min(height, width) <= 2 * shave:
        raise InputError(
            f"the image (of {width}x{height}) must have more than {2 * shave} pixels a side: the "
            f"protocol leaves out {shave} at each border"
        )
    result, hr = _floats(result, np.float64), _floats(hr, np.float64)
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


def _rounded(result: np.ndarray) -> np.ndarray:
    """To 8 bits, and the float32 that `images.read` has for them: of equal pixels PSNR is inf."""
    return images.from_uint8(images.to_uint8(_floats(result, result.dtype)))


def _luma_figures(result: np.ndarray, hr: np.ndarray, shave: int) -> dict[str, float]:
    """Of the result rounded to 8 bits; Y itself is not rounded."""
    options: dict[str, Any] = {"shave": shave, "window": "gaussian", "border": "replicate"}
    return _figures(_rounded(result), hr, on_y=True, **options)


def _plain_score(result: np.ndarray, hr: np.ndarray, factor: int) -> dict[str, float]:
    return _figures(_rounded(result), hr)


def _paper_dip_score(result: np.ndarray, hr: np.ndarray, factor: int) -> dict[str, float]:
    return _figures(result, hr, peak=2.0)


def _paper_lapsrn_score(result: np.ndarray, hr: np.ndarray, factor: int) -> dict[str, float]:
    return _figures(with_true_chroma(result, hr), hr)


def _standard_score(result: np.ndarray, hr: np.ndarray, factor: int) -> dict[str, float]:
    return _luma_figures(result, hr, shave=factor)


def _dip_score(result: np.ndarray, hr: np.ndarray, factor: int) -> dict[str, float]:
    return _luma_figures(result, hr, shave=4)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="plain",
            description="8-bit RGB, no shave, SSIM 7x7 uniform, range 1; LR by Pillow Lanczos",
            kernel="pillow-lanczos",
            degrade=_pillow_lanczos_lr,
            bicubic=_pillow_bicubic,
            score=_plain_score,
        ),
        Protocol(
            name="paper-dip",
            description="RGB, unrounded, no shave, SSIM 7x7 uniform, range 2; LR by Pillow Lanczos",
            kernel="pillow-lanczos",
            degrade=functools.partial(_pillow_lanczos_lr, multiple=32),
            bicubic=_pillow_bicubic,
            score=_paper_dip_score,
        ),
        Protocol(
            name="paper-lapsrn",
            description="RGB of 8 bits with the ground truth's chroma, no shave, SSIM 7x7 uniform, "
            "range 1; LR by Pillow bicubic of Y",
            kernel="pillow-bicubic",
            degrade=_pillow_luma_lr,
            bicubic=_pillow_bicubic,
            score=_paper_lapsrn_score,
        ),
        Protocol(
            name="standard",
            description="Y (BT.601 studio range) of 8-bit RGB, shave by the factor, SSIM 11x11 "
            "Gaussian, range 1; LR by MATLAB bicubic, not rounded",
            kernel="matlab-bicubic",
            degrade=_matlab_lr,
            bicubic=_matlab_bicubic,
            score=_standard_score,
        ),
        Protocol(
            name="dip",
            description="Y (BT.601 studio range) of 8-bit RGB, shave 4, SSIM 11x11 Gaussian, "
            "range 1; LR by Pillow Lanczos",
            kernel="pillow-lanczos",
            degrade=functools.partial(_pillow_lanczos_lr, multiple=32),
            bicubic=_pillow_bicubic,
            score=_dip_score,
        ),
    )
}
