"""Least squares with total variation, against a solver of another kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import operators, tv
from jaxsr.errors import InputError

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SHAPE = (8, 12, 1)
SIZE = 8 * 12


def matrix_of(operator):
    """A as a matrix, column by column."""
    units = jnp.eye(SIZE).reshape(SIZE, *SHAPE)
    return np.asarray(operator(units), np.float64).reshape(SIZE, -1).T


def differences():
    """D, and for each of its rows the reciprocal of how many there are of its direction."""
    pixels = np.eye(SIZE).reshape(SIZE, *SHAPE[:2])
    parts = [np.diff(pixels, axis=axis).reshape(SIZE, -1).T for axis in (2, 1)]
    return np.concatenate(parts), np.concatenate([np.full(len(p), 1 / len(p)) for p in parts])


def objective(x, matrix, y, weight):
    d, share = differences()
    x = np.asarray(x, np.float64).ravel()
    return ((matrix @ x - y.ravel()) ** 2).mean() + weight * share @ np.abs(d @ x)


def admm(matrix, y, weight, *, rho=0.05, iterations=4000):
    """The minimum over [0, 1], split into D x and x itself, by dense float64 linear algebra."""
    d, share = differences()
    k = np.concatenate([d, np.eye(SIZE)])
    inverse = np.linalg.inv(2 / len(matrix) * matrix.T @ matrix + rho * k.T @ k)
    given = 2 / len(matrix) * matrix.T @ y.ravel()
    z = u = np.zeros(len(k))
    for _ in range(iterations):
        x = inverse @ (given + rho * k.T @ (z - u))
        v = k @ x + u
        threshold = weight * share / rho
        slopes = np.sign(v[: len(d)]) * np.maximum(np.abs(v[: len(d)]) - threshold, 0)
        z = np.concatenate([slopes, np.clip(v[len(d) :], 0, 1)])
        u = v - z
    return np.clip(x, 0, 1).reshape(SHAPE)


@pytest.mark.parametrize("weight", [0.003, 0.1, 10.0])
def test_denoising_finds_the_image_of_another_solver(x64, weight):
    """Where A is the identity the minimum is one image; the largest weight makes it flat."""
    rng = np.random.default_rng(0)
    y = np.clip(0.5 + 0.3 * rng.standard_normal(SHAPE), -0.2, 1.2)
    found = tv.least_squares(
        jnp.asarray(y), operators.identity, start=jnp.zeros(SHAPE), weight=weight, tolerance=1e-8
    )
    expected = admm(np.eye(SIZE), y, weight, rho=max(0.01, weight / 5))
    np.testing.assert_allclose(found.image, expected, atol=3e-5)
    assert float(found.objective) == pytest.approx(
        objective(found.image, np.eye(SIZE), y, weight), rel=1e-9
    )
    if weight == 10:
        np.testing.assert_allclose(found.image, y.mean(), atol=1e-4)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.2), (0.5, -0.3)])
def test_an_affine_operator_is_its_linear_part(x64, slope, offset):
    y = jax.random.uniform(jax.random.key(0), SHAPE)
    options = {"start": jnp.zeros(SHAPE), "weight": 0.003, "tolerance": 1e-7}
    expected = tv.least_squares(y, lambda x: slope * x, **options)
    found = tv.least_squares(y + offset, lambda x: slope * x + offset, **options)
    assert found.converged and found.gap >= 0
    np.testing.assert_allclose(found.image, expected.image, atol=1e-5)
    assert float(found.objective) == pytest.approx(float(expected.objective), rel=1e-7)


def test_solutions_of_many_problems_do_not_keep_their_programs(live_programs):
    programs = []
    for _ in range(tv.PROGRAMS + 2):
        operator = functools.partial(operators.crop(6, 6))  # another one each time
        tv.least_squares(jnp.ones((6, 6, 1)), operator, start=jnp.ones(SHAPE), weight=0.1)
        programs.append(live_programs())
    assert programs[-1] == programs[tv.PROGRAMS]


@pytest.mark.parametrize("kernel", ["area", "pillow-lanczos"])
def test_upscaling_is_within_its_gap_of_the_minimum(x64, kernel):
    """From whatever start, also where pixels meet the bounds."""
    operator = operators.downsample(2, kernel=kernel)
    matrix = matrix_of(operator)
    y = np.random.default_rng(1).choice([-0.2, 0.4, 1.2], (4, 6, 1))
    best = objective(admm(matrix, y, 0.02), matrix, y, 0.02)
    rng = np.random.default_rng(2)
    for tolerance in (1e-2, 1e-6):
        start = jnp.asarray(rng.uniform(-1, 2, SHAPE))
        found = tv.least_squares(
            jnp.asarray(y), operator, start=start, weight=0.02, tolerance=tolerance
        )
        image = np.asarray(found.image)
        reached = objective(image, matrix, y, 0.02)
        assert float(found.objective) == pytest.approx(reached, rel=1e-9)
        assert best * (1 - 1e-7) <= reached <= best + float(found.gap) * (1 + 1e-6)
        assert float(found.gap) <= tolerance * reached < np.inf
        assert image.min() >= 0 and image.max() <= 1
        assert int(found.iterations) < 20_000
    assert (image == 0).any() or (image == 1).any()


def test_float32_reaches_the_default_tolerance():
    operator = operators.downsample(2, kernel="pillow-lanczos")
    y = np.random.default_rng(3).uniform(0, 1, (2, 8, 12, 3)).astype(np.float32)
    found = tv.least_squares(jnp.asarray(y), operator, start=jnp.zeros((2, 16, 24, 3)), weight=0.01)
    assert found.image.dtype == jnp.float32
    assert 0 < float(found.gap) <= 1e-3 * float(found.objective)
    few = tv.least_squares(
        jnp.asarray(y), operator, start=jnp.zeros((2, 16, 24, 3)), weight=0.01, iterations=60
    )
    assert int(few.iterations) == 100 and float(few.gap) > float(found.gap)
    assert found.converged and not few.converged


def test_half_precision_is_solved_in_float32():
    """The sums over 65,536 pixels are infinite in float16."""
    y = np.random.default_rng(3).random((256, 256, 1)).astype(np.float16)
    options = {"start": jnp.zeros(y.shape), "weight": 0.1}
    found = tv.least_squares(y, operators.identity, **options)
    expected = tv.least_squares(np.float32(y), operators.identity, **options)
    assert found.converged and 0 < float(found.gap) <= 1e-3 * float(found.objective)
    np.testing.assert_array_equal(found.image, expected.image)


def test_a_flat_image_has_nothing_to_reach():
    operator = operators.downsample(4, kernel="matlab-bicubic")
    y = jnp.full((8, 8, 3), 0.3)
    found = tv.least_squares(y, operator, start=jnp.zeros((32, 32, 3)), weight=0.01)
    assert found.converged
    np.testing.assert_allclose(found.image, 0.3, atol=1e-4)


def test_a_black_image_is_reached():
    y, start = jnp.zeros((8, 8, 1)), jax.random.uniform(jax.random.key(0), (8, 8, 1))
    found = tv.least_squares(y, operators.identity, start=start, weight=0.01)
    assert found.converged
    np.testing.assert_allclose(found.image, 0, atol=1e-3)


def test_the_start_is_of_the_observations_type():
    y, start = jnp.full((4, 4, 1), 0.3), jnp.zeros((4, 4, 1), jnp.bfloat16)
    found = tv.least_squares(y, operators.identity, start=start, weight=0.01)
    assert found.image.dtype == jnp.float32
    with pytest.raises(InputError, match=r"`start` \(of shape \(4, 4\)\) must be"):
        tv.least_squares(y, operators.identity, start=start[..., 0], weight=0.01)
    with pytest.raises(InputError, match="`start` must be finite"):
        tv.least_squares(y, operators.identity, start=start.at[1, 2].set(jnp.nan), weight=0.01)


def test_of_an_operator_that_sees_nothing_any_flat_image_is_a_minimum():
    y = np.random.default_rng(4).uniform(0, 1, SHAPE).astype(np.float32)
    start = jnp.asarray(np.random.default_rng(5).uniform(0, 1, SHAPE).astype(np.float32))
    nothing = operators.mask(np.zeros(SHAPE[:2]))
    found = tv.least_squares(jnp.asarray(y), nothing, start=start, weight=0.1)
    assert found.converged
    np.testing.assert_allclose(found.objective, (y**2).mean(), rtol=1e-3)


def test_one_row_is_what_each_of_equal_rows_would_be(x64):
    """Between equal rows there are no differences: the objective is the same."""
    row = np.random.default_rng(6).uniform(0, 1, (1, 12, 1))
    options = {"weight": 0.05, "tolerance": 1e-8}
    for turn in (lambda x: x, lambda x: x.swapaxes(0, 1)):
        one, three = (
            tv.least_squares(
                jnp.asarray(y), operators.identity, start=jnp.zeros(y.shape), **options
            )
            for y in (turn(row), turn(np.tile(row, (3, 1, 1))))
        )
        assert one.converged and three.converged
        np.testing.assert_allclose(one.objective, three.objective, rtol=1e-7)
        np.testing.assert_allclose(
            np.broadcast_to(one.image, three.image.shape), three.image, atol=1e-3
        )


def test_numpys_numbers_leave_float32_as_it_is(x64):
    y = jnp.full((4, 4, 1), 0.5, jnp.float32)
    numbers = {"weight": np.float64(0.01), "tolerance": np.float64(1e-3)}
    found = tv.least_squares(y, operators.identity, start=jnp.zeros_like(y), **numbers)
    assert found.image.dtype == found.objective.dtype == jnp.float32


def test_an_observation_of_another_shape_is_refused():
    start = jnp.zeros((1, 8, 8, 1))
    with pytest.raises(InputError, match=r"\(of shape \(1, 1, 8, 1\)\) must be of shape"):
        tv.least_squares(start[:, :1], operators.identity, start=start, weight=1e-3)


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"weight": 1, "tolerance": -1.0}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(InputError, match="must be above 0"):
        tv.least_squares(jnp.zeros((4, 4, 1)), operators.identity, start=jnp.zeros(1), **wrong)


def test_it_may_be_traced():
    y = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 1)), jnp.float32)

    def solve(y):
        return tv.least_squares(y, operators.identity, start=y, weight=1e-3).image

    np.testing.assert_allclose(jax.vmap(solve)(y), [solve(y[0]), solve(y[1])], atol=1e-3)


def test_within_jit_what_is_known_need_not_be_checked():
    y = np.random.default_rng(0).random((4, 4, 1), np.float32)
    start = jnp.zeros((4, 4, 1))
    expected = tv.least_squares(y, operators.identity, start=start, weight=1e-2).image
    for traced in ("observation", "start"):
        given = {"observation": jnp.asarray(y), "start": start}

        def solve(x, given=given, traced=traced):
            given = given | {traced: x}
            return tv.least_squares(operator=operators.identity, weight=1e-2, **given).image

        np.testing.assert_allclose(jax.jit(solve)(given[traced]), expected, atol=1e-5)


@pytest.mark.parametrize("iterations", [0, 0.5])
def test_iterations_are_counted(iterations):
    image = jnp.zeros((4, 4, 1))
    with pytest.raises(InputError, match=rf"`iterations` \(={iterations}\) must be"):
        tv.least_squares(image, operators.identity, start=image, weight=1, iterations=iterations)


@pytest.mark.parametrize("value", [np.float32("nan"), np.uint8(7)])
def test_an_observation_of_integers_or_nan_is_refused(value):
    start = jnp.zeros((4, 4, 1))
    with pytest.raises(InputError, match=r"the observation .*must (hold floats|be finite)"):
        tv.least_squares(np.full((4, 4, 1), value), operators.identity, start=start, weight=1)
