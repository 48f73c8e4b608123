"""The convolution, and its transpose.

What is computed depends on the platform here and in `jaxsr.strips` alone. On GPU and TPU the
convolution is `lax.conv_general_dilated`, untouched. XLA's CPU back end has no fast call for a
convolution's gradients, least of all inside a `fori_loop`, where they run 14 times slower and more
(https://github.com/jax-ml/jax/issues/12868); there, the convolution is written as matrix products,
which are fast everywhere: by Winograd's method for 3x3 and 2x2 filters on images, else by im2col.
Larger filters are XLA's forwards, for which it has a call that is fast in loops too, and have the
gradients of a sum of 3x3 filters.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsr import im2col, winograd

Forward = Callable[[Array, Array], Array]
Backward = Callable[[Array, Array, Array], tuple[Array, Array]]
Padding = str | Sequence[tuple[int, int]]


def _is_narrow(w: Array, stride: int) -> bool:
    """Whether a filter has several taps, yet fewer for all features than channels to look at."""
    h, k, channels, features = w.shape
    return stride == 1 and h * k > 1 and h * k * features < channels


def _narrow_forward(x: Array, w: Array) -> Array:
    """Products first, then their shifted sum: the image is read once, not once a tap."""
    h, k, channels, features = w.shape
    height, width = x.shape[1] - h + 1, x.shape[2] - k + 1
    wide = jnp.promote_types(x.dtype, jnp.float32)  # a half would be rounded once a tap
    flat = w.transpose(2, 0, 1, 3).reshape(channels, -1)
    taps = jnp.matmul(x, flat, preferred_element_type=wide).reshape(*x.shape[:3], h, k, features)
    pairs = [(i, j) for i in range(h) for j in range(k)]
    shifted = [im2col.window(taps[:, :, :, i, j], i, j, height, width, 1) for i, j in pairs]
    return functools.reduce(jnp.add, shifted).astype(x.dtype)


def _narrow_backward(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    h, k, channels, features = w.shape
    dy = jnp.pad(dy, ((0, 0), (h - 1, h - 1), (k - 1, k - 1), (0, 0)))
    windows = im2col.windows(dy, w, 1).reshape(-1, h * k * features)
    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, channels)
    dw = (windows.T @ x.reshape(-1, channels)).reshape(h, k, features, channels)
    return (windows @ flipped).reshape(x.shape), dw[::-1, ::-1].swapaxes(2, 3)


def _by_3x3(x: Array, w: Array) -> tuple[Array, Array]:
    """An image and 3x3 filters of the same correlation, for filters of any size.

    A large filter is a sum of 3x3 filters, each moved by multiples of 3 pixels: they are stacked
    along the channels, and so is the image, once for each, moved.
    """
    h, k, channels, features = w.shape
    down, across = -(-h // 3), -(-k // 3)
    height, width = x.shape[1] - h + 3, x.shape[2] - k + 3
    missing = ((0, 3 * down - h), (0, 3 * across - k))
    w = jnp.pad(w, (*missing, (0, 0), (0, 0))).reshape(down, 3, across, 3, channels, features)
    x = jnp.pad(x, ((0, 0), *missing, (0, 0)))
    moved = [
        im2col.window(x, 3 * i, 3 * j, height, width, 1) for i in range(down) for j in range(across)
    ]
    return jnp.concatenate(moved, -1), w.transpose(1, 3, 0, 2, 4, 5).reshape(3, 3, -1, features)


def _large_forward(x: Array, w: Array) -> Array:
    """XLA's own call, with a column of zeros at the edge: without any it is four times as slow."""
    return _lax(x, w, 1, ((0, 0), (0, 1)))[:, :, :-1]


def _large_backward(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    stacked, pull = jax.vjp(_by_3x3, x, w)
    return pull(winograd.gradients(*stacked, dy))


def _lax(x: Array, w: Array, stride: int, padding: Padding = "VALID") -> Array:
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _is_left_to_lax(x: Array, w: Array) -> bool:
    """Whether an image is of a size that is not known yet, or smaller than the filter."""
    sides = zip(x.shape[1:3], w.shape[:2], strict=True)
    known = all(isinstance(side, int) for side in x.shape)
    return not known or any(side < taps for side, taps in sides)


def _lax_backward(x: Array, w: Array, dy: Array, stride: int) -> tuple[Array, Array]:
    return jax.vjp(functools.partial(_lax, stride=stride), x, w)[1](dy)


def lowering(x: Array, w: Array, stride: int) -> tuple[Forward, Backward]:
    """How `conv` is computed on a CPU: the functions of its value and of its gradients.

    The bounds are where measured times cross ("Speed" in the documentation), except one, found by
    counting operations: filters of more than 9 taps with a side below 3 have im2col's gradients.
    """
    h, k, channels, features = w.shape
    if stride == 1 and h * k > 9 and w.dtype == jnp.float32:
        products = h * k * features / channels  # one a tap, beside the image
        window = h * k * channels / features  # a row of im2col's, beside the output
        suits = min(h, k) >= 3 and winograd.pays(*jax.eval_shape(_by_3x3, x, w))
        backward = _large_backward if suits and window > 2 else im2col.gradients
        return (
            _narrow_forward if products <= 2 else _large_forward,
            _narrow_backward if products <= 4 else backward,
        )
    if _is_narrow(w, stride):
        return _narrow_forward, _narrow_backward
    if stride == 1 and winograd.pays(x, w):
        return winograd.convolve, winograd.gradients
    return (
        functools.partial(im2col.convolve, stride=stride),
        functools.partial(im2col.gradients, stride=stride),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Array, w: Array, stride: int = 1) -> Array:
    """Correlate x (N, H, W, C) with w (h, w, C, K), without padding, in steps of `stride`.

    Equal to `lax.conv_general_dilated`; the lowering is chosen by platform (see the module), or is
    `lax`'s where the image's size is symbolic (`jax.export`). Its gradient is reverse-mode only
    (`jax.custom_vjp`): neither `jax.jvp` nor `jax.jacfwd` passes through.

    Returns:
      (N, (H - h) // stride + 1, (W - w) // stride + 1, K).
    """
    if _is_left_to_lax(x, w):
        return _lax(x, w, stride)
    return lax.platform_dependent(
        x,
        w,
        cpu=lowering(x, w, stride)[0],
        default=functools.partial(_lax, stride=stride),
    )


def _conv_forward(x: Array, w: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv(x, w, stride), (x, w)


def _conv_backward(stride: int, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    if _is_left_to_lax(*kept):
        return _lax_backward(*kept, dy, stride)
    return lax.platform_dependent(
        *kept,
        dy,
        cpu=lowering(*kept, stride)[1],
        default=functools.partial(_lax_backward, stride=stride),
    )


conv.defvjp(_conv_forward, _conv_backward)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Padding,
    **settings: Any,
) -> Array:
    """`conv` under the signature of `lax.conv_general_dilated`, for Flax's `nn.Conv`.

    What `conv` does not cover (dilation, groups, other layouts, unequal strides) goes to `lax`.
    """
    plain = (
        lhs.ndim == 4
        and len(set(window_strides)) == 1
        and not isinstance(padding, str)
        and min(min(edges) for edges in padding) >= 0
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


def conv_transpose(x: Array, w: Array, stride: int, first: int) -> Array:
    """Spread w (h, h, C, K) from every pixel of x (N, H, W, C), `stride` apart, and sum.

    As one convolution of `stride`**2 sub-pixel phases: gradients of an image spread with zeros
    would be slow on every platform (https://github.com/jax-ml/jax/issues/23783).

    Returns:
      (N, stride H, stride W, K), from row and column `first` of the whole sum.
    """
    taps = -(-w.shape[0] // stride)
    height, width = x.shape[1:3]
    channels, features = w.shape[2:]
    missing = taps * stride - w.shape[0]
    w = jnp.pad(w, ((0, missing), (0, missing), (0, 0), (0, 0)))
    phases = w.reshape(taps, stride, taps, stride, channels, features)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, channels, -1)
    edge = (taps - 1, taps - 1)
    x = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))
    # XLA would fold these zeros into the filter's gradient, whose "filter" dy is then larger than
    # x: it swaps the two, and on a GPU finds no kernel for gradients of filters any more.
    x = lax.platform_dependent(x, cpu=lambda x: x, default=lax.optimization_barrier)
    sums = conv(x, phases)
    n, rows, columns, _ = sums.shape
    pixels = sums.reshape(n, rows, columns, stride, stride, features).swapaxes(2, 3)
    pixels = pixels.reshape(n, stride * rows, stride * columns, features)
    return pixels[:, first : first + stride * height, first : first + stride * width]
