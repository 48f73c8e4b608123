"""What networks for super-resolution of luma share: their layers, and how far a result sees."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsr.convolution import conv_general_dilated, conv_transpose
from jaxsr.errors import InputError, require_floats, require_integers
from jaxsr.resample import matlab_matrix, separable


class Network(nn.Module):
    """What training and upscaling ask of a network.

    Attributes:
      factor: by which its result is larger.
    """

    factor: int = 4

    @property
    def enlargements(self) -> tuple[int, ...]:
        """Of the images that a call returns, the result last."""
        return (self.factor,)

    def receptive_field(self, first: int, last: int, *, levels: int) -> tuple[int, int]:
        """Which pixels of low resolution those in [first, last] of the last of so many images see,
        along either axis. `jaxsr.upscaling` asks, which works in tiles."""
        raise NotImplementedError(f"{type(self).__name__}.receptive_field")

    def __call__(self, image: Array, *, levels: int | None = None) -> tuple[Array, ...]:
        """Map luma (N, H, W, 1) to an image (N, e H, e W, 1) for each enlargement e, not clipped.

        Any size, any real range; trained networks expect [0, 1]. With `levels` the first so many.

        Raises:
          InputError: a setting, `levels` or the number of channels is none that the network has.
        """
        raise NotImplementedError


Initializer = Callable[..., Array]
HE_NORMAL = nn.initializers.he_normal()


def conv(
    x: Array,
    features: int,
    name: str,
    *,
    size: int = 3,
    kernel_init: Initializer = HE_NORMAL,
    dtype: Any = None,
) -> nn.Module:
    """A convolution with bias, zeros beyond the border, the size kept: a module for inputs as x."""
    return nn.Conv(
        features,
        (size, size),
        padding=[(size // 2, size // 2)] * 2,
        kernel_init=kernel_init,
        dtype=dtype,
        param_dtype=jnp.promote_types(x.dtype, jnp.float32),
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


class ConvTranspose(nn.Module):
    """A transposed convolution: (N, H, W, C) to (N, stride H, stride W, features)."""

    features: int
    size: int
    stride: int
    kernel_init: Initializer
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, wide)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), wide)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv_transpose(x, kernel, self.stride, (self.size - self.stride) // 2)
        return y if bias is None else y + bias[None, None, None]


def conv_transpose_field(first: int, last: int, size: int, stride: int) -> tuple[int, int]:
    """Which pixels the results in [first, last] of a `ConvTranspose` look at."""
    cut = (size - stride) // 2
    return -((size - 1 - cut - first) // stride), (last + cut) // stride


def bicubic(image: Array, factor: int) -> Array:
    """(N, H, W, C) to (N, factor H, factor W, C), as MATLAB's `imresize`."""
    rows, cols = (matlab_matrix(side, factor, side * factor) for side in image.shape[1:3])
    return separable(image, rows, cols)


def bicubic_field(first: int, last: int, factor: int) -> tuple[int, int]:
    """Which pixels those in [first, last] of an enlarged image look at."""
    # Pixel p lies at (p + 1/2) / factor - 1/2 of low resolution, and looks at two on either side.
    return (2 * first + 1 - factor) // (2 * factor) - 1, (2 * last + 1 - factor) // (2 * factor) + 2


def check(
    network: Network,
    image: Array,
    levels: int | None,
    *,
    factors: tuple[int, ...] = (2, 3, 4, 8),
) -> None:
    """Refuses what a network for luma cannot take.

    Raises:
      InputError: its factor is none of those, a count or side is no integer of at least 1, the
        image is no luma or holds no floats, or it makes not so many levels.
    """
    for name in ("depth", "features", "shrunk", "sizes"):
        for value in np.ravel(getattr(network, name, ())):
            require_integers(**{name: value})
    require_integers(factor=network.factor)
    if network.factor not in factors:
        *most, last = map(str, factors)
        raise InputError(f"`factor` (={network.factor}) must be {', '.join(most)} or {last}")
    if image.ndim != 4 or image.shape[-1] != 1:
        raise InputError(f"the image (of shape {image.shape}) must be luma, (N, H, W, 1)")
    require_floats("the image", image.dtype)
    if levels is not None:
        require_integers(levels=levels)
        if levels > (made := len(network.enlargements)):
            raise InputError(f"`levels` (={levels}) must be at most {made}")
