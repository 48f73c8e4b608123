"""DRCN (Kim, Lee and Lee): one convolution again and again, an image after each.

Reference: "Deeply-Recursive Convolutional Network for Image Super-Resolution", CVPR 2016.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxsr.models import luma
from jaxsr.models.luma import Network


class DRCN(Network):
    """Embedding, `depth` times the same inference, and of each a reconstruction.

    Every call returns all these images, which training answers for (recursive supervision), and at
    last their weighted mean, the result. 1,775,121 parameters by default.

    Attributes:
      factor: 2, 3, 4 or 8.
      depth: recursions.
      features: channels between the layers.
      dtype: of the computation; by default the wider of the input's and the parameters'.
    """

    depth: int = 16
    features: int = 256
    dtype: Any = None

    @property
    def enlargements(self) -> tuple[int, ...]:
        return (self.factor,) * (self.depth + 1)

    def receptive_field(self, first: int, last: int, *, levels: int) -> tuple[int, int]:
        radius = min(levels, self.depth) + 4
        return luma.bicubic_field(first - radius, last + radius, self.factor)

    @nn.compact
    def __call__(self, image: Array, *, levels: int | None = None) -> tuple[Array, ...]:
        luma.check(self, image, levels)
        x = enlarged = luma.bicubic(image, self.factor)
        for i in range(2):
            x = nn.relu(luma.conv(x, self.features, f"embed_{i}", dtype=self.dtype)(x))
        infer = luma.conv(x, self.features, "infer", dtype=self.dtype)
        draw = [
            luma.conv(x, features, f"draw_{i}", dtype=self.dtype)
            for i, features in enumerate((self.features, 1))
        ]
        found = []
        for _ in range(self.depth if levels is None else min(levels, self.depth)):
            x = nn.relu(infer(x))
            found.append(enlarged + draw[1](nn.relu(draw[0](x))))
        if levels is not None and levels <= self.depth:
            return tuple(found)
        wide = jnp.promote_types(enlarged.dtype, jnp.float32)
        weights = self.param("weights", nn.initializers.zeros, (self.depth,), wide)
        mean = jnp.tensordot(jax.nn.softmax(weights), jnp.stack(found), 1, precision="highest")
        return (*found, mean.astype(found[-1].dtype))
