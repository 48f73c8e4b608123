"""Restoration without a network: interpolation, and least squares with total variation."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import Array

from jaxsr import dip, losses, operators

RESAMPLING = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}
TV = dip.Config(
    iterations=1000,
    learning_rate=0.003,
    noise_std=0.0,
    average=0.0,
    tv_weight=3e-4,
    latent_channels=1,
)


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
    low: np.ndarray, start: np.ndarray, operator: operators.Operator, config: dip.Config = TV
) -> np.ndarray:
    """argmin_x mean (A x - y)^2 + weight TV(x), the handcrafted prior of the paper's section 3.3.

    The solver is Deep Image Prior's with the pixels in the network's place, started from `start`
    (H, W, C), clipped to [0, 1]; so is the result.
    """
    pixels = jnp.asarray(np.clip(start, 0, 1))[None]

    def init(key: Array, latent: Array) -> Array:
        return pixels

    result = dip.fit(
        jax.random.key(0),  # of a latent and noise that nothing looks at
        jnp.asarray(low)[None],
        operator,
        init_fn=init,
        apply_fn=_pixels,
        size=(start.shape[0], start.shape[1]),
        loss=losses.mse,
        config=config,
    )
    return np.clip(np.asarray(result.last[0]), 0, 1)


def _pixels(image: Array, latent: Array) -> Array:
    return image
