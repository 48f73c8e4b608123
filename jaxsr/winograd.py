"""Winograd's minimal filtering: convolutions by matrix products on tiles of 6x6 pixels.

A tile of 6x6 inputs d and a 3x3 filter g give 4x4 outputs

    Y = A' [ (G g G') * (B' d B) ] A

with 36 multiplications a channel pair instead of 144: F(4x4, 3x3) of Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, section 4. With a 2x2 filter they give
5x5, in place of 100: F(5x5, 2x2). Summed over input channels, the elementwise product is a batch of
36 matrix products. The gradients are the adjoint: the same transforms and products transposed, and
one transform of the output's gradient serves both.

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


def _laid(pixels: Sequence[Array], step: int, axis: int) -> Array:
    """Tiles that begin `step` pixels apart along `axis`, summed where they overlap.

    Given are the first pixels of all tiles, their second, and so on. The result has a new axis
    after `axis`, of `step` pixels; where tiles overlap, there is one tile more.
    """
    overlap = len(pixels) - step

    def moved(x: Array, tiles: int) -> Array:
        edges = [(0, 0)] * x.ndim
        edges[axis] = (tiles, min(overlap, 1) - tiles)
        return jnp.pad(x, edges)

    sums = [moved(x, 0) for x in pixels[:step]]
    for i, x in enumerate(pixels[step:]):
        sums[i] += moved(x, 1)
    return jnp.stack(sums, axis + 1)


def _assemble(tiles: Array, matrix: np.ndarray, step: int, n: int, down: int, across: int) -> Array:
    """The adjoint of `_transform`: (36, N * tiles, C) -> (N, H, W, C).

    H is `step` * down, and one tile more where tiles overlap; W likewise.
    """
    tiles = tiles.reshape(TILE, TILE, n, down, across, -1)
    rows = _laid(_combine(matrix.T, list(tiles)), step, axis=2)
    image = _laid(_combine(matrix.T, list(rows)), step, axis=3)
    return image.reshape(n, -1, image.shape[3] * step, image.shape[5])


def _counts(height: int, width: int, taps: int) -> tuple[int, int, int]:
    """The side of a tile of outputs, and how many of them cover (height, width) outputs."""
    side = TILE + 1 - taps
    return side, -(-height // side), -(-width // side)


def _pad(image: Array, height: int, width: int) -> Array:
    """Zeros at the bottom and right, up to (height, width)."""
    _, h, w, _ = image.shape
    return jnp.pad(image, ((0, 0), (0, height - h), (0, width - w), (0, 0)))


def _input_tiles(x: Array, taps: int) -> Array:
    """B' d B of every tile, with zeros beyond the image: (36, N * tiles, C)."""
    side, down, across = _counts(x.shape[1] - taps + 1, x.shape[2] - taps + 1, taps)
    x = _pad(x, side * down + taps - 1, side * across + taps - 1)
    return _transform(x, B.T, side)


def _filters(w: Array) -> Array:
    """G g G': (36, C, K)."""
    return _both(G(len(w)), w).reshape(TILE * TILE, *w.shape[2:])


def convolve(x: Array, w: Array) -> Array:
    """Correlate x (N, H, W, C) with w (h, h, C, K), h = 2 or 3, without padding.

    Returns:
      (N, H - h + 1, W - h + 1, K).
    """
    taps = len(w)
    height, width = x.shape[1] - taps + 1, x.shape[2] - taps + 1
    side, down, across = _counts(height, width, taps)
    products = jnp.einsum("atc,ack->atk", _input_tiles(x, taps), _filters(w))
    y = _assemble(products, A(taps), side, len(x), down, across)
    return y[:, :height, :width]


def gradients(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """The gradients of `convolve` with respect to x and w: its transforms transposed, in turn.

    Args:
      x: (N, H, W, C), the input.
      w: (h, h, C, K), the filters.
      dy: (N, H - h + 1, W - h + 1, K), the gradient with respect to the output.

    Returns:
      Of the shapes of x and w.
    """
    taps = len(w)
    n, height, width, _ = dy.shape
    side, down, across = _counts(height, width, taps)
    products = _transform(_pad(dy, side * down, side * across), A(taps), side)
    filters = jnp.einsum("atc,atk->ack", _input_tiles(x, taps), products)
    dw = _both(G(taps).T, filters.reshape(TILE, TILE, *w.shape[2:]))
    tiles = jnp.einsum("atk,ack->atc", products, _filters(w))
    dx = _assemble(tiles, B.T, side, n, down, across)
    return dx[:, : x.shape[1], : x.shape[2]], dw


def pays(x: jax.ShapeDtypeStruct | Array, w: jax.ShapeDtypeStruct | Array) -> bool:
    """Whether `convolve` beats im2col for the image x (N, H, W, C) and the filters w (h, h, C, K).

    The filters' own transform, 36 C K numbers, may be at most three times that of the tiles,
    36 T (C + K); and of 2x2 filters, which save less, there must be enough.
    Only float32: half-precision numbers do not survive the transforms, whose weights reach 16 and
    1/24, and who computes in float64 wants the last digits.
    """
    n, height, width, _ = x.shape
    taps, _, channels, features = w.shape
    side = TILE + 1 - taps
    tiles = n * (height - taps + 1) * (width - taps + 1) / side**2
    square = w.shape[:2] == (3, 3) or (w.shape[:2] == (2, 2) and channels >= 32)
    suits = square and x.dtype == jnp.float32
    return suits and 3 * tiles * (channels + features) >= channels * features
