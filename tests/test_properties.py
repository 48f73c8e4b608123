"""What holds for every image, operator and metric, tried on drawn ones (hypothesis)."""

import math

import hypothesis.extra.numpy as drawn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxsr import images, metrics, operators, resample

# The same examples in every run; kept in no database.
repeatable = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
many, few = settings(repeatable, max_examples=40), settings(repeatable, max_examples=15)

SIDES = st.integers(1, 24)
SEEDS = st.integers(0, 2**32 - 1)
KERNELS = ("lanczos2", "lanczos3", "pillow-lanczos", "pillow-bicubic", "matlab-bicubic", "area")


def codes(*channels, dtype=np.uint8):
    """Images of whole numbers, (H, W, C)."""
    shapes = st.tuples(SIDES, SIDES, st.sampled_from(channels))
    return shapes.flatmap(lambda shape: drawn.arrays(dtype, shape))


def gray16(shape):
    return drawn.arrays(np.uint16, shape)


@many
@given(codes(1, 2, 3, 4), st.sampled_from([".png", ".tif", ""]))
def test_what_is_written_is_read(tmp_path, values, suffix):
    """8 bits, gray or RGB, with and without alpha, by the formats without loss."""
    pixels, alpha = values, None
    if values.shape[-1] in (2, 4):
        pixels, alpha = values[..., :-1], values[..., -1:]
    path = tmp_path / f"image{suffix}"
    images.write(path, pixels, alpha=alpha)
    found = images.read(path)
    np.testing.assert_array_equal(np.rint(found.pixels.astype(float) * 255), pixels)
    assert found.pixels.dtype == np.float32 and (found.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(np.rint(found.alpha.astype(float) * 255), alpha)
    images.write(path, found.pixels, alpha=found.alpha)  # floats too: rounded back to the codes
    np.testing.assert_array_equal(images.read(path).pixels, found.pixels)


@many
@given(
    st.tuples(SIDES, SIDES).flatmap(gray16),
    st.sampled_from([".png", ".tif"]),
)
def test_gray_of_16_bits_keeps_them(tmp_path, values, suffix):
    path = tmp_path / f"gray{suffix}"
    PIL.Image.fromarray(values).save(path)
    found = images.read(path)
    assert found.alpha is None and found.pixels.dtype == np.float32
    np.testing.assert_array_equal(np.rint(found.pixels[..., 0].astype(float) * 65535), values)


@many
@given(codes(3), drawn.arrays(np.uint8, (256, 3)), st.sampled_from([".png", ".tif"]))
def test_palettes_are_looked_up(tmp_path, values, palette, suffix):
    picture = PIL.Image.fromarray(values[..., 0]).convert("P")
    picture.putdata(values[..., 0].ravel().tolist())
    picture.putpalette(palette.tobytes())
    picture.save(tmp_path / f"palette{suffix}")
    found = images.read(tmp_path / f"palette{suffix}").pixels
    np.testing.assert_array_equal(np.rint(found.astype(float) * 255), palette[values[..., 0]])


@many
@given(codes(4))
def test_cmyk_becomes_rgb(tmp_path, values):
    picture = PIL.Image.frombytes("CMYK", values.shape[1::-1], values.tobytes())
    picture.save(tmp_path / "print.tif")
    found = images.read(tmp_path / "print.tif").pixels.astype(float) * 255
    ink = values.astype(float) / 255
    np.testing.assert_allclose(found, 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:]), atol=1)


@many
@given(codes(1), st.sampled_from([".png", ".tif"]))
def test_black_and_white(tmp_path, values, suffix):
    white = values[..., 0] > 127
    PIL.Image.fromarray(white).save(tmp_path / f"bits{suffix}")
    np.testing.assert_array_equal(images.read(tmp_path / f"bits{suffix}").pixels[..., 0], white)


@many
@given(codes(1, 3), st.sampled_from([".jpg", ".webp"]))
def test_lossy_formats_keep_size_and_kind(tmp_path, values, suffix):
    images.write(tmp_path / f"photo{suffix}", values)
    found = images.read(tmp_path / f"photo{suffix}").pixels
    assert found.shape[:2] == values.shape[:2] and 0 <= found.min() <= found.max() <= 1
    assert found.shape == values.shape or suffix == ".webp"  # which knows no gray
    flat = np.full_like(values, values.flat[0])
    images.write(tmp_path / f"flat{suffix}", flat)
    flat_found = images.read(tmp_path / f"flat{suffix}").pixels
    np.testing.assert_allclose(flat_found * 255, np.broadcast_to(flat, found.shape), atol=3)


@many
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.booleans())
def test_crops_are_the_largest_window(height, width, multiple, center):
    assume(min(height, width) >= multiple)
    places = np.stack(np.indices((height, width)), -1)
    window = images.crop_to_multiple(places, multiple, anchor="center" if center else "top-left")
    rows, columns = window.shape[:2]
    assert rows % multiple == columns % multiple == 0
    assert height - rows < multiple > width - columns
    top, left = window[0, 0]
    np.testing.assert_array_equal(window, places[top : top + rows, left : left + columns])
    spare = np.array([height - rows - 2 * top, width - columns - 2 * left])
    assert np.all(abs(spare) <= 1) if center else (top, left) == (0, 0)


@many
@given(codes(3))
def test_colours_come_back_from_ycbcr(values):
    rgb = values / 255
    found = images.rgb_to_ycbcr(rgb)
    np.testing.assert_allclose(images.ycbcr_to_rgb(found), rgb, atol=1e-12)
    np.testing.assert_allclose(images.rgb_to_y(rgb), found[..., :1], atol=1e-14)


def reference(kernel, size, factor):
    """The resizer as a float64 matrix, weight by weight."""
    out = size // factor
    scale = factor if kernel.startswith("lanczos") else size / out
    matrix = np.zeros((out, size))
    for o in range(out):
        centre = (o + 0.5) * scale - 0.5
        for position in range(-8 * factor - 40, size + 8 * factor + 40):
            x = (position - centre) / scale
            inside = 0 <= position < size
            if kernel == "area":
                low, high = max(o * scale, position), min((o + 1) * scale, position + 1)
                weight = max(high - low, 0.0)
            elif kernel == "matlab-bicubic":
                weight = keys(x)
                period = position % (2 * size)
                position, inside = min(period, 2 * size - 1 - period), True
            elif kernel == "pillow-bicubic":
                weight = keys(x)
            elif kernel == "pillow-lanczos":
                weight = sinc_window(x, 3)
            else:
                weight = sinc_window(x, int(kernel[-1]))
                position, inside = min(max(position, 0), size - 1), True
            if inside:
                matrix[o, position] += weight
    return matrix / matrix.sum(1, keepdims=True)


def keys(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def sinc_window(x, support):
    if x == 0:
        return 1.0
    if abs(x) >= support:
        return 0.0
    return support * math.sin(math.pi * x) * math.sin(math.pi * x / support) / (math.pi * x) ** 2


@few
@given(st.integers(8, 20), st.integers(8, 20), st.integers(2, 5), st.sampled_from(KERNELS), SEEDS)
def test_resizers_are_their_dense_matrix(x64, height, width, factor, kernel, seed):
    image = np.random.default_rng(seed).standard_normal((height, width))
    dense = np.kron(reference(kernel, height, factor), reference(kernel, width, factor))
    found = operators.downsample(factor, kernel=kernel)(jnp.asarray(image)[None, ..., None])
    # Pillow's ranges of taps leave out what lies beyond by rounding: a weight of 0 in the limit.
    np.testing.assert_allclose(found.ravel(), dense @ image.ravel(), rtol=0, atol=1e-12)


@st.composite
def linear(draw):
    """An operator, the size of its images, and whether it leaves a constant as it is."""
    height, width = draw(st.integers(8, 20)), draw(st.integers(8, 20))
    rng = np.random.default_rng(draw(SEEDS))
    kind = draw(st.sampled_from(["downsample", "blur", "mask", "crop", "compose"]))
    sides = 2 * draw(st.integers(0, 4)) + 1, 2 * draw(st.integers(0, 4)) + 1
    window = rng.random(sides)
    blur = operators.blur(window / window.sum())
    factor, kernel = draw(st.integers(2, 5)), draw(st.sampled_from(KERNELS))
    downsample = operators.downsample(factor, kernel=kernel)
    crop = operators.crop(draw(st.integers(6, height)), draw(st.integers(6, width)))
    operator = {
        "downsample": downsample,
        "blur": blur,
        "mask": operators.mask(rng.random((height, width)) < 0.5),
        "crop": crop,
        "compose": operators.compose(blur, crop, downsample),
    }[kind]
    return operator, (2, height, width, draw(st.sampled_from([1, 3]))), kind != "mask"


@few
@given(linear(), SEEDS)
def test_operators_are_linear_with_their_adjoint(x64, problem, seed):
    operator, shape, keeps_constants = problem
    rng = np.random.default_rng(seed)
    x, other = (jnp.asarray(rng.standard_normal(shape)) for _ in range(2))
    seen = operator(x)
    y = jnp.asarray(rng.standard_normal(seen.shape))
    (transposed,) = jax.linear_transpose(operator, x)(y)
    inner = float(jnp.vdot(seen, y))
    assert inner == pytest.approx(float(jnp.vdot(x, transposed)), rel=1e-10, abs=1e-10)
    both = operator(2.5 * x - other)
    np.testing.assert_allclose(both, 2.5 * seen - operator(other), rtol=0, atol=1e-12)
    if keeps_constants:
        flat = operator(jnp.full(shape, 0.7))
        np.testing.assert_allclose(flat, np.full(flat.shape, 0.7), rtol=0, atol=1e-12)


@st.composite
def pairs(draw):
    """A picture and a distorted one, float64, of sides that hold SSIM's windows, and their peak."""
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(st.integers(19, 40)), draw(st.integers(19, 40)), draw(st.sampled_from([1, 3]))
    peak = draw(st.sampled_from([1.0, 2.0, 255.0]))
    target = rng.random(shape)
    noise = draw(st.sampled_from([1e-4, 0.01, 0.3])) * rng.standard_normal(shape)
    return peak * np.clip(target + noise, 0, 1), peak * target, peak


@many
@given(pairs(), st.integers(0, 4))
def test_psnr_and_ssim_equal_scikit_images(pair, shave):
    prediction, target, peak = pair
    inner = slice(shave, -shave or None)
    x, y = prediction[inner, inner], target[inner, inner]
    found = metrics.psnr(prediction, target, peak=peak, shave=shave)
    assert found == pytest.approx(10 * math.log10(peak**2 / np.mean((x - y) ** 2)), abs=1e-9)
    assert found == pytest.approx(peak_signal_noise_ratio(y, x, data_range=peak), abs=1e-9)
    kinds = {
        "uniform": {},
        "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    }
    for window, options in kinds.items():
        expected = structural_similarity(x, y, data_range=peak, channel_axis=-1, **options)
        value = metrics.ssim(prediction, target, window=window, peak=peak, shave=shave)
        assert value == pytest.approx(expected, abs=1e-9)
        assert metrics.ssim(target, target, window=window, peak=peak) == pytest.approx(1)


@many
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_matlabs_imresize_keeps_constants_and_the_identity(n_in, n_out, power):
    image = np.full((n_in, n_in, 1), 0.3)
    resized = resample.imresize(image, size=(n_out, n_out))
    np.testing.assert_allclose(resized, np.full((n_out, n_out, 1), 0.3), atol=1e-12)
    ramp = np.linspace(0, 1, n_in * n_in).reshape(n_in, n_in, 1) ** power
    np.testing.assert_allclose(resample.imresize(ramp, 1), ramp, atol=1e-12)
