"""Winograd's minimal filtering: convolutions by matrix products on tiles of 6x6 pixels.

A tile of 6x6 inputs d and a 3x3 filter g give 4x4 outputs

    Y = A' [ (G g G') * (B' d B) ] A

with 36 multiplications a channel pair instead of 144: F(4x4, 3x3) of Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, section 4. With a 2x2 filter they give
5x5, in place of 100: F(5x5, 2x2). Summed over input channels, the elementwise product is a batch of
36 matrix products. The filter's gradient is the same product transposed.

Each transform runs as two one-dimensional passes of slices and weighted sums.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

TILE = 6

# A polynomial is known by its values at these and its highest coefficient, its "value at infinity".
POINTS = np.array([0, 1, -1, 2, -2])
SCALES = np.array([4, -6, -6, 24, 24, 1])

# The input transform: B' d B.
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


def values(coefficients: int) -> np.ndarray:
    """The matrix (6, coefficients) from a polynomial's coefficients to its values."""
    infinity = np.eye(coefficients, dtype=int)[-1:]
    return np.vstack([np.vander(POINTS, coefficients, increasing=True), infinity])


def A(taps: int) -> np.ndarray:
    """The output transform, (6, 7 - taps), of filters of so many taps a side: Y = A' M A."""
    return values(TILE + 1 - taps)


def G(taps: int) -> np.ndarray:
    """The filter transform, (6, taps), of filters of so many taps a side: G g G'."""
    return values(taps) / SCALES[:, None]


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


def _transform(image: Array, matrix: np.ndarray, step: int) -> Array:
    """Apply `matrix` along rows, then columns, of the image's tiles, which begin `step` apart.

    (N, H, W, C) -> (36, N * tiles, C). A tile spans as many pixels as `matrix` has columns.
    """
    span = matrix.shape[1]
    n, height, width, channels = image.shape
    down, across = (height - span) // step + 1, (width - span) // step + 1
    rows = [image[:, k : k + step * (down - 1) + 1 : step] for k in range(span)]
    image = jnp.stack(_combine(matrix, rows))
    columns = [image[:, :, :, k : k + step * (across - 1) + 1 : step] for k in range(span)]
    image = jnp.stack(_combine(matrix, columns), axis=1)
    return image.reshape(TILE * TILE, n * down * across, channels)


def _assemble(products: Array, matrix: np.ndarray, n: int, down: int, across: int) -> Array:
    """A' M A of every tile, side by side: (36, N * tiles, K) -> (N, s down, s across, K)."""
    side = matrix.shape[1]
    products = products.reshape(TILE, TILE, n, down, across, -1)
    rows = jnp.stack(_combine(matrix.T, list(products)), axis=3)
    pixels = jnp.stack(_combine(matrix.T, list(rows)), axis=4)
    return pixels.reshape(n, side * down, side * across, -1)


def _pad(image: Array, before: int, height: int, width: int) -> Array:
    """Zeros: `before` at the top and left, the rest of (height, width) at the bottom and right."""
    _, h, w, _ = image.shape
    rows, columns = (before, height - before - h), (before, width - before - w)
    return jnp.pad(image, ((0, 0), rows, columns, (0, 0)))


def convolve(x: Array, w: Array, *, pad: int = 0) -> Array:
    """Correlate x (N, H, W, C) with w (h, h, C, K), h = 2 or 3, after `pad` zeros on every side.

    Returns:
      (N, H + 2 pad - h + 1, W + 2 pad - h + 1, K).
    """
    taps = w.shape[0]
    side = TILE + 1 - taps
    n, height, width, channels = x.shape
    height, width = height + 2 * pad - taps + 1, width + 2 * pad - taps + 1
    down, across = -(-height // side), -(-width // side)
    x = _pad(x, pad, side * down + taps - 1, side * across + taps - 1)
    filters = _both(G(taps), w).reshape(TILE * TILE, channels, -1)
    products = jnp.einsum("atc,ack->atk", _transform(x, B.T, side), filters)
    return _assemble(products, A(taps), n, down, across)[:, :height, :width]


def filter_gradient(x: Array, dy: Array) -> Array:
    """The gradient of `convolve` (without padding) with respect to w.

    Args:
      x: (N, H, W, C), the input.
      dy: (N, H - h + 1, W - h + 1, K), the gradient with respect to the output.

    Returns:
      (h, h, C, K).
    """
    _, height, width, features = dy.shape
    taps = x.shape[1] - height + 1
    side = TILE + 1 - taps
    down, across = -(-height // side), -(-width // side)
    x = _pad(x, 0, side * down + taps - 1, side * across + taps - 1)
    dy = _pad(dy, 0, side * down, side * across)
    products = jnp.einsum("atc,atk->ack", _transform(x, B.T, side), _transform(dy, A(taps), side))
    return _both(G(taps).T, products.reshape(TILE, TILE, -1, features))


def gradients(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """The gradients of `convolve` (without padding) with respect to x and w.

    Args:
      x: (N, H, W, C), the input.
      w: (h, h, C, K), the filters.
      dy: (N, H - h + 1, W - h + 1, K), the gradient with respect to the output.

    Returns:
      Of the shapes of x and w.
    """
    flipped = w[::-1, ::-1].swapaxes(2, 3)
    return convolve(dy, flipped, pad=len(w) - 1), filter_gradient(x, dy)


def pays(x: jax.ShapeDtypeStruct | Array, w: jax.ShapeDtypeStruct | Array) -> bool:
    """Whether `convolve` beats im2col for the image x (N, H, W, C) and the filters w (h, h, C, K).

    The filters' own transform, 36 C K numbers, may be at most twice the tiles', 36 T (C + K); and
    of 2x2 filters, which save less, there must be enough.
    Only float32: half-precision numbers do not survive the transforms, whose weights reach 16 and
    1/24, and who computes in float64 wants the last digits.
    """
    n, height, width, _ = x.shape
    taps, _, channels, features = w.shape
    side = TILE + 1 - taps
    tiles = n * (height - taps + 1) * (width - taps + 1) / side**2
    square = w.shape[:2] == (3, 3) or (w.shape[:2] == (2, 2) and channels >= 32)
    suits = square and x.dtype == jnp.float32
    return suits and 2 * tiles * (channels + features) >= channels * features
