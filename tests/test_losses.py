import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import losses
from jaxsr.errors import InputError

ALPHAS = (2.0, 1.0, 0.5, 0.0, -2.0, -10.0, -math.inf, 3.0)
RESIDUALS = np.concatenate([[0.0], np.geomspace(1e-6, 1e2, 25), -np.geomspace(1e-6, 1e2, 25)])


def barron(d, alpha, scale):
    """The general loss as the paper prints it, eq. 8, in float64."""
    x = (np.float64(d) / scale) ** 2
    if alpha == 2:
        return x / 2
    if alpha == 0:
        return np.log(x / 2 + 1)
    if alpha == -math.inf:
        return 1 - np.exp(-x / 2)
    return abs(alpha - 2) / alpha * ((x / abs(alpha - 2) + 1) ** (alpha / 2) - 1)


def barron_slope(d, alpha, scale):
    """Its derivative by d, the paper's eq. 9."""
    d = np.float64(d)
    if alpha == 2:
        return d / scale**2
    if alpha == 0:
        return 2 * d / (d**2 + 2 * scale**2)
    if alpha == -math.inf:
        return d / scale**2 * np.exp(-((d / scale) ** 2) / 2)
    return d / scale**2 * ((d / scale) ** 2 / abs(alpha - 2) + 1) ** (alpha / 2 - 1)


def slope(loss, d):
    return jax.vmap(jax.grad(loss), (0, None))(jnp.asarray(d), jnp.zeros((), np.asarray(d).dtype))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", lambda d: d**2),
        ("l1", np.abs),
        ("charbonnier", lambda d: np.hypot(d, 1e-3)),
        ("huber", lambda d: np.where(abs(d) <= 0.01, d**2 / 2, 0.01 * (abs(d) - 0.005))),
    ],
)
def test_equals_its_formula(x64, name, expected):
    target = np.random.RandomState(0).uniform(0, 1, RESIDUALS.shape)
    value = losses.LOSSES[name](jnp.asarray(target + RESIDUALS), jnp.asarray(target))
    np.testing.assert_allclose(value, expected((target + RESIDUALS) - target), rtol=1e-12)


def test_all_losses_are_listed():
    assert {
        "mse": losses.mse,
        "l1": losses.l1,
        "charbonnier": losses.charbonnier,
        "huber": losses.huber,
    } == losses.LOSSES


def test_options_of_charbonnier_and_huber(x64):
    d, zero = jnp.array([0.0, 0.3, -4.0]), jnp.zeros(3)
    np.testing.assert_allclose(losses.charbonnier(d, zero, epsilon=0.4), [0.4, 0.5, 16.16**0.5])
    np.testing.assert_allclose(losses.huber(d, zero, delta=1.0), [0.0, 0.045, 3.5])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_general_equals_the_paper(x64, alpha):
    for scale in (0.05, 1.0):
        d = RESIDUALS[np.abs(RESIDUALS / scale) < 1e3]
        value = losses.general(alpha, scale=scale)(jnp.asarray(d), jnp.zeros_like(d))
        # The printed formula cancels near 0: to the last digits of the 1 that it subtracts.
        expected = barron(d, alpha, scale)
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=2e-15)
        derivative = slope(losses.general(alpha, scale=scale), d)
        # To the last digits of the slope, or of its greatest value where the loss levels off.
        close = {"rtol": 1e-12, "atol": 1e-13 / scale}
        np.testing.assert_allclose(derivative, barron_slope(d, alpha, scale), **close)


@pytest.mark.parametrize("limit", [2.0, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_general_is_continuous_in_alpha(x64, limit, dtype):
    d = np.concatenate([[0], np.geomspace(1e-4, 10, 20)]).astype(dtype)
    tolerance = {np.float32: 2e-5, np.float64: 1e-12}[dtype]
    at = losses.general(limit)
    for step in (1e-3, 1e-5, 1e-7, 1e-10, 1e-14, 1e-30):
        for alpha in (limit - step, limit + step):
            near = losses.general(alpha)
            # x is up to 4e4 here, and so d(log rho) / d(alpha) about |log x| / 2 or log^2 x / 4.
            close = {"rtol": 60 * step + tolerance, "atol": 0}
            np.testing.assert_allclose(near(d, 0 * d), at(d, 0 * d), **close)
            np.testing.assert_allclose(slope(near, d), slope(at, d), **close)


@pytest.mark.parametrize("alpha", [-math.inf, -1e9, -10.0, -2.0, 1e-3, 0.5, 1.5, 3.0])
def test_slope_of_general_has_all_its_digits_in_float32(alpha):
    """Also where an outlier hardly counts: 1 - rho would have none left there."""
    d = np.array([1e-3, 0.05, 0.25, 0.28, 0.3, 0.4], np.float32)
    expected = barron_slope(d.astype(np.float64), alpha, 0.05)
    np.testing.assert_allclose(slope(losses.general(alpha), d), expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_general_takes_plain_numbers(alpha):
    assert float(losses.general(alpha)(0.5, 0.2)) == pytest.approx(
        barron(0.3, alpha, 0.05), rel=1e-5
    )


def test_general_is_continuous_at_minus_infinity(x64):
    d = np.geomspace(1e-4, 1, 20)
    far, limit = losses.general(-1e9), losses.general(-math.inf)
    np.testing.assert_allclose(far(d, 0 * d), limit(d, 0 * d), rtol=1e-6)
    np.testing.assert_allclose(slope(far, d), slope(limit, d), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("dtype", "alpha"), [(np.float32, -1e38), (np.float32, -1e39)])
def test_general_is_its_limit_beyond_the_type(dtype, alpha):
    d = np.array([0, 0.001, 0.05, 0.3, 1], dtype)
    expected = 1 - np.exp(-((d.astype(np.float64) / 0.05) ** 2) / 2)
    np.testing.assert_allclose(losses.general(alpha)(d, 0 * d), expected, rtol=1e-6)
    assert np.isfinite(slope(losses.general(alpha), d)).all()


@pytest.mark.parametrize("alpha", [1e30, 1e38, 1e39])
def test_general_is_welschs_turned_over_for_large_alpha(alpha):
    d = np.array([0, 0.001, 0.05, 0.1], np.float32)
    expected = np.exp((d.astype(np.float64) / 0.05) ** 2 / 2) - 1
    np.testing.assert_allclose(losses.general(alpha)(d, 0 * d), expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1e-5, 3e-6, 1e-4, 1.999, -1.5, 0.5, 3.0])
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_general_in_half_precision_is_that_of_float32(alpha, dtype):
    """Rounded: what is divided by alpha, or by |alpha - 2|, would overflow in float16."""
    d, loss = jnp.asarray([0, 0.001, 0.05, 0.3, 1], dtype), losses.general(alpha)
    expected = loss(d.astype(jnp.float32), jnp.zeros(5))
    found = loss(d, 0 * d)
    assert found.dtype == dtype and np.isfinite(slope(loss, d)).all()
    np.testing.assert_array_equal(found, expected.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_charbonnier_in_half_precision_is_that_of_float32(dtype):
    """Whose squares are neither 0 nor infinite."""
    d, loss = jnp.asarray([0, 1e-4, 0.3, -1, 1e4], dtype), losses.charbonnier
    loss = functools.partial(loss, epsilon=1e-4)
    expected = loss(d.astype(jnp.float32), jnp.zeros(5)).astype(dtype)
    assert loss(d, 0 * d).dtype == dtype
    np.testing.assert_array_equal(loss(d, 0 * d), expected)
    np.testing.assert_allclose(slope(loss, d), [0, 0.5**0.5, 1, -1, 1], rtol=0.01)


def test_total_variation_is_of_images():
    with pytest.raises(InputError, match=r"the image \(of shape \(4, 4\)\) must be \(..., H, W"):
        losses.total_variation(jnp.zeros((4, 4)))


def test_total_variation_of_numpys_doubles_is_that_of_floats():
    image = np.random.default_rng(0).random((5, 6, 1))
    expected = losses.total_variation(np.float32(image))
    np.testing.assert_allclose(losses.total_variation(image), expected, rtol=1e-6)


def test_total_variation_is_of_floats():
    with pytest.raises(InputError, match=r"the image \(of uint8\) must hold floats"):
        losses.total_variation(jnp.zeros((4, 4, 1), "uint8"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", (*ALPHAS, 1e-8, -1e-8, 2 - 1e-8, 2 + 1e-8, -1e4))
def test_general_has_finite_gradients(x64, dtype, alpha):
    d = np.array([0, 1e-30, 1e-8, 1, 1e3, 1e6, -1e6], dtype)
    loss = losses.general(alpha)
    assert np.isfinite(loss(d, 0 * d)).all() and np.isfinite(slope(loss, d)).all()
    assert loss(d, 0 * d).dtype == slope(loss, d).dtype == dtype
    assert loss(d, 0 * d)[0] == slope(loss, d)[0] == 0


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_have_finite_gradients(x64, name, dtype):
    d = np.array([0, 1e-30, 1e-8, 0.01, 1, 1e6, -1e6], dtype)
    derivative = slope(losses.LOSSES[name], d)
    assert np.isfinite(derivative).all() and derivative.dtype == dtype
    assert derivative[0] == 0  # l1's too, whose subgradients at 0 are all of [-1, 1]


def test_a_flat_image_has_no_slope_of_total_variation():
    flat = jnp.full((1, 5, 4, 3), 0.3)
    np.testing.assert_array_equal(jax.grad(losses.total_variation)(flat), 0 * flat)


@pytest.mark.parametrize("scale", [1e-3, 0.05, 2.0])
def test_general_with_alpha_1_is_charbonnier(x64, scale):
    charbonnier = losses.charbonnier(RESIDUALS, 0 * RESIDUALS, epsilon=scale)
    value = losses.general(1.0, scale=scale)(RESIDUALS, 0 * RESIDUALS)
    np.testing.assert_allclose(scale * value + scale, charbonnier, rtol=1e-12)


@pytest.mark.parametrize(
    "loss",
    [*losses.LOSSES.values(), *(losses.general(alpha, scale=0.3) for alpha in ALPHAS)],
)
def test_gradient_equals_finite_differences(x64, loss):
    d = np.array([-0.8, -0.05, -0.003, 0.004, 0.07, 1.5])
    h, zero = 1e-7, np.zeros(6)
    expected = (loss(d + h, zero) - loss(d - h, zero)) / (2 * h)
    np.testing.assert_allclose(slope(loss, d), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_general_refuses_alpha(alpha):
    with pytest.raises(InputError, match=rf"`alpha` \(={alpha}\) must be a real number or -inf"):
        losses.general(alpha)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_general_refuses_scale(scale):
    with pytest.raises(InputError, match=rf"`scale` \(={scale}\) must be above 0"):
        losses.general(1.0, scale=scale)


def test_total_variation_equals_a_loop(x64):
    image = np.random.RandomState(0).uniform(0, 1, (2, 5, 7, 3))
    right, below = [], []
    for n, i, j, c in np.ndindex(image.shape):
        if j + 1 < 7:
            right.append(abs(image[n, i, j + 1, c] - image[n, i, j, c]))
        if i + 1 < 5:
            below.append(abs(image[n, i + 1, j, c] - image[n, i, j, c]))
    expected = np.mean(right) + np.mean(below)
    np.testing.assert_allclose(losses.total_variation(jnp.asarray(image)), expected, rtol=1e-12)


def test_total_variation_of_a_ramp_and_of_a_flat_image():
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 5)[None, :, None], (4, 5, 3))
    np.testing.assert_allclose(losses.total_variation(ramp), 0.25, rtol=1e-6)
    assert losses.total_variation(jnp.full((4, 4, 1), 0.5)) == 0


def test_total_variation_of_a_single_row_or_column_is_along_it():
    row = np.random.RandomState(1).uniform(0, 1, (1, 9, 2)).astype(np.float32)
    expected = np.abs(row[:, 1:] - row[:, :-1]).mean()
    for image in (row, row.swapaxes(0, 1)):
        value, slope = jax.value_and_grad(losses.total_variation)(jnp.asarray(image))
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    assert losses.total_variation(jnp.ones((1, 1, 3))) == 0


@pytest.mark.parametrize("counts", [(2, 2, 3), (1, 2, 2), (2, 1, 2), (0, 0, 0)])
def test_a_pyramid_has_one_of_each_a_level(counts):
    predictions, targets, weights = ([jnp.ones(())] * n for n in counts)
    with pytest.raises(InputError, match="\\(={}, {} and {} of them\\)".format(*counts)):
        losses.pyramid(predictions, targets, weights=weights)


def test_a_level_is_not_broadcast():
    level = [jnp.ones((1, 8, 8, 1))], [jnp.ones((1, 8, 8, 3))]
    with pytest.raises(InputError, match=r"must be alike: \(1, 8, 8, 1\), \(1, 8, 8, 3\)"):
        losses.pyramid(*level, weights=[1.0])
    with pytest.raises(InputError, match="`loss` \\(='mse'\\) must be a function"):
        losses.pyramid(level[0], level[0], weights=[1.0], loss="mse")


@pytest.mark.parametrize("alpha", [0.05, -0.05, 1e-3, 1.95, 2.05])
def test_general_near_its_limits_is_the_papers_formula(x64, alpha):
    d = np.geomspace(1e-2, 10, 20)
    found = losses.general(alpha)(d, 0 * d)
    np.testing.assert_allclose(found, barron(d, alpha, 0.05), rtol=1e-10)
