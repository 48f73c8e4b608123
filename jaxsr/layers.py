"""What the networks are made of: convolution under reflection padding, and the norm."""

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
