"""Functions of an image's rows, computed strip by strip where caches are small.

What lies between such a function's argument and its value then never exists as a whole.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

PIXELS = 8192  # of the argument, that a strip adds to the result
HUGE = 2**21  # the same, of devices without such caches
ROWS = 8  # at least, for each that a strip sees beyond them


def by_rows(
    function: Callable[..., Array], x: Array, *parameters: Any, scale: int, reach: int
) -> Array:
    """`function(x, *parameters)`, on a CPU from one strip of rows after another.

    Elsewhere only where the whole would be huge: a GPU's kernels may not count to 2^31 elements.

    Args:
      function: from (N, H, W, C) to (N, scale H, scale W, K) for any H; its rows that come of one
        row of x see `reach` rows more on either side, and nothing but borders depends on H.
      x: (N, H, W, C). It stays whole where it is hardly larger than a strip, or of a size that is
        not known yet (`jax.export` with symbolic shapes).
      parameters: trees of arrays.
    """
    if not all(isinstance(side, int) for side in x.shape):
        return function(x, *parameters)
    n, height, width, _ = x.shape
    few, many = (max(1, ROWS * reach, pixels // max(1, n * width)) for pixels in (PIXELS, HUGE))

    def strips(rows: int, x: Array, *parameters: Any) -> Array:
        length = rows + 2 * reach
        if height < 2 * length:
            return function(x, *parameters)
        whole = jax.eval_shape(function, x, *parameters)

        def body(i: Array, result: Array) -> Array:
            # A window ends where the image ends, so that borders are those of the whole image.
            first = jnp.minimum(i * rows, height - rows)
            start = jnp.clip(first - reach, 0, height - length)
            part = function(lax.dynamic_slice_in_dim(x, start, length, 1), *parameters)
            kept = lax.dynamic_slice_in_dim(part, scale * (first - start), scale * rows, 1)
            return lax.dynamic_update_slice_in_dim(result, kept, scale * first, 1)

        return lax.fori_loop(0, -(-height // rows), body, jnp.zeros(whole.shape, whole.dtype))

    on_cpu, elsewhere = (functools.partial(strips, rows) for rows in (few, many))
    if height < 2 * (few + 2 * reach):
        return function(x, *parameters)
    return lax.platform_dependent(x, *parameters, cpu=on_cpu, default=elsewhere)
