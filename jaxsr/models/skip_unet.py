"""The skip U-Net of Deep Image Prior (Ulyanov, Vedaldi and Lempitsky, CVPR 2018)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxsr.errors import InputError, require_integers
from jaxsr.layers import Conv, Norm
from jaxsr.resample import double_bilinear, double_nearest


class Block(nn.Module):
    """Convolution, norm, LeakyReLU of slope 0.2."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, self.size, self.stride, self.dtype, name="conv")(x)
        return Norm(slope=0.2, name="norm")(x)


def recomputed(block: Block, x: Array) -> Array:
    """`block(x)`, of which only x is kept for the gradient: the rest is computed again for it.

    `flax.linen.remat` does the same, but XLA's CPU back end may compute it again early, for all
    blocks at once, which saves nothing. Here x waits for the gradient of the block's output.
    """
    alone = block.clone(parent=None, name=None)

    def forward(block: Block, x: Array) -> tuple[Array, Any]:
        return block(x), (block.variables, x)

    def backward(kept: Any, dy: Array) -> Any:
        variables, x = kept
        x = x + 0 * dy[:1, :1, :1, :1].astype(x.dtype)
        return jax.vjp(alone.apply, variables, x)[1](dy)

    apply = nn.custom_vjp(Block.__call__, forward_fn=forward, backward_fn=backward)
    found: Array = apply(block, x)
    return found


class SkipUNet(nn.Module):
    """An hourglass with thin skip connections; untrained, its structure is an image prior.

    At each scale the image is halved by a strided convolution, filtered, handed to the scale
    below, doubled, joined to a 1x1 convolution of the scale's input, and filtered again.
    The defaults are the released network for super-resolution and denoising: 2,217,831 parameters.
    `INPAINTING` holds what the released one for inpainting has otherwise.

    Attributes:
      down: channels of the two convolutions on the way down, one number a scale, finest first.
      up: channels of the two convolutions on the way up, likewise.
      skip: channels of the skip connection, likewise; 0 leaves it out.
      double: (N, H, W, C) -> (N, 2H, 2W, C), between the scales.
      channels: of the image: 3 for RGB, 1 for gray.
      dtype: of the computation (bfloat16, say); by default the wider of the input's and the
        parameters'. Parameters are float32, or float64 for float64 input.
      remat: keep each block's input alone for the gradient and compute its inside again: less
        memory, more time, the same values.
    """

    down: tuple[int, ...] = (128,) * 5
    up: tuple[int, ...] = (128,) * 5
    skip: tuple[int, ...] = (4,) * 5
    double: Callable[[Array], Array] = double_bilinear
    channels: int = 3
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map a latent z (N, H, W, C) to images (N, H, W, channels) in (0, 1).

        Raises:
          InputError: H or W is no multiple of 2**scales or under 2 * 2**scales (the coarsest
            scale needs two pixels to mirror its border); `down`, `up` and `skip` are no tuples of
            one length, or empty; or a number of channels is none.
        """
        lengths = {len(x) if isinstance(x, tuple) else 0 for x in (self.down, self.up, self.skip)}
        if len(lengths) > 1 or 0 in lengths:
            raise InputError(
                f"`down`, `up` and `skip` (={self.down}, {self.up}, {self.skip}) must hold one "
                "number a scale, of at least one scale"
            )
        require_integers(channels=self.channels)
        for down, up, skip in zip(self.down, self.up, self.skip, strict=True):
            require_integers(down=down, up=up)
            require_integers(skip=skip, least=0)
        if z.ndim != 4:
            raise InputError(f"the latent (of shape {z.shape}) must be (N, H, W, C)")
        _, height, width, _ = z.shape
        stride = 2 ** len(self.down)
        if any(side % stride or side < 2 * stride for side in (height, width)):
            raise InputError(
                f"the latent's size (={width}x{height}) must be multiples of {stride}, at least "
                f"{2 * stride}, for {len(self.down)} scales"
            )
        image = Conv(self.channels, 1, dtype=self.dtype, name="image")(self._scale(z, 0))
        return nn.sigmoid(image.astype(jnp.promote_types(image.dtype, jnp.float32)))

    def _scale(self, x: Array, i: int) -> Array:
        if i == len(self.down):
            return x
        y = self._block(x, self.down[i], f"halve_{i}", stride=2)
        y = self._block(y, self.down[i], f"down_{i}")
        y = self.double(self._scale(y, i + 1))
        if self.skip[i]:
            s = self._block(x, self.skip[i], f"skip_{i}", size=1)
            y = jnp.concatenate([s, y], axis=-1)
        y = Norm(name=f"join_{i}")(y)
        y = self._block(y, self.up[i], f"up_{i}")
        return self._block(y, self.up[i], f"mix_{i}", size=1)

    def _block(
        self, x: Array, features: int, name: str, *, size: int = 3, stride: int = 1
    ) -> Array:
        block = Block(features, size, stride, self.dtype, name=name)
        return recomputed(block, x) if self.remat else block(x)


INPAINTING: dict[str, Any] = {"skip": (128,) * 5, "double": double_nearest}
