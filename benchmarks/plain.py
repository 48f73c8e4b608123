"""The plain form of each trick: what stands in for it while `benchmarks.tricks` compiles."""

import contextlib
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsr import convolution, im2col, layers, models, winograd


class Plain(NamedTuple):
    """What stands in for one trick while a program is compiled."""

    patch: contextlib.AbstractContextManager = contextlib.nullcontext()
    network: Mapping[str, Any] = types.MappingProxyType({})  # of the skip U-Net
    recipe: Mapping[str, Any] = types.MappingProxyType({})  # of LapSRN's training


def derived(which: Callable[[Array], bool]) -> Callable[..., tuple[Array, Array]]:
    """im2col's gradients; where `which` holds for the filter, as JAX derives them."""
    own = im2col.gradients

    def gradients(x: Array, w: Array, dy: Array, *, stride: int = 1) -> tuple[Array, Array]:
        if not which(w):
            return own(x, w, dy, stride=stride)
        dx, dw = jax.vjp(functools.partial(im2col.convolve, stride=stride), x, w)[1](dy)
        return dx, dw

    return gradients


def zeros_between(x: Array, w: Array, stride: int, first: int) -> Array:
    """`convolution.conv_transpose` as a convolution of the image spread with zeros."""
    edge = (w.shape[0] - 1,) * 2
    whole = lax.conv_general_dilated(
        x,
        w[::-1, ::-1],
        (1, 1),
        (edge, edge),
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    height, width = (stride * side for side in x.shape[1:3])
    return whole[:, first : first + height, first : first + width]


def resized(x: Array) -> Array:
    """`resample.double_bilinear` by JAX's dense matrices."""
    n, height, width, channels = x.shape
    return jax.image.resize(x, (n, 2 * height, 2 * width, channels), "bilinear")


def by_convolution(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """`winograd.gradients`, the image's as the convolution that it is: of dy, transformed anew."""
    edge = (len(w) - 1,) * 2
    padded = jnp.pad(dy, ((0, 0), edge, edge, (0, 0)))
    return winograd.convolve(padded, w[::-1, ::-1].swapaxes(2, 3)), ADJOINT(x, w, dy)[1]


def for_3x3_alone(pays: Callable[[Array, Array], bool]) -> Callable[[Array, Array], bool]:
    """When Winograd's method is chosen, if never for 2x2 filters."""
    return lambda x, w: len(w) == 3 and pays(x, w)


def whole(function: Callable[..., Array], x: Array, *parameters: Any, **_: int) -> Array:
    """`strips.by_rows` in one piece."""
    return function(x, *parameters)


WINOGRAD = Plain(mock.patch.object(winograd, "pays", lambda *_: False))
ADJOINT = winograd.gradients
CONVOLVED = Plain(mock.patch.object(winograd, "gradients", by_convolution))
PAIRS = Plain(mock.patch.object(winograd, "pays", for_3x3_alone(winograd.pays)))

DIP: dict[str, Plain] = {
    "Winograd's method": WINOGRAD,
    "its gradient as the adjoint": CONVOLVED,
    "im2col's gradient by phases": Plain(
        mock.patch.object(im2col, "gradients", derived(lambda w: w.shape[:2] != (1, 1)))
    ),
    "1x1 filters' gradient in four parts": Plain(
        mock.patch.object(im2col, "gradients", derived(lambda w: w.shape[:2] == (1, 1)))
    ),
    "the norm's own gradient": Plain(
        mock.patch.object(layers, "_norm", lambda *args: layers._norm_forward(*args)[0])
    ),
    "doubling by slices": Plain(network={"double": resized}),
}
IMAGE: dict[str, Plain] = {
    "Winograd's method": WINOGRAD,
    "the same for 2x2 filters": PAIRS,
    "the last features in strips": Plain(mock.patch.object(models.lapsrn, "by_rows", whole)),
}
TRAINING: dict[str, Plain] = {
    "Winograd's method": WINOGRAD,
    "its gradient as the adjoint": CONVOLVED,
    "the same for 2x2 filters": PAIRS,
    "few features: products, then shifts": Plain(
        mock.patch.object(convolution, "_is_narrow", lambda *_: False)
    ),
    "transposed convolution by phases": Plain(
        mock.patch.object(models.luma, "conv_transpose", zeros_between)
    ),
    "the gradient in four parts": Plain(recipe={"parts": 1}),
}
