import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from PIL.Image import Resampling

from jaxsr import resample
from jaxsr.errors import InputError

SIZES = [(64, 16), (50, 17), (37, 36), (16, 64), (5, 2), (7, 20), (3, 3), (9, 1)]
PILLOW = {"lanczos": Resampling.LANCZOS, "bicubic": Resampling.BICUBIC}


def test_lanczos_kernels_equal_the_reference(shared):
    golden = np.load(shared / "golden" / "lanczos_kernels.npz")
    for name in golden.files:
        support, factor = int(name[len("lanczos")]), int(name.split("_x")[1])
        np.testing.assert_allclose(
            resample.lanczos_kernel(factor, support), golden[name], rtol=0, atol=1e-12
        )


def test_imresize_equals_matlab(shared):
    golden = np.load(shared / "golden" / "matlab_imresize.npz")
    for name in set(golden.files) - {"input"}:
        scale = 1 / 3 if name == "scale_0.333333" else float(name.split("_")[1])
        resized = resample.imresize(golden["input"], scale)
        np.testing.assert_allclose(resized, golden[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_imresize_is_computed_in_float64(dtype):
    """Whatever the image's own type, which matters most where it is made larger."""
    image = (200 * np.random.default_rng(1).random((9, 11, 2))).astype(dtype)
    resized = resample.imresize(image, 1.7)
    assert resized.dtype == np.float64
    np.testing.assert_array_equal(resized, resample.imresize(np.float64(image), 1.7))


def test_imresize_to_a_size_takes_the_scale_of_each_axis():
    image = np.random.default_rng(0).random((8, 12, 2))
    np.testing.assert_allclose(
        resample.imresize(image, 0.5), resample.imresize(image, size=(4, 6)), atol=1e-14
    )
    ramp = np.broadcast_to(np.arange(12.0)[None, :, None], (8, 12, 2))
    tripled = resample.imresize(ramp, size=(16, 36))
    expected = (np.arange(36) + 0.5) / 3 - 0.5
    np.testing.assert_allclose(tripled[5, 6:-6, 1], expected[6:-6], atol=1e-12)
    with pytest.raises(InputError, match=r"one of `scale` \(=None\) and `size` \(=None\)"):
        resample.imresize(image)
    with pytest.raises(InputError, match=r"one of `scale` \(=2\) and `size` \(=\(4, 6\)\)"):
        resample.imresize(image, 2, size=(4, 6))
    for scale in (0, -1, np.inf, np.nan):
        with pytest.raises(InputError, match=rf"`scale` \(={scale}\) must be above 0, and finite"):
            resample.imresize(image, scale)
    with pytest.raises(InputError, match=r"`scale` \(='2'\) must be a number"):
        resample.imresize(image, "2")
    np.testing.assert_array_equal(
        resample.imresize(image, jnp.float32(2)), resample.imresize(image, 2)
    )
    with pytest.raises(InputError, match=r"`size` \(=32\) must be a tuple \(height, width\)"):
        resample.imresize(image, size=32)
    with pytest.raises(InputError, match=r"`width` \(=0\) must be at least 1"):
        resample.imresize(image, size=(4, 0))


@pytest.mark.parametrize("a", [-0.5, -0.75])
def test_cubic_is_keys_kernel_in_numpy_and_jax(x64, a):
    """Interpolating, its values as printed in the paper's eq. 4, of each array's own kind."""
    x = np.linspace(-2.5, 2.5, 41)
    d = np.abs(x)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    expected = np.select([d <= 1, d < 2], [near, far])
    for kind, values in ((np.ndarray, x), (jax.Array, jnp.asarray(x))):
        found = resample.cubic(values, a)
        assert isinstance(found, kind)
        np.testing.assert_allclose(found, expected, atol=1e-14)
    assert jax.jit(resample.cubic)(jnp.float32(0.5)).dtype == jnp.float32


@pytest.mark.parametrize("n_in, n_out", SIZES)
@pytest.mark.parametrize("kernel", PILLOW)
def test_pillow_matrix_equals_pillow_on_floats(kernel, n_in, n_out):
    row = np.random.default_rng(n_in).random((1, n_in)).astype(np.float32)
    expected = PIL.Image.fromarray(row).resize((n_out, 1), PILLOW[kernel])
    ours = resample.pillow_matrix(n_in, n_out, kernel) @ row[0].astype(np.float64)
    np.testing.assert_allclose(ours, np.asarray(expected)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", PILLOW)
def test_pillow_matrix_equals_pillow_on_bytes_within_its_rounding(kernel):
    image = np.random.default_rng(1).integers(60, 196, (96, 64), dtype=np.uint8)
    expected = np.asarray(PIL.Image.fromarray(image).resize((17, 24), PILLOW[kernel]), float)
    rows = resample.pillow_matrix(96, 24, kernel)
    cols = resample.pillow_matrix(64, 17, kernel)
    # Half a level from each of two passes, the first through a kernel of absolute sum below 1.5.
    assert np.abs(rows @ image @ cols.T - expected).max() < 1.25


@pytest.mark.parametrize("n, factor", [(64, 4), (24, 8), (65, 4), (9, 3), (14, 5), (2, 2)])
@pytest.mark.parametrize("support", [2, 3])
def test_strided_matrix_is_a_strided_convolution(n, factor, support):
    row = np.random.default_rng(2).random(n)
    reach = support * factor
    expected = []
    for o in range(n // factor):
        center = o * factor + (factor - 1) / 2
        taps = [
            (i, float(resample.lanczos(np.array((i - center) / factor), support)))
            for i in range(int(np.ceil(center - reach)), int(center + reach) + 1)
        ]
        total = sum(weight for _, weight in taps)
        expected.append(sum(w * row[min(max(i, 0), n - 1)] for i, w in taps) / total)
    ours = resample.strided_matrix(n, factor, support) @ row
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)


def test_strided_matrix_holds_the_reference_kernel(shared):
    golden = np.load(shared / "golden" / "lanczos_kernels.npz")
    for factor in (2, 4, 8):
        matrix = resample.strided_matrix(20 * factor, factor, 2)
        middle = 10 * factor + factor // 2
        taps = matrix[10, middle - 2 * factor : middle + 2 * factor]
        np.testing.assert_allclose(
            np.outer(taps, taps), golden[f"lanczos2_x{factor}"], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("n_in, n_out", [(12, 3), (7, 3), (5, 5), (10, 4)])
def test_area_is_the_mean_of_what_a_pixel_covers(n_in, n_out):
    row = np.random.default_rng(3).random(n_in)
    fine = np.repeat(row, n_out).reshape(n_out, n_in)  # n_out copies of each pixel: whole parts
    np.testing.assert_allclose(
        resample.area_matrix(n_in, n_out) @ row, fine.mean(axis=1), atol=1e-14
    )


@pytest.mark.parametrize(
    "matrix",
    [
        resample.pillow_matrix(30, 7, "lanczos"),
        resample.matlab_matrix(30, 0.25, 8),
        resample.strided_matrix(30, 4, 3),
        resample.area_matrix(30, 7),
        resample.matlab_matrix(4, 4, 16),
        resample.convolution_matrix(9, np.array([0.5, 0.25, 0.25])),
    ],
)
def test_matrices_keep_constants_and_cannot_be_changed(matrix):
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-14)
    with pytest.raises(ValueError):
        matrix[0, 0] = 1


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 7, 2), (1, 8, 8, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_double_bilinear_equals_jax_image_resize(x64, shape, dtype):
    batch, height, width, channels = shape
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    doubled = jax.jit(resample.double_bilinear)(x)
    expected = jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")
    assert doubled.dtype == dtype
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(doubled, expected, rtol=0, atol=tolerance)
