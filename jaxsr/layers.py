"""What the networks are made of: the convolution, reflection padding, the norm.

The convolution is the one place in the package that knows about platforms. On GPU and TPU it is
`lax.conv_general_dilated`, untouched. XLA's CPU back end turns convolutions into fast calls only
outside loops, so that their gradients inside a `fori_loop` run up to 14 times slower
(https://github.com/jax-ml/jax/issues/12868); there, the convolution is written as matrix products,
which are fast everywhere: by Winograd's method for 3x3 filters on images, else by im2col.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsr import winograd

Dtype = Any


def _window(x: Array, i: int, j: int, height: int, width: int, stride: int) -> Array:
    """The pixels of x that filter tap (i, j) meets, one for each of height x width outputs."""
    rows = slice(i, i + stride * (height - 1) + 1, stride)
    columns = slice(j, j + stride * (width - 1) + 1, stride)
    return x[:, rows, columns]


def _im2col(x: Array, w: Array, stride: int) -> Array:
    """Every output's window as one row: (N, H, W, C) -> (N, H', W', h w C)."""
    h, k = w.shape[:2]
    height, width = (x.shape[1] - h) // stride + 1, (x.shape[2] - k) // stride + 1
    taps = [_window(x, i, j, height, width, stride) for i in range(h) for j in range(k)]
    return taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)


def _col2im(columns: Array, w: Array, stride: int, height: int, width: int) -> Array:
    """The adjoint of `_im2col`, one sub-pixel phase at a time, so that no zeros are multiplied."""
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


def _matmul_forward(x: Array, w: Array, stride: int) -> Array:
    h, k = w.shape[:2]
    if stride == 1 and winograd.pays(x, w, x.shape[0] * (x.shape[1] - 2) * (x.shape[2] - 2)):
        return winograd.convolve(x, w)
    return _im2col(x, w, stride) @ w.reshape(-1, w.shape[3])


def _matmul_backward(x: Array, w: Array, dy: Array, stride: int) -> tuple[Array, Array]:
    n, height, width, _ = x.shape
    h, k, channels, features = w.shape
    if stride == 1 and winograd.pays(x, w, math.prod(dy.shape[:3])):
        flipped = w[::-1, ::-1].swapaxes(2, 3)
        return winograd.convolve(dy, flipped, pad=2), winograd.filter_gradient(x, dy)
    # A 1x1 filter's few sums over many pixels are faster in parts: no transposed copy of the image.
    blocks = math.gcd(math.prod(dy.shape[:3]), 4) if h == k == 1 else 1
    columns = _im2col(x, w, stride).reshape(blocks, -1, h * k * channels)
    dw = jnp.einsum("bpc,bpk->bck", columns, dy.reshape(blocks, -1, features)).sum(0)
    dw = dw.reshape(w.shape)
    return _col2im(dy @ w.reshape(-1, features).T, w, stride, height, width), dw


def _lax(x: Array, w: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, w, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _lax_backward(x: Array, w: Array, dy: Array, stride: int) -> tuple[Array, Array]:
    return jax.vjp(functools.partial(_lax, stride=stride), x, w)[1](dy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Array, w: Array, stride: int = 1) -> Array:
    """Correlate x (N, H, W, C) with w (h, w, C, K), without padding, in steps of `stride`.

    Equal to `lax.conv_general_dilated`; the lowering is chosen by platform (see the module).

    Returns:
      (N, (H - h) // stride + 1, (W - w) // stride + 1, K).
    """
    return lax.platform_dependent(
        x,
        w,
        cpu=functools.partial(_matmul_forward, stride=stride),
        default=functools.partial(_lax, stride=stride),
    )


def _conv_forward(x: Array, w: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv(x, w, stride), (x, w)


def _conv_backward(stride: int, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    return lax.platform_dependent(
        *kept,
        dy,
        cpu=functools.partial(_matmul_backward, stride=stride),
        default=functools.partial(_lax_backward, stride=stride),
    )


conv.defvjp(_conv_forward, _conv_backward)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **settings: Any,
) -> Array:
    """`conv` under the signature of `lax.conv_general_dilated`, for Flax's `nn.Conv`.

    What `conv` does not cover (dilation, groups, other layouts, unequal strides) goes to `lax`.
    """
    plain = (
        lhs.ndim == 4
        and len(set(window_strides)) == 1
        and not isinstance(padding, str)
        and set(settings.get("lhs_dilation") or (1,)) == {1}
        and set(settings.get("rhs_dilation") or (1,)) == {1}
        and settings.get("feature_group_count", 1) == 1
        and settings.get("batch_group_count", 1) == 1
        and settings.get("precision") is None
        and settings.get("preferred_element_type") is None
        and _is_channels_last(settings.get("dimension_numbers"))
    )
    if not plain:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **settings)
    if any(edge for edges in padding for edge in edges):
        lhs = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    return conv(lhs, rhs, window_strides[0])


def _is_channels_last(numbers: Any) -> bool:
    if isinstance(numbers, lax.ConvDimensionNumbers):
        return numbers == lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    return numbers == ("NHWC", "HWIO", "NHWC")


def reflect_pad(x: Array) -> Array:
    """One pixel on every side of (N, H, W, C), mirrored without repeating the edge."""
    x = jnp.concatenate([x[:, 1:2], x, x[:, -2:-1]], axis=1)
    return jnp.concatenate([x[:, :, 1:2], x, x[:, :, -2:-1]], axis=2)


def uniform_fan_in(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initialiser of convolutions, weights and biases: U(+-1 / sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """A convolution with bias under reflection padding, initialised as in PyTorch.

    Maps (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), features); `size` is 1 or 3.
    """

    features: int
    size: int = 3
    stride: int = 1
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = uniform_fan_in(self.size**2 * x.shape[-1])
        return nn.Conv(
            self.features,
            (self.size, self.size),
            self.stride,
            padding=[(0, 0), (0, 0)],
            kernel_init=init,
            bias_init=init,
            dtype=self.dtype,
            param_dtype=jnp.promote_types(x.dtype, jnp.float32),
            conv_general_dilated=conv_general_dilated,
            name="conv",
        )(reflect_pad(x) if self.size == 3 else x)


class Norm(nn.Module):
    """Each channel of each image to mean 0 and variance 1, then scaled and shifted.

    Instance normalisation by the image's own (biased) statistics, in every call; for one image it
    is PyTorch's batch normalisation in training mode (Ioffe and Szegedy, 2015), epsilon 1e-5.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], wide.dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], wide.dtype)
        mean = wide.mean((1, 2), keepdims=True)
        centred = wide - mean
        variance = (centred**2).mean((1, 2), keepdims=True)
        y = (
            centred * (lax.rsqrt(variance + 1e-5) * scale[None, None, None])
            + bias[None, None, None]
        )
        return y.astype(x.dtype)
