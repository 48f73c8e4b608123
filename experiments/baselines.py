"""Restoration without a network: interpolation, total variation, the biharmonic equation."""

import jax.numpy as jnp
import numpy as np
import PIL.Image
from skimage import restoration

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
    image, share = _minimised(low, start, operator, tv_weight, tolerance)
    if share is not None:
        raise InputError(f"`tolerance` (={tolerance}) was not reached: the gap is {share:.1e}")
    return image


def _minimised(
    seen: np.ndarray, start: np.ndarray, operator: operators.Operator, weight: float, tol: float
) -> tuple[np.ndarray, float | None]:
    """The image, and what share of the objective the gap is, where it stayed above `tol`."""
    found = tv.least_squares(
        jnp.asarray(seen), operator, start=jnp.asarray(start), weight=weight, tolerance=tol
    )
    share = None if found.converged else float(found.gap / found.objective)
    return np.asarray(found.image), share


def tv_restored(
    seen: np.ndarray, start: np.ndarray, operator: operators.Operator, sigma: float
) -> np.ndarray:
    """Total variation under any operator and noise of a known deviation, in units of 1/255.

    The weight is 1e-4 + 0.5 sigma / 255. On the images of `tv_least_squares`, blurred by a Gaussian
    of 1.6 pixels, it gives 30.54 dB without noise, and 26.89, 25.60 and 23.93 dB for sigma 10, 25
    and 50, where the best weights seen gave 26.93, 25.61 and 23.94. Images are (h, w, C) seen and
    (H, W, C) restored, as `start`. A minimum that was not found to a hundredth is told.
    """
    image, share = _minimised(seen, start, operator, 1e-4 + 0.5 * sigma / 255, 1e-2)
    if share is not None:
        print(f"total variation was not minimised to a hundredth: the gap is {share:.1e}")
    return image


def chambolle(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Total variation against noise of a known deviation, in units of 1/255; images (H, W, C).

    The weight is 0.7 sigma / 255, chosen on the training images and crops of `tv_least_squares`:
    mean PSNR in dB for sigma 10, 25, 50 by 0.6, 0.7 and 0.8 sigma / 255

        32.513, 27.760, 24.322    32.411, 28.034, 24.827    32.171, 28.058, 24.995

    Reference: Chambolle, J. Math. Imaging Vis. 20 (2004), as scikit-image has it.
    """
    restored: np.ndarray = restoration.denoise_tv_chambolle(
        noisy, weight=0.7 * sigma / 255, eps=1e-5, max_num_iter=1000, channel_axis=-1
    )
    return restored.astype(np.float32)


def biharmonic(observed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The missing pixels from the known ones by the biharmonic equation; images (H, W, C).

    Args:
      observed: the image.
      mask: (H, W, 1), 1 where it was observed, 0 where not.

    Reference: Damelin and Hoang, Int. J. Math. Math. Sci. (2018), as scikit-image has it.
    """
    filled = restoration.inpaint_biharmonic(observed, mask[..., 0] == 0, channel_axis=-1)
    return np.clip(filled, 0, 1).astype(np.float32)
