"""Winograd's minimal filtering F(4x4, 3x3): a 3x3 convolution by matrix products on 6x6 tiles.

A tile of 6x6 inputs d and a 3x3 filter g give 4x4 outputs

    Y = A' [ (G g G') * (B' d B) ] A

with 36 multiplications a channel pair instead of 144 (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016, section 4). Summed over input channels, the elementwise
product is a batch of 36 matrix products. The filter's gradient is the same product transposed.

Each transform runs as two one-dimensional passes of slices and weighted sums.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

OUT = 4
TILE = OUT + 2

# Interpolation points 0, 1, -1, 2, -2 and infinity.
B = np.array(
    [
        [4, 0, 0, 0, 0, 0],
        [0, -4, 4, -2, 2, 4],
        [-5, -4, -4, -1, -1, 0],
        [0, 1, -1, 2, -2, -5],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
A = np.array(
    [
        [1, 0, 0, 0],
        [1, 1, 1, 1],
        [1, -1, 1, -1],
        [1, 2, 4, 8],
        [1, -2, 4, -8],
        [0, 0, 0, 1],
    ]
)


def _combine(matrix: np.ndarray, rows: Sequence[Array]) -> list[Array]:
    """`matrix @ rows` for a small constant matrix, skipping its zeros."""
    sums = []
    for weights in matrix:
        terms = [
            row if w == 1 else row * w.astype(row.dtype)
            for w, row in zip(weights, rows, strict=True)
            if w
        ]
        sums.append(sum(terms[1:], terms[0]))
    return sums


def _both(matrix: np.ndarray, grid: Array) -> Array:
    """`matrix` along both leading axes of (n, n, C, K): n to as many as it has rows."""
    rows = jnp.stack(_combine(matrix, list(grid)))
    return jnp.stack(_combine(matrix, list(rows.swapaxes(0, 1))), axis=1)


def _tiles(size: int) -> int:
    return -(-size // OUT)


def _transform(image: Array, matrix: np.ndarray) -> Array:
    """Apply `matrix` along rows, then columns, of the image's tiles, which begin every 4 pixels.

    (N, H, W, C) -> (36, N * tiles, C). A tile spans as many pixels as `matrix` has columns.
    """
    span = matrix.shape[1]
    n, height, width, channels = image.shape
    down, across = (height - span) // OUT + 1, (width - span) // OUT + 1
    rows = [image[:, k : k + OUT * (down - 1) + 1 : OUT] for k in range(span)]
    image = jnp.stack(_combine(matrix, rows))
    columns = [image[:, :, :, k : k + OUT * (across - 1) + 1 : OUT] for k in range(span)]
    image = jnp.stack(_combine(matrix, columns), axis=1)
    return image.reshape(TILE * TILE, n * down * across, channels)


def _assemble(products: Array, n: int, down: int, across: int) -> Array:
    """A' M A of every tile, laid side by side: (36, N * tiles, K) -> (N, 4 down, 4 across, K)."""
    products = products.reshape(TILE, TILE, n, down, across, -1)
    rows = jnp.stack(_combine(A.T, list(products)), axis=3)
    pixels = jnp.stack(_combine(A.T, list(rows)), axis=4)
    return pixels.reshape(n, OUT * down, OUT * across, -1)


def _pad(image: Array, before: int, height: int, width: int) -> Array:
    """Zeros: `before` at the top and left, the rest of (height, width) at the bottom and right."""
    _, h, w, _ = image.shape
    rows, columns = (before, height - before - h), (before, width - before - w)
    return jnp.pad(image, ((0, 0), rows, columns, (0, 0)))


def convolve(x: Array, w: Array, *, pad: int = 0) -> Array:
    """Correlate x (N, H, W, C) with w (3, 3, C, K) after `pad` zeros on every side.

    Returns:
      (N, H + 2 pad - 2, W + 2 pad - 2, K).
    """
    n, height, width, channels = x.shape
    height, width = height + 2 * pad - 2, width + 2 * pad - 2
    down, across = _tiles(height), _tiles(width)
    x = _pad(x, pad, OUT * down + 2, OUT * across + 2)
    filters = _both(G, w).reshape(TILE * TILE, channels, -1)
    products = jnp.einsum("atc,ack->atk", _transform(x, B.T), filters)
    return _assemble(products, n, down, across)[:, :height, :width]


def filter_gradient(x: Array, dy: Array) -> Array:
    """The gradient of `convolve` (without padding) with respect to w.

    Args:
      x: (N, H, W, C), the input.
      dy: (N, H - 2, W - 2, K), the gradient with respect to the output.

    Returns:
      (3, 3, C, K).
    """
    _, height, width, features = dy.shape
    down, across = _tiles(height), _tiles(width)
    x = _pad(x, 0, OUT * down + 2, OUT * across + 2)
    dy = _pad(dy, 0, OUT * down, OUT * across)
    products = jnp.einsum("atc,atk->ack", _transform(x, B.T), _transform(dy, A))
    return _both(G.T, products.reshape(TILE, TILE, -1, features))


def gradients(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """The gradients of `convolve` (without padding) with respect to x and w.

    Args:
      x: (N, H, W, C), the input.
      w: (3, 3, C, K), the filters.
      dy: (N, H - 2, W - 2, K), the gradient with respect to the output.

    Returns:
      Of the shapes of x and w.
    """
    return convolve(dy, w[::-1, ::-1].swapaxes(2, 3), pad=2), filter_gradient(x, dy)


def pays(x: jax.ShapeDtypeStruct | Array, w: jax.ShapeDtypeStruct | Array) -> bool:
    """Whether F(4x4, 3x3) beats im2col for the image x (N, H, W, C) and the filters w (3, 3, C, K).

    The filters' own transform, 36 C K numbers, has to be small against the tiles', 36 T (C + K).
    Only float32: half-precision numbers do not survive the transforms, whose weights reach 8 and
    1/24, and who computes in float64 wants the last digits.
    """
    n, height, width, _ = x.shape
    channels, features = w.shape[2:]
    tiles = n * (height - 2) * (width - 2) / OUT**2
    suits = w.shape[:2] == (3, 3) and x.dtype == jnp.float32
    return suits and tiles * (channels + features) >= 2 * channels * features
