"""FSRCNN (Dong, Loy and Tang): convolutions at low resolution, one enlargement at the end.

Reference: "Accelerating the Super-Resolution Convolutional Neural Network", ECCV 2016.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxsr.models import luma
from jaxsr.models.luma import Network


class FSRCNN(Network):
    """Features, shrinking, mapping, expanding, transposed convolution, with PReLU between.

    The defaults are the published FSRCNN(56, 12, 4).

    Attributes:
      factor: 2, 3, 4 or 8.
      features: of the wide layers.
      shrunk: of the narrow ones.
      depth: 3x3 convolutions of the narrow, at least 1.
      dtype: of the computation; by default the wider of the input's and the parameters'.
    """

    features: int = 56
    shrunk: int = 12
    depth: int = 4
    dtype: Any = None

    def receptive_field(self, first: int, last: int, *, levels: int) -> tuple[int, int]:
        first, last = luma.conv_transpose_field(first, last, 9, self.factor)
        radius = 2 + self.depth
        return first - radius, last + radius

    @nn.compact
    def __call__(self, image: Array, *, levels: int | None = None) -> tuple[Array, ...]:
        luma.check(self, image, levels)
        layers = [("features", self.features, 5), ("shrink", self.shrunk, 1)]
        layers += [(f"map_{i}", self.shrunk, 3) for i in range(self.depth)]
        x = image
        for name, features, size in (*layers, ("expand", self.features, 1)):
            x = luma.conv(x, features, name, size=size, dtype=self.dtype)(x)
            wide = jnp.promote_types(x.dtype, jnp.float32)
            start = nn.initializers.constant(0.25)
            slope = self.param(f"{name}_slope", start, (features,), wide)[None, None, None]
            x = jnp.where(x > 0, x, slope.astype(x.dtype) * x)
        # An output sees (9 / factor)^2 pixels of the filter's 81.
        init = nn.initializers.normal(math.sqrt(self.factor**2 / (81 * self.features)))
        return (luma.ConvTranspose(1, 9, self.factor, init, dtype=self.dtype, name="up")(x),)
