"""The skip U-Net of Deep Image Prior (Ulyanov, Vedaldi and Lempitsky, CVPR 2018)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxsr.errors import InputError
from jaxsr.layers import Conv, Norm
from jaxsr.resample import double_bilinear


class Block(nn.Module):
    """Convolution, norm, LeakyReLU of slope 0.2."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, self.size, self.stride, self.dtype, name="conv")(x)
        return nn.leaky_relu(Norm(name="norm")(x), 0.2)


class SkipUNet(nn.Module):
    """An hourglass with thin skip connections; untrained, its structure is an image prior.

    At each scale the image is halved by a strided convolution, filtered, handed to the scale
    below, doubled bilinearly, joined to a 1x1 convolution of the scale's input, and filtered again.
    The defaults are the released super-resolution network: 2,217,831 parameters.

    Attributes:
      down: channels of the two convolutions on the way down, one number a scale, finest first.
      up: channels of the two convolutions on the way up, likewise.
      skip: channels of the skip connection, likewise; 0 leaves it out.
      channels: of the image: 3 for RGB, 1 for gray.
      dtype: of the computation (bfloat16, say); by default that of the input. Parameters are
        float32, or float64 for float64 input.
    """

    down: tuple[int, ...] = (128,) * 5
    up: tuple[int, ...] = (128,) * 5
    skip: tuple[int, ...] = (4,) * 5
    channels: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map a latent z (N, H, W, C) to images (N, H, W, channels) in (0, 1).

        Raises:
          InputError: H or W is no multiple of 2**scales or under 2 * 2**scales (the coarsest
            scale needs two pixels to mirror its border).
        """
        stride = 2 ** len(self.down)
        if any(side % stride or side < 2 * stride for side in z.shape[1:3]):
            raise InputError(
                f"the latent's size (={z.shape[1]}x{z.shape[2]}) must be multiples of "
                f"{stride}, at least {2 * stride}, for {len(self.down)} scales"
            )
        image = Conv(self.channels, 1, dtype=self.dtype, name="image")(self._scale(z, 0))
        return nn.sigmoid(image.astype(jnp.promote_types(image.dtype, jnp.float32)))

    def _scale(self, x: Array, i: int) -> Array:
        if i == len(self.down):
            return x
        y = Block(self.down[i], stride=2, dtype=self.dtype, name=f"halve_{i}")(x)
        y = Block(self.down[i], dtype=self.dtype, name=f"down_{i}")(y)
        y = double_bilinear(self._scale(y, i + 1))
        if self.skip[i]:
            s = Block(self.skip[i], size=1, dtype=self.dtype, name=f"skip_{i}")(x)
            y = jnp.concatenate([s, y], axis=-1)
        y = Norm(name=f"join_{i}")(y)
        y = Block(self.up[i], dtype=self.dtype, name=f"up_{i}")(y)
        return Block(self.up[i], size=1, dtype=self.dtype, name=f"mix_{i}")(y)
