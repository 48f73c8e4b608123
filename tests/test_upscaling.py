import functools
import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from jaxsr import images, upscaling, weights
from jaxsr.errors import InputError
from jaxsr.models import LapSRN
from jaxsr.protocols import PROTOCOLS
from jaxsr.resample import imresize
from jaxsr.upscaling import upscale

pytestmark = pytest.mark.usefixtures("compiled_quickly")
RGB = np.random.default_rng(0).random((23, 31, 3), np.float32)
GRAY = RGB[..., :1]


apply = jax.jit(LapSRN.apply, static_argnums=0)


@functools.cache
def network(biased=True, **settings):
    """A small network whose weights, biases among them, are all different numbers."""
    model = LapSRN(**{"depth": 1, "spread": 3, "features": 4} | settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    rng = np.random.default_rng(1)

    def draw(leaf):
        values = rng.standard_normal(leaf.shape)
        if values.ndim == 1:
            values *= 0.05 * biased
        elif values.shape[2:] == (1, 1):  # the image branch keeps the mean
            values *= (len(values) / 2) ** 2 / values.sum()
        else:
            values *= np.sqrt(2 / np.prod(values.shape[:3]))
        return values.astype(np.float32)

    return model, jax.tree.map(draw, shapes)


def luma_of(model, variables, luma, scale):
    """(H, W, 1) enlarged by the network and, from its level above `scale`, by shrinking."""
    results = apply(model, variables, jnp.asarray(luma)[None])
    larger = [np.asarray(r)[0] for r in results if r.shape[1] >= scale * luma.shape[0]]
    ratio = scale * luma.shape[0] / larger[0].shape[0]
    return larger[0] if ratio == 1 else imresize(larger[0], ratio)


def colour_of(model, variables, image, scale):
    """(H, W, 3) by scikit-image's YCbCr, before clipping."""
    ycbcr = skimage.color.rgb2ycbcr(image.astype(np.float64))
    luma = luma_of(model, variables, (ycbcr[..., :1] / 255).astype(np.float32), scale)
    merged = np.concatenate([255 * luma, imresize(ycbcr[..., 1:], scale)], axis=-1)
    return skimage.color.ycbcr2rgb(merged)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gray_is_the_network_and_nothing_else(scale):
    model, variables = network()
    expected = luma_of(model, variables, GRAY, scale)
    assert expected.std() > 0.05 and ((expected > 0) & (expected < 1)).mean() > 0.3
    result = upscale(GRAY, model, variables, scale=scale)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.clip(expected, 0, 1), rtol=0, atol=1e-6)


def test_colour_is_luma_by_the_network_and_chroma_by_imresize():
    model, variables = network()
    expected = colour_of(model, variables, RGB, 4)
    assert (expected < 0).any() and (expected > 1).any()  # so that clipping matters
    result = upscale(jnp.asarray(RGB), model, variables)
    assert isinstance(result, np.ndarray) and result.dtype == np.float32
    np.testing.assert_allclose(result, np.clip(expected, 0, 1), rtol=0, atol=2e-6)
    rounded = upscale(RGB, model, variables, dtype=np.uint8)
    np.testing.assert_array_equal(rounded, images.to_uint8(result))


@pytest.mark.parametrize("size", [(1, 1), (3, 1)])
def test_any_size_from_one_pixel_up(size):
    model, variables = network(factor=2)
    image = RGB[: size[0], : size[1]]
    expected = np.clip(colour_of(model, variables, image, 2), 0, 1)
    np.testing.assert_allclose(upscale(image, model, variables), expected, rtol=0, atol=2e-6)
    tiled = upscale(image, model, variables, tile=1)
    np.testing.assert_allclose(tiled, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"spread": 4}, 4),
        ({"depth": 2}, 2),
        ({}, 3),
        ({"pyramid": False, "factor": 8}, 7),
    ],
)
def test_the_margin_is_how_far_an_impulse_reaches(x64, settings, scale):
    """Without biases black stays black wherever a result does not look at the impulse.

    Both ways: one pixel less and a window would change results, one more and it would cost.
    """
    model, variables = network(biased=False, **settings)
    variables = jax.tree.map(np.float64, variables)
    margin = upscaling.margin(model, scale=scale)
    middle = margin + 3
    impulse = np.zeros((2 * middle + 1, 2 * middle + 1, 1))
    impulse[middle, middle] = 1
    result = np.abs(luma_of(model, variables, impulse, scale)[..., 0]) > 1e-15
    for axis in (0, 1):
        touched = np.flatnonzero(result.any(axis=axis)) // scale
        assert np.abs(touched - middle).max() == margin


def test_the_margin_of_the_released_network():
    assert upscaling.margin(LapSRN(depth=10, spread=3)) == 17


@pytest.mark.parametrize(("scale", "tile"), [(3, 8), (4, 3)])
def test_tiles_leave_no_seams(scale, tile):
    model, variables = network()
    whole = upscale(RGB, model, variables, scale=scale)
    tiled = upscale(RGB, model, variables, scale=scale, tile=tile)
    # windows round otherwise than the whole, by up to 3.4e-6 with AVX-512; a seam is above 0.05
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_all_windows_have_one_shape(monkeypatch):
    model, variables = network()
    shapes = []
    compiled = upscaling._program

    def spy(model, levels, shape):
        shapes.append(shape)
        return compiled(model, levels, shape)

    monkeypatch.setattr(upscaling, "_program", spy)
    upscale(np.tile(GRAY, (2, 1, 1)), model, variables, scale=3, tile=8)
    (shape,) = set(shapes)
    assert len(shapes) > 4 and max(shape) <= 8 + 2 * upscaling.margin(model, scale=3)


def test_images_of_many_sizes_do_not_keep_their_programs(live_programs):
    model, variables = network(factor=2)  # one level: half to compile
    programs = []
    for height in range(8, 8 + upscaling._PROGRAMS + 2):
        upscale(GRAY[:height], model, variables)
        programs.append(live_programs())
    assert programs[-1] == programs[upscaling._PROGRAMS]


def test_bicubic_is_imresize_however_it_is_cut():
    for height, width, tile in itertools.product(range(1, 14), (1, 6, 11), (None, 1, 2, 3, 5)):
        image = RGB[:height, :width]
        expected = np.clip(imresize(image, 3), 0, 1)
        result = upscaling.bicubic(image, 3, tile=tile)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    rounded = upscaling.bicubic(RGB, 4, tile=8, dtype=np.uint8)
    np.testing.assert_array_equal(rounded, images.to_uint8(imresize(RGB, 4)))
    wide = np.zeros((1, 70, 1), np.float32)
    assert upscaling.bicubic(wide, np.uint8(4)).shape == (4, 280, 1)  # beyond uint8
    assert upscaling.bicubic(np.tile(wide, (1, 5, 1)), 2, tile=np.uint8(100)).shape == (2, 700, 1)


def test_memory_is_that_of_a_tile():
    """NumPy's: beside the result no array of its size, and no matrix as long as its sides."""
    model, variables = network(factor=2)
    image = np.tile(RGB, (24, 16, 1))  # 552x496, enlarged 3.3 MB as 8 bits, 26 in float64
    options = {"tile": 64, "dtype": np.uint8}
    upscale(image[:100, :100], model, variables, **options)  # compiled
    tracemalloc.start()
    try:
        result = upscale(image, model, variables, **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < result.nbytes + 4e6


def symmetries(image):
    """The 8 flips and rotations of (H, W, C) by transposing and flipping."""
    for transposed, rows, cols in itertools.product((False, True), (1, -1), (1, -1)):
        turned = image.swapaxes(0, 1) if transposed else image
        yield turned[::rows, ::cols], (transposed, rows, cols)


def test_the_ensemble_is_the_mean_over_the_symmetries():
    model, variables = network(factor=2)
    total = 0
    for turned, (transposed, rows, cols) in symmetries(GRAY[:, :23]):
        result = luma_of(model, variables, turned, 2)[::rows, ::cols]
        total = total + (result.swapaxes(0, 1) if transposed else result)
    result = upscale(GRAY[:, :23], model, variables, self_ensemble=True)
    np.testing.assert_allclose(result, np.clip(total / 8, 0, 1), rtol=0, atol=1e-6)
    assert np.abs(result - upscale(GRAY[:, :23], model, variables)).max() > 0.01


def test_the_ensemble_turns_with_the_image_and_has_no_seams():
    model, variables = network(factor=2)
    options = {"self_ensemble": True}
    result = upscale(RGB, model, variables, **options)
    turned = upscale(np.rot90(RGB), model, variables, **options)
    np.testing.assert_allclose(turned, np.rot90(result), rtol=0, atol=2e-6)
    tiled = upscale(RGB, model, variables, tile=8, **options)
    np.testing.assert_allclose(tiled, result, rtol=0, atol=2e-6)


def test_the_ensemble_of_the_released_network_is_worth_more(shared):
    """In the middle of Set5's butterfly, 4x."""
    model, variables = weights.lapsrn_from_mat(shared / "weights" / "LapSRN_x4.mat")
    protocol = PROTOCOLS["standard"]
    truth = images.read(shared / "data" / "Set5" / "butterfly.png").pixels[64:192, 64:192]
    hr, lr = protocol.degrade(truth, 4)
    alone, ensemble = (
        protocol.score(upscale(lr, model, variables, self_ensemble=turned), hr, 4)["psnr"]
        for turned in (False, True)
    )
    assert ensemble > alone + 0.05


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (RGB[0], {}, r"shape \(31, 3\)"),
        (RGB[..., :2], {}, r"shape \(23, 31, 2\)"),
        (RGB[:0], {}, "shape"),
        (images.to_uint8(RGB), {}, "of uint8"),
        (np.where(RGB > 0.9, np.nan, RGB), {}, "the image must be finite"),
        (np.where(GRAY > 0.9, -np.inf, GRAY), {}, "the image must be finite"),
        (RGB, {"scale": 1}, r"`scale` \(=1\) must be one that this network makes: 2, 3, 4"),
        (RGB, {"scale": 5}, r"`scale` \(=5\)"),
        (RGB, {"scale": 2.5}, r"`scale` \(=2.5\)"),
        (RGB, {"tile": 0}, r"`tile` \(=0\) must be at least 1"),
        (RGB, {"tile": 1.5}, r"`tile` \(=1.5\) must be an integer"),
        (RGB, {"dtype": np.float64}, r"`dtype` \(=float64\)"),
        (RGB, {"dtype": "foo"}, r"`dtype` \(=foo\)"),
    ],
)
def test_bad_input_is_one_line(image, options, said):
    model, variables = network()
    with pytest.raises(InputError, match=said) as caught:
        upscale(image, model, variables, **options)
    assert "\n" not in str(caught.value)


def test_one_jump_has_no_levels_between():
    model, variables = network(pyramid=False)
    with pytest.raises(InputError, match=r"`scale` \(=2\) .* makes: 3, 4"):
        upscale(RGB, model, variables, scale=2)
    for scale in (0, 1.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match=rf"`scale` \(={scale}\)"):
            upscaling.bicubic(RGB, scale)


def test_another_range_is_refused():
    model, variables = network(factor=2)
    with pytest.raises(InputError, match=r"\(up to 77\) must hold floats in \[0, 1\]"):
        upscale(np.full((16, 16, 1), 77.0), model, variables)


def test_weights_that_are_no_numbers_are_said():
    model, variables = network(factor=2)
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), variables)
    with pytest.raises(InputError, match="the network's result is NaN"):
        upscale(RGB, model, broken)
