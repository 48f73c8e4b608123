"""SRCNN (Dong, Loy, He and Tang): three convolutions on the bicubic enlargement.

Reference: "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 38 (2016).
"""

from typing import Any

import flax.linen as nn
from jax import Array

from jaxsr.errors import InputError
from jaxsr.models import luma
from jaxsr.models.luma import Network


class SRCNN(Network):
    """Patches, a non-linear map, a reconstruction: 9-5-5, 57,281 parameters by default.

    Attributes:
      factor: 2, 3, 4 or 8.
      sizes: of the three convolutions' filters, odd.
      features: of the first two.
      dtype: of the computation; by default the wider of the input's and the parameters'.
    """

    sizes: tuple[int, int, int] = (9, 5, 5)
    features: tuple[int, int] = (64, 32)
    dtype: Any = None

    def receptive_field(self, first: int, last: int, *, levels: int) -> tuple[int, int]:
        radius = sum(size // 2 for size in self.sizes)
        return luma.bicubic_field(first - radius, last + radius, self.factor)

    @nn.compact
    def __call__(self, image: Array, *, levels: int | None = None) -> tuple[Array, ...]:
        luma.check(self, image, levels)
        if len(self.sizes) != 3 or not all(size % 2 for size in self.sizes):
            raise InputError(f"`sizes` (={self.sizes}) must be three odd numbers")
        if len(self.features) != 2:
            raise InputError(f"`features` (={self.features}) must be two numbers")
        x = luma.bicubic(image, self.factor)
        for i, (features, size) in enumerate(zip((*self.features, 1), self.sizes, strict=True)):
            layer = luma.conv(x, features, f"conv_{i}", size=size, dtype=self.dtype)
            x = nn.relu(layer(x)) if i < 2 else layer(x)
        return (x,)
