import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxsr import images, metrics
from jaxsr.errors import InputError

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    target = rng.random((31, 24, 3))
    return target + 0.1 * rng.standard_normal(target.shape), target


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_a_batchs_ssim_is_the_mean_of_its_images(window):
    x, y = np.random.default_rng(0).random((2, 4, 20, 24, 3))
    each = [metrics.ssim(a, b, window=window) for a, b in zip(x, y, strict=True)]
    assert metrics.ssim(x, y, window=window) == pytest.approx(np.mean(each))


def test_a_batchs_psnr_is_of_all_its_pixels():
    x = np.zeros((2, 4, 4, 1))
    y = x + np.array([0.1, 0.001])[:, None, None, None]
    assert metrics.psnr(x, y) == pytest.approx(-10 * np.log10((0.1**2 + 0.001**2) / 2))
    np.testing.assert_allclose(jax.vmap(metrics.psnr)(x, y), [20, 60], rtol=1e-5)


@pytest.mark.parametrize("peak, shave", [(1.0, 0), (2.0, 3), (255.0, 1)])
def test_psnr_equals_scikit_image(x64, pair, peak, shave):
    cut = slice(shave, -shave or None)
    expected = peak_signal_noise_ratio(pair[1][cut, cut], pair[0][cut, cut], data_range=peak)
    assert metrics.psnr(*pair, peak=peak, shave=shave) == pytest.approx(expected, abs=1e-10)
    compiled = jax.jit(functools.partial(metrics.psnr, peak=peak, shave=shave))
    traced = compiled(*map(jnp.asarray, pair))
    assert traced.dtype == jnp.float64 and float(traced) == pytest.approx(expected, abs=1e-10)


def test_psnr_in_a_compiled_loop_keeps_float32(pair):
    prediction, target = (jnp.asarray(image, jnp.float32) for image in pair)
    value = jax.lax.fori_loop(0, 3, lambda i, v: metrics.psnr(prediction, target), jnp.float32(0))
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(float(metrics.psnr(*pair)), abs=1e-4)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [(np.float16, (0, 1e-4)), (jnp.bfloat16, (0, 0.1)), (jnp.bfloat16, (1, 0.0019))],
)
def test_psnr_of_half_precision_is_computed_in_float32(dtype, values):
    """The square of 1e-4 is 0 in float16, and 1 - 0.0019 is 1 in bfloat16."""
    x, y = (np.asarray(np.full((4, 4, 1), value), dtype) for value in values)
    expected = -20 * np.log10(abs(np.float64(x) - np.float64(y)).mean())
    found = metrics.psnr(x, y), jax.jit(metrics.psnr)(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_shave_of_a_narrow_integer():
    x, y = np.random.default_rng(0).random((2, 300, 12, 1), np.float32)
    assert metrics.psnr(x, y, shave=np.uint8(4)) == metrics.psnr(x, y, shave=4)


def test_psnr_of_equal_images_is_infinite_and_nan_stays_nan(pair):
    assert metrics.psnr(pair[1], pair[1]) == np.inf
    assert jax.jit(metrics.psnr)(jnp.asarray(pair[1]), jnp.asarray(pair[1])) == jnp.inf
    assert np.isnan(metrics.psnr(pair[0] * np.nan, pair[1]))


@pytest.mark.parametrize("peak", [1.0, 2.0, 255.0])
@pytest.mark.parametrize("window, options", [("uniform", {}), ("gaussian", GAUSSIAN)])
def test_ssim_equals_scikit_image(pair, peak, window, options):
    for channels in (3, 1):
        prediction, target = (image[..., :channels] for image in pair)
        expected = structural_similarity(
            target, prediction, channel_axis=-1, data_range=peak, **options
        )
        ours = metrics.ssim(prediction, target, window=window, peak=peak)
        assert ours == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("window, options", [("uniform", {}), ("gaussian", GAUSSIAN)])
def test_ssim_of_float32_is_computed_in_float64(pair, window, options):
    """A little contrast on much light: of float32, the difference of squares would be noise."""
    low, high = (np.float32(0.98 + 0.002 * image) for image in pair)
    expected = structural_similarity(
        np.float64(high), np.float64(low), channel_axis=-1, data_range=1.0, **options
    )
    assert metrics.ssim(low, high, window=window) == pytest.approx(expected, abs=1e-10)


def test_ssim_with_replicated_borders_averages_the_whole_map(pair):
    prediction, target = pair
    # Of images padded by copies, the windows of the original pixels are those inside.
    padded = [np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="edge") for image in pair]
    expected = structural_similarity(
        padded[1], padded[0], channel_axis=-1, data_range=1.0, **GAUSSIAN
    )
    ours = metrics.ssim(prediction, target, window="gaussian", border="replicate")
    assert ours == pytest.approx(expected, abs=1e-10)
    inner = [image[4:-4, 4:-4] for image in pair]
    assert metrics.ssim(*pair, shave=4) == pytest.approx(metrics.ssim(*inner), abs=1e-12)


def test_bad_input(pair):
    prediction, target = pair
    for call in (
        lambda: metrics.psnr(prediction[1:], target),
        lambda: metrics.psnr(images.to_uint8(prediction), images.to_uint8(target)),
        lambda: metrics.psnr(prediction, target, shave=12),
        lambda: metrics.psnr(prediction, target, shave=-1),
        lambda: metrics.psnr(prediction, target, shave=1.5),
        lambda: metrics.psnr(prediction, target, peak=0),
        lambda: metrics.ssim(prediction, target, peak=float("nan")),
        lambda: metrics.psnr(prediction[..., :0], target[..., :0]),
        lambda: metrics.psnr(prediction[None][:0], target[None][:0]),
        lambda: metrics.ssim(prediction[:6], target[:6]),
        lambda: metrics.ssim(prediction[..., :0], target[..., :0]),
        lambda: metrics.ssim(prediction, target, window="box"),
        lambda: metrics.ssim(prediction, target, border="same"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
