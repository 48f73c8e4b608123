"""VDSR (Kim, Lee and Lee): twenty convolutions that draw what the bicubic enlargement lacks.

Reference: "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016.
"""

from typing import Any

import flax.linen as nn
from jax import Array

from jaxsr.models import luma
from jaxsr.models.luma import Network


class VDSR(Network):
    """A deep residual of the enlarged image; 665,921 parameters by default.

    Attributes:
      factor: 2, 3, 4 or 8.
      depth: 3x3 convolutions in all.
      features: channels between them.
      dtype: of the computation; by default the wider of the input's and the parameters'.
    """

    depth: int = 20
    features: int = 64
    dtype: Any = None

    def receptive_field(self, first: int, last: int, *, levels: int) -> tuple[int, int]:
        return luma.bicubic_field(first - self.depth, last + self.depth, self.factor)

    @nn.compact
    def __call__(self, image: Array, *, levels: int | None = None) -> tuple[Array, ...]:
        luma.check(self, image, levels)
        x = enlarged = luma.bicubic(image, self.factor)
        for i in range(self.depth - 1):
            x = nn.relu(luma.conv(x, self.features, f"conv_{i}", dtype=self.dtype)(x))
        last = luma.conv(x, 1, f"conv_{self.depth - 1}", dtype=self.dtype)
        return (enlarged + last(x),)
