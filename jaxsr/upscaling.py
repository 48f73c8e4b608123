"""Networks for luma on whole images: colour, any size, tiles, self-ensemble.

Only luma goes through the network, as in Lai et al. (CVPR 2017): Cb and Cr of BT.601 (studio range)
are enlarged by MATLAB's bicubic `imresize`. Everything is computed window by window; a window
reaches beyond what is kept of it by as much as a result looks at, so that cutting changes nothing
but roundings, and ends where the image ends, so that borders are those of the whole image.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import images
from jaxsr.errors import InputError, require_integers
from jaxsr.models.luma import Network
from jaxsr.resample import imresize

Array = Any  # a NumPy or JAX array

_STEP = 32  # pixels
_DTYPES = "float32, uint8 or uint16"
_PROGRAMS = 8  # kept; an image takes one, two where it is turned


def upscale(
    image: Array,
    model: Network,
    variables: Any,
    *,
    scale: int | None = None,
    tile: int | None = None,
    self_ensemble: bool = False,
    dtype: Any = np.float32,
) -> np.ndarray:
    """An image enlarged by a trained network.

    Args:
      image: (H, W, 1), which goes through the network as it is, or (H, W, 3), whose luma does;
        floats in [0, 1] or a little outside, any size.
      model, variables: as `pretrained.load` or `weights.lapsrn_from_mat` return them.
      scale: by default the network's factor. A lower one costs only the levels that it takes; one
        between two levels (3, say) is the higher level's image, shrunk by `imresize`.
      tile: how many pixels of `image` a side a window may add to the result, the first and the
        last of a row or column each `margin` more, an only one twice that; by default the image is
        one window. Memory then depends on `tile` alone, but for `image` and the result.
      self_ensemble: the mean over the 8 flips and right-angle rotations of the luma, at eight times
        the cost (Timofte, Rothe and Van Gool, CVPR 2016).
      dtype: of the result: float32, or uint8 or uint16, to which it is rounded.

    Returns:
      (scale H, scale W, C), clipped to [0, 1]; in uint8 0..255, in uint16 0..65535.

    Raises:
      InputError: the image's shape or type, the scale, `tile` or `dtype` is none of these; or the
        image or the network's result is not finite.
    """
    scale, levels, enlargement = _route(model, scale)
    variables = jax.device_put(variables)

    def network(luma: np.ndarray) -> jax.Array:
        program = _program(model, levels, luma.shape)
        return program(variables, luma[None])

    def enlarge(window: np.ndarray) -> np.ndarray:
        colour = window.shape[-1] == 3
        ycbcr = images.rgb_to_ycbcr(window) if colour else window
        luma = np.asarray(ycbcr[..., :1], np.float32)
        result = _ensemble(network, luma) if self_ensemble else network(luma)
        chroma = imresize(ycbcr[..., 1:], scale) if colour else None  # while the network computes
        luma = np.asarray(result)
        if not np.isfinite(luma).all():
            raise InputError("the network's result is NaN or infinite: its weights are of no use")
        if enlargement != scale:
            luma = imresize(luma, scale / enlargement)
        if chroma is None:
            return luma
        return images.ycbcr_to_rgb(np.concatenate([luma, chroma], axis=-1))

    return _by_windows(image, enlarge, scale, margin(model, scale=scale), tile, dtype)


def bicubic(
    image: Array, scale: int, *, tile: int | None = None, dtype: Any = np.float32
) -> np.ndarray:
    """`resample.imresize` by a whole scale under the options of `upscale`, clipped: for alpha, say.

    Raises:
      InputError: as `upscale`.
    """
    require_integers(scale=scale)
    scale = int(scale)  # NumPy's may be too narrow for a side
    return _by_windows(image, lambda window: imresize(window, scale), scale, 2, tile, dtype)


def margin(model: Network, *, scale: int | None = None) -> int:
    """How many pixels of low resolution a result looks at beyond its own, on the farther side.

    Followed back from the results that lie on pixel 0, through one layer after another; it is the
    tightest bound, or a pixel above it where a network enlarges by bicubic and an odd factor.

    Raises:
      InputError: the network does not make this scale.
    """
    scale, levels, enlargement = _route(model, scale)
    # imresize looks at less than 2 enlargement / scale on either side of a result's centre.
    reach = -((scale - 3 * enlargement) // (2 * scale)) if enlargement != scale else 0
    first, last = model.receptive_field(-reach, enlargement - 1 + reach, levels=levels)
    return max(-first, last)


def _route(model: Network, scale: int | None) -> tuple[int, int, int]:
    """The scale, how many levels it takes, and what these enlarge by: as much or more."""
    steps, scale = model.enlargements, model.factor if scale is None else scale
    # What two levels make well is not shrunk from a later one; of a jump no power of two is made.
    powers = [2**i for i in range(1, model.factor.bit_length()) if 2**i < model.factor]
    made = [s for s in range(2, model.factor + 1) if s in steps or s not in powers]
    if scale not in made:
        these = ", ".join(map(str, made))
        raise InputError(f"`scale` (={scale}) must be one that this network makes: {these}")
    enlargement = min(step for step in steps if step >= scale)
    return int(scale), len(steps) - steps[::-1].index(enlargement), enlargement


@functools.lru_cache(maxsize=_PROGRAMS)
def _program(model: Network, levels: int, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
    # One for a shape, so that a folder of photographs does not add up in jax.jit's own cache.
    del shape

    def luma(variables: Any, luma: Array) -> jax.Array:
        results: Any = model.apply(variables, luma, levels=levels)
        return results[-1][0].astype(jnp.float32)

    return jax.jit(luma)


def _ensemble(network: Callable[[np.ndarray], jax.Array], luma: np.ndarray) -> np.ndarray:
    """The mean of the network's results over the square's 8 symmetries, each undone."""
    results = []
    for turns in range(4):
        turned = np.rot90(luma, turns)
        results.append(np.rot90(np.asarray(network(turned)), -turns))
        mirrored = np.asarray(network(turned[:, ::-1]))
        results.append(np.rot90(mirrored[:, ::-1], -turns))
    return np.stack(results).mean(axis=0, dtype=np.float32)


def _by_windows(
    image: Array,
    enlarge: Callable[[np.ndarray], np.ndarray],
    scale: int,
    margin: int,
    tile: int | None,
    dtype: Any,
) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise InputError(f"the image (of shape {image.shape}) must be (H, W, 1) or (H, W, 3)")
    images.require_in_range(image)
    if tile is not None:
        require_integers(tile=tile)
        tile = int(tile)
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise InputError(f"`dtype` (={dtype}) must be {_DTYPES}") from error
    if dtype not in (np.float32, np.uint8, np.uint16):
        raise InputError(f"`dtype` (={dtype}) must be {_DTYPES}")
    height, width, channels = image.shape
    result = np.empty((scale * height, scale * width, channels), dtype)
    for rows, kept_rows in _cuts(height, tile or height, margin):
        for cols, kept_cols in _cuts(width, tile or width, margin):
            part = enlarge(image[rows, cols])
            part = part[
                _enlarged(kept_rows, scale, rows.start), _enlarged(kept_cols, scale, cols.start)
            ]
            part = np.clip(part, 0, 1)
            if dtype.kind == "u":
                part = np.rint(part * np.iinfo(dtype).max)
            result[_enlarged(kept_rows, scale), _enlarged(kept_cols, scale)] = part
    return result


def _cuts(size: int, tile: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """Windows along one axis, all of one length, and what is kept of each."""
    inner = max(1, size - 2 * margin)
    count = -(-inner // tile)
    # No more than it takes for so many, in steps: images of many sizes share a few programs.
    tile = min(tile, _STEP * -(-inner // (count * _STEP)))
    count = -(-inner // tile)
    length = min(size, tile + 2 * margin)
    for i in range(count):
        start = min(i * tile, size - length)
        first = i * tile + margin if i > 0 else 0
        last = (i + 1) * tile + margin if i < count - 1 else size
        yield slice(start, start + length), slice(first, last)


def _enlarged(part: slice, scale: int, origin: int = 0) -> slice:
    return slice(scale * (part.start - origin), scale * (part.stop - origin))
