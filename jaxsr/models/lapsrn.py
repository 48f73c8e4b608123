"""The Laplacian pyramid network, LapSRN (Lai, Huang, Ahuja and Yang, CVPR 2017).

Reference: "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution".
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxsr.errors import InputError
from jaxsr.models import luma
from jaxsr.models.luma import ConvTranspose, Network
from jaxsr.strips import by_rows

FACTORS = (2, 4, 8)


def _bilinear(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """The filter (2s, 2s, 1, 1) whose transposed convolution of stride s enlarges bilinearly.

    Beyond the border are zeros, so that a constant image darkens there, as in the paper's network.
    An initialiser, whose `key` is not used.
    """
    stride = shape[0] / 2
    taps = 1 - jnp.abs(jnp.arange(shape[0], dtype=dtype) + 0.5 - stride) / stride
    return jnp.outer(taps, taps).reshape(shape)


def _centred_he_normal(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """He-normal filters (height, width, inputs, outputs), each less its mean over its inputs.

    He et al. assume inputs of mean 0. Luma's mean is several times its contrast: under plain
    He-normal filters a unit stays on one side of LeakyReLU's kink all over the image, and the
    network starts, and long stays, a linear filter. Centred filters answer to contrast alone.
    Key consumed.
    """
    filters = nn.initializers.he_normal()(key, shape, dtype)
    return filters - filters.mean((0, 1, 2), keepdims=True)


def _read(up: ConvTranspose, detail: nn.Module, x: Array) -> Array:
    """`detail(leaky_relu(up(x)))`, by strips of rows."""
    (up, filters), (detail, kernel) = up.unbind(), detail.unbind()

    def read(x: Array, filters: Any, kernel: Any) -> Array:
        features: Any = up.apply(filters, x)
        details: Any = detail.apply(kernel, nn.leaky_relu(features, 0.2))
        return details

    # A detail looks at a pixel on either side of its own.
    first, last = luma.conv_transpose_field(-1, up.stride, up.size, up.stride)
    return by_rows(read, x, filters, kernel, scale=up.stride, reach=max(-first, last))


class LapSRN(Network):
    """Super-resolution of luma, one level of twofold enlargement after another.

    A level filters its features, spreads them over twice the sides, and adds what it reads off them
    to the enlarged image of the level before. The defaults are the 4x network of "Robust Loss with
    Deep Image Prior" (section 3.2); `depth=10, spread=3` is the released one, of 814,242
    parameters. What Lai et al. find essential can be switched off: `pyramid` and `residual` here,
    the robust loss in training.

    Attributes:
      factor: 2, 4 or 8.
      depth: 3x3 convolutions in a level.
      spread: side of the transposed convolution of the features: 4, or the released networks' 3.
      pyramid: otherwise one jump: all convolutions at low resolution, one transposed convolution of
        stride `factor` and side 2 `factor`, one image.
      residual: otherwise no image branch: each level's image is read off its features alone.
      features: channels.
      dtype: of the computation and the images (bfloat16, say); by default the wider of the input's
        and the parameters'. Parameters are float32, or float64 for float64 input.
    """

    depth: int = 5
    spread: int = 4
    pyramid: bool = True
    residual: bool = True
    features: int = 64
    dtype: Any = None

    @property
    def enlargements(self) -> tuple[int, ...]:
        steps = range(1, int(math.log2(self.factor)) + 1)
        return tuple(2**i for i in steps) if self.pyramid else (self.factor,)

    @property
    def levels(self) -> int:
        """How many images a call returns."""
        return len(self.enlargements)

    def _jump(self) -> tuple[int, int, int]:
        """Of a level: stride and side of its transposed convolution, and convolutions before it."""
        if self.pyramid:
            return 2, self.spread, self.depth
        return self.factor, 2 * self.factor, self.depth * int(math.log2(self.factor))

    def receptive_field(self, first: int, last: int, *, levels: int) -> tuple[int, int]:
        stride, spread, depth = self._jump()
        first, last = first - 1, last + 1  # the image's convolution
        for _ in range(levels):
            first, last = luma.conv_transpose_field(first, last, spread, stride)
            first, last = first - depth, last + depth
        return first - 1, last + 1

    @nn.compact
    def __call__(self, image: Array, *, levels: int | None = None) -> tuple[Array, ...]:
        """Map luma (N, H, W, 1) to every level's image: (N, 2H, 2W, 1), (N, 4H, 4W, 1), ...

        Any size, any real range; trained networks expect [0, 1]. Results are not clipped.

        Args:
          image: luma of low resolution.
          levels: stop after so many, at their cost alone; by default all.

        Raises:
          InputError: a setting, `levels` or the number of channels is none that the network has.
        """
        self._check(image, levels)
        stride, spread, depth = self._jump()
        # An output of the transposed convolution sees (spread / stride)^2 pixels, not spread^2.
        he_spread = nn.initializers.variance_scaling(2 * stride**2, "fan_in", "truncated_normal")

        def conv(x: Array, features: int, name: str) -> nn.Module:
            return luma.conv(x, features, name, kernel_init=_centred_he_normal, dtype=self.dtype)

        images = []
        x = nn.leaky_relu(conv(image, self.features, "input")(image), 0.2)
        levels = self.levels if levels is None else levels
        for level in range(levels):
            for i in range(depth):
                layer = conv(x, self.features, f"level_{level}_conv_{i}")
                x = nn.leaky_relu(layer(x), 0.2)
            up = ConvTranspose(
                self.features, spread, stride, he_spread, dtype=self.dtype, name=f"level_{level}_up"
            )
            detail = conv(x, 1, f"level_{level}_detail")
            if level < levels - 1 or self._is_watched():
                x = nn.leaky_relu(up(x), 0.2)
                found = detail(x)
            else:  # Nothing else looks at the last features: they need not exist as a whole.
                found = _read(up, detail, x)
            if self.residual:
                image = ConvTranspose(
                    1, 2 * stride, stride, _bilinear, False, self.dtype, name=f"level_{level}_image"
                )(image)
                found = image + found
            image = found
            images.append(image)
        return tuple(images)

    def _is_watched(self) -> bool:
        """Whether what the layers give is kept, or their parameters are to be made."""
        return self.is_initializing() or self.is_mutable_collection("intermediates")

    def _check(self, image: Array, levels: int | None) -> None:
        luma.check(self, image, levels, factors=FACTORS)
        if self.spread not in (3, 4):
            raise InputError(f"`spread` (={self.spread}) must be 3 or 4")
