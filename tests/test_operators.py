import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from PIL.Image import Resampling
from scipy import ndimage

from jaxsr import images, operators, resample
from jaxsr.errors import InputError

KERNELS = ["lanczos2", "lanczos3", "pillow-lanczos", "pillow-bicubic", "matlab-bicubic", "area"]
MOTION = np.random.default_rng(0).random((3, 5))
OBSERVED = np.random.default_rng(1).random((24, 20)) < 0.5

OPERATORS = {
    "identity": operators.identity,
    "mask": operators.mask(OBSERVED),
    "blur": operators.blur(MOTION),
    "separable blur": operators.blur(np.outer(MOTION[0], MOTION[1, :3])),
    "crop": operators.crop(17, 12),
    "compose": operators.compose(
        operators.blur(MOTION), operators.crop(19, 13), operators.downsample(4)
    ),
    **{
        f"{kernel}-{factor}": operators.downsample(factor, kernel=kernel)
        for kernel in KERNELS
        for factor in (2, 3, 4)
    },
}


@pytest.mark.parametrize("name", ["pillow-lanczos-4", "separable blur"])
def test_products_are_exact_whatever_the_precision(name):
    with jax.default_matmul_precision("bfloat16"):
        text = str(jax.make_jaxpr(OPERATORS[name])(jnp.ones((1, 24, 20, 3))))
    assert 0 < text.count("dot_general[") <= text.count("Precision.HIGHEST")


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(x64, name):
    operator = OPERATORS[name]
    x = jax.random.normal(jax.random.key(0), (2, 24, 20, 3), jnp.float64)
    y = jax.random.normal(jax.random.key(1), operator(x).shape, jnp.float64)
    (transposed,) = jax.linear_transpose(operator, x)(y)
    (pulled,) = jax.vjp(operator, x)[1](y)
    inner = float(jnp.vdot(operator(x), y))
    assert inner == pytest.approx(float(jnp.vdot(x, transposed)), rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(pulled, transposed, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_under_jit_and_vmap_in_both_precisions(x64, name, dtype):
    operator = OPERATORS[name]
    x = jax.random.normal(jax.random.key(0), (2, 24, 20, 3), dtype)
    plain = operator(x)
    assert plain.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for variant in (
        jax.jit(operator)(x),
        jax.vmap(operator)(x[:, None])[:, 0],
        operator(x.astype("float64")),
    ):
        np.testing.assert_allclose(variant, plain, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "name", ["dip_mse_x4_64x64", "dip_charbonnier_x4_64x96", "dip_charbonnier_x8_64x64_small"]
)
def test_strided_lanczos_equals_the_reference(x64, shared, name):
    golden = np.load(shared / "golden" / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    operator = operators.downsample(meta["factor"], kernel=meta["kernel"])
    ours = operator(jnp.asarray(golden["output"].transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(ours, golden["downsampled"].transpose(0, 2, 3, 1), rtol=1e-10)


@pytest.mark.parametrize("size", [(64, 48), (67, 50)])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize(
    "kernel, resampling",
    [
        ("pillow-lanczos", Resampling.LANCZOS),
        ("pillow-bicubic", Resampling.BICUBIC),
        ("area", Resampling.BOX),
    ],
)
def test_pillow_kernels_equal_pillow(x64, size, factor, kernel, resampling):
    if kernel == "area":  # elsewhere Pillow's box takes whole pixels, not their parts
        size = (size[0] // factor * factor, size[1] // factor * factor)
    height, width = size
    image = np.random.default_rng(2).random((height, width)).astype(np.float32)
    expected = PIL.Image.fromarray(image).resize((width // factor, height // factor), resampling)
    operator = operators.downsample(factor, kernel=kernel)
    ours = operator(jnp.asarray(image, "float64")[None, ..., None])
    np.testing.assert_allclose(ours[0, ..., 0], expected, rtol=0, atol=1e-6)


def test_pillow_lanczos_makes_pillows_low_resolution_within_its_rounding(shared):
    picture = PIL.Image.open(shared / "data" / "Set5" / "butterfly.png")
    width, height = picture.size
    expected = np.asarray(picture.resize((width // 4, height // 4), Resampling.LANCZOS), float)
    pixels = images.from_uint8(np.asarray(picture))
    ours = np.clip(operators.downsample(4)(pixels[None])[0] * 255, 0, 255)
    error = np.abs(ours - expected)
    # Half a level from each of Pillow's two passes; more only where the first one clipped.
    assert np.mean(error <= 1.1) > 0.999 and np.sqrt(np.mean(error**2)) < 0.5


def test_matlab_bicubic_equals_imresize(x64):
    image = np.random.default_rng(3).random((24, 36, 3))
    for factor in (2, 3, 4):
        ours = operators.downsample(factor, kernel="matlab-bicubic")(jnp.asarray(image))
        np.testing.assert_allclose(ours, resample.imresize(image, 1 / factor), rtol=0, atol=1e-14)
    ours = operators.downsample(5, kernel="matlab-bicubic")(jnp.asarray(image))
    expected = resample.imresize(image, size=(4, 7))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
def test_any_size_of_at_least_the_factor(kernel):
    operator = operators.downsample(4, kernel=kernel)
    for height, width in ((4, 4), (5, 7), (11, 13)):
        ours = operator(jnp.full((1, height, width, 1), 0.25))
        expected = np.full((1, height // 4, width // 4, 1), 0.25)
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    with pytest.raises(InputError, match=r"`factor` \(=4\) must be at most .* 9x3"):
        operator(jnp.zeros((1, 3, 9, 1)))


@pytest.mark.parametrize(
    ("operator", "seen", "said"),
    [
        ("identity", np.zeros((1, 4, 4, 1), np.float32), "`operator` .* must be a function"),
        (operators.identity, np.zeros((1, 4, 4, 1), np.uint8), r"\(of uint8\) must hold floats"),
        (operators.identity, np.full((1, 4, 4, 1), np.nan), "observation must be finite"),
        (
            operators.identity,
            np.zeros((1, 4, 4, 3), np.float32),
            r"must be of shape \(1, 4, 4, 1\)",
        ),
    ],
)
def test_an_observation_that_no_image_gives(x64, operator, seen, said):
    images = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    with pytest.raises(InputError, match=said):
        operators.require_observation(seen, operator, images)


@pytest.mark.parametrize("factor", [0, 1, -2, 2.5, 4.0, True, "4", None])
def test_bad_factor(factor):
    rule = rf"`factor` \(={factor}\) must be (an integer|at least 2)"
    with pytest.raises(InputError, match=rule):
        operators.downsample(factor)


def test_unknown_kernel_names_the_known_ones():
    with pytest.raises(InputError, match=r"'bicubic'.*lanczos2, .*, pillow-lanczos, .*, area"):
        operators.downsample(4, kernel="bicubic")


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 7), (9, 1), (31, 3), (3, 31), (41, 45)])
def test_blur_is_a_convolution_with_replicated_borders(x64, shape):
    rng = np.random.default_rng(4)
    image, kernel = rng.random((13, 11)), rng.standard_normal(shape)
    ours = operators.blur(kernel)(jnp.asarray(image)[None, ..., None])
    expected = ndimage.convolve(image, kernel, mode="nearest")
    np.testing.assert_allclose(ours[0, ..., 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [np.ones(3), np.ones((4, 3)), np.ones((0, 0)), [[np.nan]]])
def test_bad_blur_kernels(kernel):
    with pytest.raises(InputError, match="`kernel`"):
        operators.blur(kernel)


def test_a_blurs_kernel_may_be_traced(x64):
    """The operator is linear in it: each number's slope is the image blurred by that tap alone."""
    rng = np.random.default_rng(5)
    image, weights = rng.random((1, 9, 8, 2)), rng.random((1, 9, 8, 2))
    kernels = rng.random((2, 3, 5))
    kernels[1] = np.outer(kernels[1, :, 0], kernels[1, 0])

    def seen(kernel):
        return operators.blur(kernel)(jnp.asarray(image))

    found = jax.jit(jax.vmap(seen))(kernels)
    expected = [ndimage.convolve(image, k[None, ..., None], mode="nearest") for k in kernels]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    slopes = jax.grad(lambda kernel: (seen(kernel) * weights).sum())(jnp.asarray(kernels[0]))
    for place in np.ndindex(3, 5):
        tap = np.zeros((1, 3, 5, 1))
        tap[0, *place, 0] = 1
        expected = (ndimage.convolve(image, tap, mode="nearest") * weights).sum()
        assert float(slopes[place]) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InputError, match="must be 2-D with odd sides"):
        jax.jit(seen)(np.ones((2, 3)))
    half = jax.jit(seen)(jnp.asarray(kernels[0], jnp.bfloat16))
    rounded = np.asarray(jnp.asarray(kernels[0], jnp.bfloat16), np.float64)
    np.testing.assert_allclose(half, seen(rounded), rtol=0, atol=1e-13)


def test_a_blur_stays_what_it_was():
    kernel, x = MOTION.copy(), jax.random.uniform(jax.random.key(0), (1, 24, 20, 1))
    operator = operators.blur(kernel)
    before = operator(x)
    kernel[:] = 0
    np.testing.assert_array_equal(operator(x), before)


def test_blur_of_half_precision_is_computed_in_float32():
    x = jax.random.uniform(jax.random.key(0), (1, 24, 20, 3)).astype(jnp.bfloat16)
    found = OPERATORS["blur"](x)
    assert found.dtype == jnp.bfloat16
    expected = OPERATORS["blur"](x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(found, expected)


def test_mask_keeps_what_was_observed():
    x = jax.random.normal(jax.random.key(0), (2, 24, 20, 3))
    by_channel = np.stack([OBSERVED, ~OBSERVED, OBSERVED], -1)
    for observed in (OBSERVED, OBSERVED[..., None], by_channel):
        full = observed.reshape(24, 20, -1) | np.zeros((24, 20, 3), bool)
        np.testing.assert_array_equal(operators.mask(observed)(x), np.where(full, x, 0))
        unknown = jnp.where(full, x, jnp.nan)
        np.testing.assert_array_equal(operators.mask(observed)(unknown), np.where(full, x, 0))
    with pytest.raises(InputError, match="must fit the image"):
        operators.mask(OBSERVED)(x[:, 1:])
    with pytest.raises(InputError, match=r"must be .H, W."):
        operators.mask(OBSERVED[0])
    for other in (255 * OBSERVED.astype(np.uint8), np.where(OBSERVED, 1, np.nan)):
        with pytest.raises(InputError, match="must hold nothing but 0 and 1"):
            operators.mask(jnp.asarray(other))
        with pytest.raises(InputError, match="must hold nothing but 0 and 1"):
            operators.mask(other)


def test_a_mask_stays_what_it_was():
    observed = OBSERVED.copy()
    operator, x = operators.mask(observed), jnp.ones((24, 20, 1))
    observed[:] = True
    np.testing.assert_array_equal(operator(x)[..., 0], OBSERVED)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_can_be_pickled(name):
    operator, x = OPERATORS[name], jnp.ones((1, 24, 20, 3))
    again = pickle.loads(pickle.dumps(operator))
    np.testing.assert_array_equal(again(x), operator(x))
    assert again == operator and hash(again) == hash(operator)


def test_masks_may_be_traced():
    x = jax.random.normal(jax.random.key(0), (24, 20, 3))
    masks = np.stack([OBSERVED, ~OBSERVED])
    found = jax.jit(jax.vmap(lambda observed: operators.mask(observed)(x)))(masks)
    np.testing.assert_array_equal(found, np.where(masks[..., None], x, 0))


def test_compositions_are_of_functions():
    with pytest.raises(InputError, match=r"`operator` \(=3\) must be a function"):
        operators.compose(operators.identity, 3)


def test_crop_keeps_the_middle():
    x = jnp.arange(24 * 20.0).reshape(1, 24, 20, 1)
    np.testing.assert_array_equal(operators.crop(17, 12)(x), x[:, 3:20, 4:16])
    np.testing.assert_array_equal(operators.crop(24, 20)(x), x)
    with pytest.raises(InputError, match="must fit"):
        operators.crop(25, 3)(x)
    with pytest.raises(InputError, match=r"`height` \(=0\) must be at least 1"):
        operators.crop(0, 3)
    with pytest.raises(InputError, match=r"`height` \(=2.5\) must be an integer"):
        operators.crop(2.5, 3)


def test_equal_arguments_make_equal_operators():
    """So `jax.jit` compiles for one alone; counted as it traces."""

    known = OBSERVED[:9, :9]

    def made(factor=2, kernel="area", side=8, taps=MOTION, observed=known):
        return operators.compose(
            operators.mask(observed),
            operators.blur(taps),
            operators.crop(side, 8),
            operators.downsample(factor, kernel=kernel),
        )

    traced = []

    @functools.partial(jax.jit, static_argnames="operator")
    def seen(x, operator):
        traced.append(operator)
        return operator(x)

    x = jnp.ones((1, 9, 9, 1))
    others = (made(factor=4), made(kernel="lanczos2"), made(side=6))
    others += (made(taps=2 * MOTION), made(observed=~known), made(observed=known[..., None]))
    alike = made(taps=MOTION.tolist(), observed=jnp.asarray(known, jnp.float32))
    for operator in (made(), made(), alike, *others):
        seen(x, operator=operator)
    assert traced == [made(), *others]
    assert operators.mask(np.ones((3, 3))) != operators.blur(np.ones((3, 3)))

    def of_traced(array):
        operator = operators.mask(array)
        assert operator == operator and operator != operators.mask(array)
        return operator(x)

    jax.jit(of_traced)(known)


def test_compose_goes_from_left_to_right():
    x = jax.random.normal(jax.random.key(0), (1, 24, 20, 3))
    crop, down = operators.crop(16, 8), operators.downsample(4)
    np.testing.assert_array_equal(operators.compose(crop, down)(x), down(crop(x)))
    np.testing.assert_array_equal(operators.compose()(x), x)


@pytest.mark.parametrize("name", ["area-2", "lanczos2-3", "blur", "crop"])
def test_an_image_has_three_axes(name):
    with pytest.raises(InputError, match=r"\(of shape \(24, 20\)\) must be \(\.\.\., H, W, C\)"):
        OPERATORS[name](jnp.zeros((24, 20)))


@pytest.mark.parametrize("name", ["area-2", "lanczos2-3", "blur", "mask"])
def test_integers_are_refused_where_weights_would_be_rounded_to_them(name):
    with pytest.raises(InputError, match=r"\(of uint8\) must hold floats"):
        OPERATORS[name](np.full((24, 20, 3), 200, np.uint8))


def test_blur_by_a_kernel_that_is_nearly_separable(x64):
    rng = np.random.default_rng(0)
    kernel = np.outer(rng.random(5), rng.random(7)) + 1e-6 * rng.standard_normal((5, 7))
    image = rng.random((13, 11))
    found = operators.blur(kernel)(jnp.asarray(image)[None, ..., None])[0, ..., 0]
    np.testing.assert_allclose(found, ndimage.convolve(image, kernel, mode="nearest"), atol=1e-12)
