"""im2col: a convolution as one matrix product, in which every output's window is a row.

What the product reads is each pixel as often as the filter has taps: right for few pixels, strides,
and the numbers that Winograd's transforms (`jaxsr.winograd`) do not suit.
"""

import math

import jax.numpy as jnp
from jax import Array


def window(x: Array, i: int, j: int, height: int, width: int, stride: int) -> Array:
    """The pixels of x that filter tap (i, j) meets, one for each of height x width outputs."""
    rows = slice(i, i + stride * (height - 1) + 1, stride)
    columns = slice(j, j + stride * (width - 1) + 1, stride)
    return x[:, rows, columns]


def windows(x: Array, w: Array, stride: int) -> Array:
    """Every output's window as one row: (N, H, W, C) -> (N, H', W', h w C)."""
    h, k = w.shape[:2]
    height, width = (x.shape[1] - h) // stride + 1, (x.shape[2] - k) // stride + 1
    taps = [window(x, i, j, height, width, stride) for i in range(h) for j in range(k)]
    return taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)


def _col2im(columns: Array, w: Array, stride: int, height: int, width: int) -> Array:
    """The adjoint of `windows`, one sub-pixel phase at a time, so that no zeros are multiplied."""
    h, k, channels, _ = w.shape
    n, rows, cols, _ = columns.shape
    taps = columns.reshape(n, rows, cols, h, k, channels)
    reach_y, reach_x = (h - 1) // stride, (k - 1) // stride

    def phase(a: int, b: int) -> Array:
        total = jnp.zeros((n, rows + reach_y, cols + reach_x, channels), columns.dtype)
        for i in range(a, h, stride):
            for j in range(b, k, stride):
                y, z = i // stride, j // stride
                edges = ((0, 0), (y, reach_y - y), (z, reach_x - z), (0, 0))
                total = total + jnp.pad(taps[:, :, :, i, j], edges)
        return total

    phases = [jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)]
    image = jnp.stack(phases, 2).reshape(
        n, stride * (rows + reach_y), stride * (cols + reach_x), channels
    )
    missing_y, missing_x = max(0, height - image.shape[1]), max(0, width - image.shape[2])
    image = jnp.pad(image, ((0, 0), (0, missing_y), (0, missing_x), (0, 0)))
    return image[:, :height, :width]


def convolve(x: Array, w: Array, *, stride: int = 1) -> Array:
    """Correlate x (N, H, W, C) with w (h, w, C, K), without padding, in steps of `stride`.

    Returns:
      (N, (H - h) // stride + 1, (W - w) // stride + 1, K).
    """
    return windows(x, w, stride) @ w.reshape(-1, w.shape[3])


def gradients(x: Array, w: Array, dy: Array, *, stride: int = 1) -> tuple[Array, Array]:
    """The gradients of `convolve` with respect to x and w, given that with respect to its output.

    Returns:
      Of the shapes of x and w.
    """
    h, k, channels, features = w.shape
    # A 1x1 filter's few sums over many pixels are faster in parts: no transposed copy of the image.
    blocks = math.gcd(math.prod(dy.shape[:3]), 4) if h == k == 1 else 1
    rows = windows(x, w, stride).reshape(blocks, -1, h * k * channels)
    dw = jnp.einsum("bpc,bpk->bck", rows, dy.reshape(blocks, -1, features)).sum(0)
    wide = jnp.promote_types(x.dtype, jnp.float32)  # a half would be rounded once a tap
    columns = jnp.matmul(dy, w.reshape(-1, features).T, preferred_element_type=wide)
    dx = _col2im(columns, w, stride, *x.shape[1:3]).astype(x.dtype)
    return dx, dw.reshape(w.shape)
