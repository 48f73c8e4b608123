"""From the image to what was observed of it: plain linear functions.

An operator maps (N, H, W, C) to (N, h, w, C) in the dtype given, and any leading axes as well. It
may be jitted, mapped and differentiated; `jax.linear_transpose` gives its adjoint. Resizers are
pairs of small matrices that depend on the static shape alone, applied at full precision (no TF32).
Called with fewer than three axes, or where it computes with others than floats, it raises
`InputError` (`identity` takes anything). Operators of equal arguments are equal, so that `jax.jit`
finds a program for one again for the other.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import fourier, resample
from jaxsr.errors import (
    InputError,
    require_finite,
    require_floats,
    require_functions,
    require_integers,
)

Operator = Callable[[jax.Array], jax.Array]
Kernel = Literal[
    "lanczos2", "lanczos3", "pillow-lanczos", "pillow-bicubic", "matlab-bicubic", "area"
]


def identity(x: jax.Array) -> jax.Array:
    """All is observed: denoising."""
    return x


def downsample(factor: int, *, kernel: Kernel = "pillow-lanczos") -> Operator:
    """(N, H, W, C) to (N, H // factor, W // factor, C).

    Args:
      factor: a whole number from 2.
      kernel: how the low resolution was made. `lanczos2` and `lanczos3` are the strided
        convolution of Deep Image Prior (Ulyanov et al., CVPR 2018; replicated borders). The
        others equal a resizer asked for the size above, before it clips and rounds:
        `pillow-lanczos` and `pillow-bicubic` Pillow's `resize`, `matlab-bicubic` MATLAB's
        `imresize`, `area` the mean over each pixel's area.

    Any size from `factor` a side is taken. Where the factor does not divide it, a resizer's scale
    is that of the sizes, as in Pillow and MATLAB; the strided convolution leaves the remainder at
    the bottom and right unread, but for its border.

    Raises:
      InputError: `factor` or `kernel` is not one of these; in the call, a side is below `factor`.
    """
    require_integers(factor=factor, least=2)
    if kernel not in get_args(Kernel):
        raise InputError(f"`kernel` (={kernel!r}) must be one of {', '.join(get_args(Kernel))}")
    return _Downsample(int(factor), kernel)


@dataclasses.dataclass(frozen=True)
class _Downsample:
    factor: int
    kernel: Kernel

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = _size(x)
        if min(height, width) < self.factor:
            raise InputError(
                f"`factor` (={self.factor}) must be at most a side of {width}x{height}"
            )
        rows, cols = (_matrix(side, self.factor, self.kernel) for side in (height, width))
        return resample.separable(x, rows, cols)


def _size(x: jax.Array) -> tuple[int, int]:
    """Height and width of (..., H, W, C)."""
    if x.ndim < 3:
        raise InputError(f"the image (of shape {x.shape}) must be (..., H, W, C)")
    return x.shape[-3], x.shape[-2]


def _matrix(size: int, factor: int, kernel: str) -> np.ndarray:
    out = size // factor
    match kernel:
        case "lanczos2":
            return resample.strided_matrix(size, factor, 2)
        case "lanczos3":
            return resample.strided_matrix(size, factor, 3)
        case "matlab-bicubic":
            return resample.matlab_matrix(size, out / size, out)
        case "area":
            return resample.area_matrix(size, out)
        case _:
            return resample.pillow_matrix(size, out, kernel.removeprefix("pillow-"))


def require_observation(observation: jax.Array, operator: Operator, images: Any) -> None:
    """Refuses an observation that the operator cannot have made of such images.

    Args:
      images: arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      InputError: it holds no floats, or some that are not finite (but where it is traced); or its
        shape is another than the operator gives; or the operator is no function, or its result not
        one array of floats.
    """
    require_functions(operator=operator)
    require_floats("the observation", observation.dtype)
    require_finite("the observation", observation)
    seen = jax.eval_shape(operator, images)
    if not isinstance(seen, jax.ShapeDtypeStruct):
        raise InputError("the operator's result must be one array")
    require_floats("the operator's result", seen.dtype)
    if observation.shape != seen.shape:
        rule = f"must be of shape {seen.shape}: the operator's of {images.shape}"
        raise InputError(f"the observation (of shape {observation.shape}) {rule}")


def mask(observed: jax.Array | np.ndarray) -> Operator:
    """Keeps the pixels where `observed`, (H, W) or (H, W, 1 or C), is 1 and puts 0 where it is 0.

    `observed` may be traced.

    Raises:
      InputError: `observed` has another number of axes, or other values (but where it is traced);
        or in the call another size than the image.
    """
    traced = isinstance(observed, jax.core.Tracer)
    observed = observed if traced else np.asarray(observed)
    if observed.ndim not in (2, 3):
        raise InputError(f"`observed` (of shape {observed.shape}) must be (H, W) or (H, W, C)")
    if not traced and not np.isin(observed, (0, 1)).all():
        raise InputError("`observed` must hold nothing but 0 and 1")
    return _Mask(observed != 0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Held:
    """What an array makes an operator: equal where it is; of a traced one to itself alone."""

    array: jax.Array | np.ndarray

    @functools.cached_property
    def _key(self) -> object:
        if isinstance(self.array, jax.core.Tracer):
            return object()
        return self.array.shape, hashlib.sha256(self.array.tobytes()).digest()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)


class _Mask(_Held):
    def __call__(self, x: jax.Array) -> jax.Array:
        observed = self.array
        weights = observed.reshape(*observed.shape[:2], -1)
        if weights.shape[:2] != x.shape[-3:-1] or weights.shape[2] not in (1, x.shape[-1]):
            raise InputError(f"`observed` (of shape {observed.shape}) must fit the image {x.shape}")
        require_floats("the image", x.dtype)
        return jnp.where(jnp.broadcast_to(weights, x.shape), x, 0)


def blur(kernel: jax.Array | np.ndarray) -> Operator:
    """Convolution with a 2-D kernel (a point's image) of odd sides, replicated borders, size kept.

    By a pair of matrices where the kernel is separable, as a Gaussian's and a box's are, else, or
    where it is traced, by its spectrum (`jaxsr.fourier`). What should be 0 may then be -1e-7.

    Raises:
      InputError: `kernel` is not 2-D with odd sides, or holds a value that is not finite.
    """
    traced = isinstance(kernel, jax.core.Tracer)
    kernel = kernel if traced else np.array(kernel, np.float64)  # a copy
    if kernel.ndim != 2 or 0 in [side % 2 for side in kernel.shape]:
        rule = "must be 2-D with odd sides: give an even one a row or column of zeros more"
        raise InputError(f"`kernel` (of shape {kernel.shape}) {rule}")
    if not traced and not np.all(np.isfinite(kernel)):
        raise InputError("`kernel` must be finite: it holds NaN or infinite values")
    return _Blur(kernel)


class _Blur(_Held):
    def __call__(self, x: jax.Array) -> jax.Array:
        (height, width), kernel = _size(x), self.array
        if not isinstance(kernel, np.ndarray) or np.linalg.matrix_rank(kernel) > 1:
            return fourier.convolve(x, kernel)
        left, values, right = np.linalg.svd(kernel, full_matrices=False)
        rows = resample.convolution_matrix(height, left[:, 0] * values[0])
        return resample.separable(x, rows, resample.convolution_matrix(width, right[0]))


def crop(height: int, width: int) -> Operator:
    """The middle (N, height, width, C); of an odd surplus the larger part is cut at bottom and
    right. (`images.crop_to_multiple` rounds to even: of a surplus of 3 it starts a pixel later.)

    Raises:
      InputError: a side is no integer from 1, or in the call larger than the image's.
    """
    require_integers(height=height, width=width)
    return _Crop(int(height), int(width))


@dataclasses.dataclass(frozen=True)
class _Crop:
    height: int
    width: int

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = self.height, self.width
        rows, cols = _size(x)
        if height > rows or width > cols:
            raise InputError(f"the crop (={width}x{height}) must fit into the image {cols}x{rows}")
        top, left = (rows - height) // 2, (cols - width) // 2
        return x[..., top : top + height, left : left + width, :]


def compose(*operators: Operator) -> Operator:
    """Applies the operators from left to right; with none, the identity.

    Raises:
      InputError: one is no function.
    """
    for operator in operators:
        require_functions(operator=operator)
    return _Composition(operators)


@dataclasses.dataclass(frozen=True)
class _Composition:
    operators: tuple[Operator, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        return functools.reduce(lambda value, operator: operator(value), self.operators, x)
