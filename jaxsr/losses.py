"""Losses, elementwise: `loss(prediction, target)` has its arguments' shape; the caller reduces.

They are functions of the residual d = prediction - target of floats (unsigned integers would wrap
around), whatever its unit; the defaults suit images in [0, 1].
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxsr.errors import InputError, as_float, require_floats, require_functions

Loss = Callable[[Array, Array], Array]
_HALVES = (jnp.float16, jnp.bfloat16)


def mse(prediction: Array, target: Array) -> Array:
    """d^2."""
    return (prediction - target) ** 2


def l1(prediction: Array, target: Array) -> Array:
    """|d|, of gradient 0 at 0 as in PyTorch."""
    return _abs(prediction - target)


def charbonnier(prediction: Array, target: Array, *, epsilon: float = 1e-3) -> Array:
    """sqrt(d^2 + epsilon^2), a smooth |d|; epsilon above 0 (`l1` alone has a slope at d = 0).

    Reference: Charbonnier et al., IEEE TIP 6 (1997); Indulkar and Upadhyay, eq. 1.
    """
    d = prediction - target
    if (narrow := jnp.result_type(d)) in _HALVES:  # in which a square may be 0 or overflow
        return charbonnier(d.astype(jnp.float32), jnp.float32(0), epsilon=epsilon).astype(narrow)
    return jnp.sqrt(d**2 + epsilon**2)


def huber(prediction: Array, target: Array, *, delta: float = 0.01) -> Array:
    """d^2 / 2 up to |d| = delta > 0, then the tangent delta (|d| - delta / 2) (Huber, 1964)."""
    size = jnp.abs(prediction - target)
    inside = jnp.minimum(size, delta)
    return inside * (size - inside / 2)


def general(alpha: float, *, scale: float = 0.05) -> Loss:
    """Barron's general robust loss of shape `alpha` and width `scale`.

    rho(d) = b / alpha ((x / b + 1)^(alpha / 2) - 1) with x = (d / scale)^2 and b = |alpha - 2|, and
    its limits: alpha 2 is x / 2, 0 is log(x / 2 + 1), -inf is 1 - exp(-x / 2). With alpha 1 it is
    the Charbonnier loss with epsilon = scale, less epsilon, over epsilon.

    Reference: Barron, "A General and Adaptive Robust Loss Function", CVPR 2019, eq. 1 and 8.

    Args (concrete, not traced):
      alpha: any real number or -inf; the smaller, the less an outlier weighs. Within 1e-6 of 0 it
        counts as 0.
      scale: above 0, in units of the residual: the width of the quadratic bowl.

    Raises:
      InputError: alpha is NaN or +inf, scale is not above 0 or infinite, or one is no number.
    """
    alpha, scale = as_float("alpha", alpha), as_float("scale", scale)
    if math.isnan(alpha) or alpha == math.inf:
        raise InputError(f"`alpha` (={alpha}) must be a real number or -inf")
    if not 0 < scale < math.inf:
        raise InputError(f"`scale` (={scale}) must be above 0, and finite")

    return _General(alpha, scale)


@dataclasses.dataclass(frozen=True)
class _General:
    """Equal ones are one to `jax.jit`."""

    alpha: float
    scale: float

    def __call__(self, prediction: Array, target: Array) -> Array:
        d = prediction - target
        if (narrow := jnp.result_type(d)) in _HALVES:  # b / alpha may overflow
            return self(d.astype(jnp.float32), jnp.float32(0)).astype(narrow)
        alpha, x = self.alpha, (d / self.scale) ** 2
        if alpha == 2:
            return x / 2
        largest = float(jnp.finfo(jnp.result_type(x)).max)
        if abs(alpha) > largest**0.75:  # as good as infinite, and x / b would underflow
            sign = math.copysign(1, alpha)
            return sign * _expm1(sign * x / 2)
        if abs(alpha) < 1e-6:  # the limit; float32 would lose smaller ones altogether
            return jnp.log1p(x / 2)
        # (1 + x / b)^(alpha / 2) - 1 without cancellation as alpha nears 0 or x nears 0.
        b = abs(alpha - 2)
        return b / alpha * _expm1(alpha / 2 * jnp.log1p(x / b))


@jax.custom_jvp
def _expm1(x: Array) -> Array:
    """exp(x) - 1 of derivative exp(x): that of `jnp.expm1` is itself + 1, which cancels below 0."""
    return jnp.expm1(x)


@_expm1.defjvp
def _expm1_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _expm1(*primals), jnp.exp(primals[0]) * tangents[0]


def _abs(d: Array) -> Array:
    """|d| with gradient 0 at 0, where that of `jnp.abs` is 1."""
    return d * jnp.sign(d)


LOSSES: dict[str, Loss] = {"mse": mse, "l1": l1, "charbonnier": charbonnier, "huber": huber}


def pyramid(
    predictions: Sequence[Array],
    targets: Sequence[Array],
    *,
    weights: Sequence[float],
    loss: Loss = charbonnier,
) -> Array:
    """w_1 L_1 + ... + w_L L_L, each L_l the mean of `loss` over its level.

    Reference: Indulkar and Upadhyay, "Robust Loss with Deep Image Prior", eq. 2.

    Args:
      predictions, targets: one image a level, any shapes that agree.
      weights: one a level, in the same order.

    Raises:
      InputError: their numbers or a level's shapes differ, or there are none; or `loss` is no
        function.
    """
    require_functions(loss=loss)
    counts = len(predictions), len(targets), len(weights)
    if len(set(counts)) > 1 or not counts[0]:
        raise InputError(
            "`predictions`, `targets` and `weights` (={}, {} and {} of them) must be one each for "
            "every level, of which there is at least one".format(*counts)
        )
    levels = list(zip(weights, predictions, targets, strict=True))
    for _, x, y in levels:
        if x.shape != y.shape:
            raise InputError(f"a level's images must be alike: {x.shape}, {y.shape}")
    return functools.reduce(jnp.add, [w * loss(x, y).mean() for w, x, y in levels])


def total_variation(image: Array) -> Array:
    """The mean of |right - pixel| plus the mean of |below - pixel|, (..., H, W, C) -> ().

    Of a single row or column, which has no such neighbour, that mean is 0.

    Reference: Rudin, Osher and Fatemi, Physica D 60 (1992), in its anisotropic form.

    Raises:
      InputError: the image has fewer than three axes, or holds no floats.
    """
    if image.ndim < 3:
        raise InputError(f"the image (of shape {image.shape}) must be (..., H, W, C)")
    require_floats("the image", image.dtype)
    differences = jnp.diff(image, axis=-2), jnp.diff(image, axis=-3)
    zero = jnp.zeros_like(image, shape=())
    return sum((_abs(d).mean() for d in differences if d.size), start=zero)
