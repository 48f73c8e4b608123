"""When to stop: where the outputs vary least (ES-EMV).

On its way to the noise a fit passes the clean image, and moves slowest there: so the exponential
moving variance of the outputs has its minimum near the peak of their quality, without a look at the
truth. Reference: Wang et al., "Early Stopping for Deep Image Prior", arXiv:2112.06074, ES-EMV.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

FORGET = 0.1  # the authors' alpha: the weight of the newest output


class Detection(NamedTuple):
    """What is known of the minimum so far; images are (N, H, W, C)."""

    mean: Array  # moving average of the outputs
    variance: Array  # about it, moving as well, ()
    least: Array  # of the variances so far, ()
    best: Array  # the result as it was then
    iteration: Array  # after which that was, ()


def start(shape: tuple[int, ...], dtype: Any) -> Detection:
    """Before the first output, an image of this shape."""
    zero = jnp.zeros((), dtype)
    return Detection(
        mean=jnp.zeros(shape, dtype),
        variance=zero,
        least=zero + jnp.inf,
        best=jnp.zeros(shape, dtype),
        iteration=jnp.zeros((), jnp.int32),
    )


def update(detection: Detection, output: Array, result: Array, iteration: Array) -> Detection:
    """With one more output.

    mean += a (x - mean), variance = (1 - a) (variance + a |x - mean before|^2), |.|^2 the mean over
    pixels; the variance, which starts from 0, is divided by 1 - (1 - a)^n after its n updates, else
    the first would be the least.

    Args:
      output: the network's, x.
      result: what is kept of this iteration, should its variance be the least.
      iteration: from 1.
    """
    off = output - detection.mean
    first = iteration == 1
    mean = jnp.where(first, output, detection.mean + FORGET * off)
    variance = (1 - FORGET) * (detection.variance + FORGET * jnp.mean(off**2))
    variance = jnp.where(first, 0, variance)
    found = bias_corrected(variance, iteration)
    better = found < detection.least
    return Detection(
        mean=mean,
        variance=variance,
        least=jnp.where(better, found, detection.least),
        best=jnp.where(better | first, result, detection.best),
        iteration=jnp.where(better | first, iteration, detection.iteration),
    )


def bias_corrected(variance: Array, iteration: Array) -> Array:
    """A detection's variance after an iteration, from 1, over the weight of what it has seen."""
    updates = jnp.maximum(iteration - 1, 1).astype(variance.dtype)
    return jnp.where(iteration == 1, jnp.inf, variance / (1 - (1 - FORGET) ** updates))
