"""What the networks are made of: convolution under reflection padding, and the norm."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsr.convolution import conv_general_dilated

Dtype = Any


def reflect_pad(x: Array) -> Array:
    """One pixel on every side of (N, H, W, C), mirrored without repeating the edge."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")


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
    """Each channel of each image to mean 0 and variance 1, scaled and shifted; then LeakyReLU.

    Instance normalisation by the image's own (biased) statistics, in every call; for one image it
    is PyTorch's batch normalisation in training mode (Ioffe and Szegedy, 2015), epsilon 1e-5.
    `slope` is LeakyReLU's; 1 leaves it out.
    """

    slope: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], wide)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], wide)
        return _norm(self.slope, x, scale, bias)


# With its own gradient, which reads x and dy alone: no copy of what lies between is kept for it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _norm(slope: float, x: Array, scale: Array, bias: Array) -> Array:
    return _norm_forward(slope, x, scale, bias)[0]


def _norm_forward(slope: float, x: Array, scale: Array, bias: Array) -> tuple[Array, Any]:
    wide = x.astype(_accurate(x, scale))
    mean = wide.mean((1, 2), keepdims=True)
    inverse = lax.rsqrt(((wide - mean) ** 2).mean((1, 2), keepdims=True) + 1e-5)
    y = (wide - mean) * (inverse * scale[None, None, None]) + bias[None, None, None]
    if slope != 1:
        y = jnp.where(y > 0, y, slope * y)
    return y.astype(x.dtype), (x, scale, bias, mean, inverse)


def _norm_backward(slope: float, kept: Any, dy: Array) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, inverse = kept
    wide = _accurate(x, scale)
    unit, dy = (x.astype(wide) - mean) * inverse, dy.astype(wide)
    if slope != 1:
        before = unit * scale[None, None, None] + bias[None, None, None]
        dy = jnp.where(before > 0, dy, slope * dy)
    along = (dy * unit).mean((1, 2), keepdims=True)
    flat = dy.mean((1, 2), keepdims=True)
    dx = (inverse * scale[None, None, None]) * (dy - flat - unit * along)
    pixels = x.shape[1] * x.shape[2]
    dscale, dbias = (pixels * mean.sum((0, 1, 2)) for mean in (along, flat))
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


def _accurate(x: Array, scale: Array) -> Dtype:
    """The type to compute statistics in: at least float32, whatever x and the parameters are."""
    return jnp.promote_types(jnp.promote_types(x.dtype, scale.dtype), jnp.float32)


_norm.defvjp(_norm_forward, _norm_backward)
