"""Total variation alone: what the simplest image looks like that explains an observation.

    argmin  mean (A x - y)^2 + weight TV(x)   over images x in [0, 1]

with TV as in `losses.total_variation`: Rudin, Osher and Fatemi's model (Physica D 60, 1992) for any
operator A, the handcrafted prior that Deep Image Prior is held against. It is convex: the minimum
is found to a proven accuracy, whatever the start.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxsr.errors import InputError, as_float, require_finite, require_integers
from jaxsr.losses import total_variation
from jaxsr.operators import Operator, require_observation

# tau, the primal step; the dual ones are 1 / (2 tau) for A, 1 / (16 tau) for the differences. Of 1,
# 3, 10, 30 and 100 the fastest for weights about 1e-3.
PRIMAL_STEP = 10.0
CHECK = 50  # iterations between two looks at the gap
FLOOR = 0.25  # of the gap, in rounding errors of mean y^2: a flat image has no objective to beat
DARK = 0.1  # the least mean y^2 in that: a black image has none
PROGRAMS = 4  # kept
MARGIN = 1.05  # on the operator's norm, which power iteration meets from below


class Solution(NamedTuple):
    """The image, its objective, and by how much at most that exceeds the minimum."""

    image: Array  # (..., H, W, C)
    objective: Array
    gap: Array
    converged: Array  # False: the iterations were used up before
    iterations: Array


class _Iterate(NamedTuple):
    image: Array
    ahead: Array  # the image, extrapolated
    fit: Array  # q, dual of A x - y
    right: Array  # p, dual of the differences to the right
    below: Array  # p, of those to the pixel below


def least_squares(
    observation: ArrayLike,
    operator: Operator,
    *,
    start: ArrayLike,
    weight: float,
    tolerance: float = 1e-3,
    iterations: int = 20_000,
) -> Solution:
    """The minimum, by Chambolle and Pock's primal-dual algorithm with A and the differences dual.

    Ends when the duality gap is below `tolerance` times the objective, or the floor of rounding.
    The dual objective, min over x in [0, 1] of <x, A^T q + D^T p> less the conjugate of the fit at
    q, is finite since x is bounded.

    Reference: Chambolle and Pock, J. Math. Imaging Vis. 40 (2011), algorithm 1.

    Args:
      observation: y, (..., h, w, C).
      operator: A, linear or affine: `jax.linear_transpose` takes it.
      start: (..., H, W, C), computed in the observation's type, at least float32.
      weight: of the total variation, above 0.
      tolerance: above 0; in float32 not below about 1e-4.
      iterations: at most; rounded up to a multiple of CHECK.

    Raises:
      InputError: `weight`, `tolerance` or `iterations` is out of its range; or the observation
        holds no floats, some that are not finite, or is not of the shape that the operator gives;
        or `start` has fewer than three axes or holds some that are not finite.
    """
    require_integers(iterations=iterations)
    # Python's floats, since NumPy's would widen float32.
    weight, tolerance = as_float("weight", weight), as_float("tolerance", tolerance)
    for name, value in {"weight": weight, "tolerance": tolerance}.items():
        if not 0 < value < float("inf"):
            raise InputError(f"`{name}` (={value}) must be above 0, and finite")
    observation = jnp.asarray(observation)
    if jnp.issubdtype(observation.dtype, jnp.floating):  # a half's sums overflow
        observation = observation.astype(jnp.promote_types(observation.dtype, jnp.float32))
    start = jnp.asarray(start, observation.dtype)
    if start.ndim < 3:
        raise InputError(f"`start` (of shape {start.shape}) must be (..., H, W, C)")
    require_finite("`start`", start)
    require_observation(observation, operator, start)
    return _program(operator, start.shape)(observation, start, weight, tolerance, iterations)


@functools.lru_cache(maxsize=PROGRAMS)
def _program(operator: Operator, shape: tuple[int, ...]) -> Callable[..., Solution]:
    # As in `dip.fit`: a folder's images have operators or sizes of their own.
    del shape
    return jax.jit(functools.partial(_solve, operator=operator))


def _solve(
    observation: Array,
    start: Array,
    weight: Array,
    tolerance: Array,
    iterations: Array,
    *,
    operator: Operator,
) -> Solution:
    offset = operator(jnp.zeros_like(start))  # 0, unless A is affine (an offset, a luma)

    def linear(x: Array) -> Array:
        return operator(x) - offset

    # In units in which A has norm 1 and the fit is |A x - y|^2 / 2.
    norm = _norm(linear, start)
    scale = observation.size / (2 * norm**2)
    transpose = jax.linear_transpose(linear, start)
    y = (observation - offset) / norm
    least = DARK * observation.size / norm**2
    rounding = FLOOR * jnp.finfo(y.dtype).eps * jnp.maximum(jnp.sum(y**2), least) / 2

    def forward(x: Array) -> Array:
        return linear(x) / norm

    def backward(state: _Iterate) -> Array:
        """A^T q + D^T p."""
        (x,) = transpose(state.fit / norm)
        return x + _differences_transposed(state.right, state.below)

    right, below = _differences(start)
    limits = scale * weight / right.size, scale * weight / below.size
    fit_step, slope_step = 1 / (2 * PRIMAL_STEP), 1 / (16 * PRIMAL_STEP)  # |A| = 1, |D|^2 <= 8

    def step(_: Array, state: _Iterate) -> _Iterate:
        fit = (state.fit + fit_step * (forward(state.ahead) - y)) / (1 + fit_step)
        right, below = (
            jnp.clip(dual + slope_step * difference, -limit, limit)
            for dual, difference, limit in zip(
                (state.right, state.below), _differences(state.ahead), limits, strict=True
            )
        )
        dual = state._replace(fit=fit, right=right, below=below)
        image = jnp.clip(state.image - PRIMAL_STEP * backward(dual), 0, 1)
        return dual._replace(image=image, ahead=2 * image - state.image)

    def measured(state: _Iterate) -> tuple[Array, Array]:
        """Objective and gap."""
        fit = jnp.sum((forward(state.image) - y) ** 2) / 2
        objective = fit + scale * weight * total_variation(state.image)
        conjugate = jnp.sum(state.fit**2) / 2 + jnp.sum(state.fit * y)
        return objective, objective + conjugate - jnp.sum(jnp.minimum(backward(state), 0))

    def close(objective: Array, gap: Array) -> Array:
        return gap <= jnp.maximum(tolerance * objective, rounding)

    Carry = tuple[_Iterate, Array, Array, Array]

    def unfinished(carry: Carry) -> Array:
        _, objective, gap, count = carry
        return ~close(objective, gap) & (count < iterations)

    def chunk(carry: Carry) -> Carry:
        state = lax.fori_loop(0, CHECK, step, carry[0])
        return state, *measured(state), carry[3] + CHECK

    image = jnp.clip(start, 0, 1)
    first = _Iterate(image, image, forward(image) - y, jnp.zeros_like(right), jnp.zeros_like(below))
    carry = (first, *measured(first), jnp.zeros((), jnp.int32))
    state, objective, gap, count = lax.while_loop(unfinished, chunk, carry)
    converged = close(objective, gap)
    return Solution(state.image, objective / scale, gap / scale, converged, count)


def _norm(operator: Operator, like: Array) -> Array:
    """Of the operator, by power iteration from a start with a part in every direction; 1 for 0."""
    transpose = jax.linear_transpose(operator, like)

    def grow(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        (x,) = transpose(operator(carry[0]))
        square = jnp.sqrt(jnp.sum(x**2))
        return x / jnp.where(square > 0, square, 1), square

    x = jax.random.uniform(jax.random.key(0), like.shape, like.dtype)
    x = x / jnp.sqrt(jnp.sum(x**2))
    _, square = lax.fori_loop(0, 50, grow, (x, jnp.zeros((), like.dtype)))
    return jnp.where(square > 0, MARGIN * jnp.sqrt(square), 1)


def _differences(x: Array) -> tuple[Array, Array]:
    """To the right and below."""
    return jnp.diff(x, axis=-2), jnp.diff(x, axis=-3)


def _differences_transposed(right: Array, below: Array) -> Array:
    outside = [(0, 0)] * (right.ndim - 3)
    right = jnp.pad(right, [*outside, (0, 0), (1, 1), (0, 0)])
    below = jnp.pad(below, [*outside, (1, 1), (0, 0), (0, 0)])
    return -jnp.diff(right, axis=-2) - jnp.diff(below, axis=-3)
