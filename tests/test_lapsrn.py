import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from jaxsr import strips
from jaxsr.convolution import conv_transpose
from jaxsr.errors import InputError
from jaxsr.models import LapSRN
from jaxsr.models.lapsrn import _bilinear
from jaxsr.resample import double_bilinear
from jaxsr.weights import lapsrn_from_mat

SMALL = LapSRN(depth=1, features=3)

# Most of these tests' time is compilation, for programs that run once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def drawn(model, *, dtype=np.float64, seed=0):
    """Variables, all different numbers of the size that they are initialised to."""
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), luma)
    rng = np.random.RandomState(seed)

    def draw(shape):
        return (rng.uniform(-1, 1, shape.shape) / np.sqrt(np.prod(shape.shape[:-1]))).astype(dtype)

    return jax.tree.map(draw, shapes)


def luma_of(*shape, dtype=np.float64):
    return np.random.RandomState(1).uniform(0, 1, (*shape, 1)).astype(dtype)


def spread(x, w, stride, first):
    """`conv_transpose` by its definition, one pixel after another."""
    n, height, width, _ = x.shape
    size, reach = w.shape[0], max(w.shape[0], stride) + first
    whole = np.zeros((n, stride * height + reach, stride * width + reach, w.shape[3]))
    for i, j in np.ndindex(height, width):
        rows, columns = (slice(stride * k, stride * k + size) for k in (i, j))
        whole[:, rows, columns] += np.einsum("nc,hwck->nhwk", x[:, i, j], w)
    return whole[:, first : first + stride * height, first : first + stride * width]


@pytest.mark.parametrize(
    ("size", "stride", "first"),
    [(3, 2, 0), (3, 2, 1), (4, 2, 0), (4, 2, 1), (8, 2, 3), (8, 4, 2), (3, 4, 0)],
)
def test_conv_transpose_equals_its_definition(x64, size, stride, first):
    """In value a loop's, in gradients those of an image spread with zeros."""
    rng = np.random.RandomState(0)
    x, w = rng.normal(size=(2, 3, 4, 3)), rng.normal(size=(size, size, 3, 2))
    dy = rng.normal(size=(2, 3 * stride, 4 * stride, 2))
    edges = (size - 1 - first, stride - 1 + first)

    def dilated(x, w):
        return lax.conv_general_dilated(
            x,
            w[::-1, ::-1],
            (1, 1),
            (edges, edges),
            lhs_dilation=(stride, stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    @functools.partial(jit, static_argnums=0)
    def all_three(f, x, w):
        value, pull = jax.vjp(f, x, w)
        return value, *pull(dy)

    ours = functools.partial(conv_transpose, stride=stride, first=first)
    found, expected = all_three(ours, x, w), all_three(dilated, x, w)
    np.testing.assert_allclose(found[0], spread(x, w, stride, first), rtol=0, atol=1e-12)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def reference(model, variables, image):
    """The network in NumPy, from its description."""
    params = variables["params"]

    def conv(x, name):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        found = np.einsum("nyxcij,ijck->nyxk", windows, params[name]["kernel"])
        return found + params[name]["bias"]

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    def enlarge(x, name, stride):
        kernel = params[name]["kernel"]
        bias = params[name].get("bias", 0)
        return spread(x, kernel, stride, (kernel.shape[0] - stride) // 2) + bias

    doublings = {2: 1, 4: 2, 8: 3}[model.factor]
    depth, stride = model.depth, 2
    if not model.pyramid:
        depth, stride, doublings = depth * doublings, model.factor, 1
    x, images = leaky(conv(image, "input")), []
    for level in range(doublings):
        for i in range(depth):
            x = leaky(conv(x, f"level_{level}_conv_{i}"))
        x = leaky(enlarge(x, f"level_{level}_up", stride))
        detail = conv(x, f"level_{level}_detail")
        if model.residual:
            detail = detail + enlarge(image, f"level_{level}_image", stride)
        image = detail
        images.append(image)
    return images


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 2},
        {"factor": 8, "spread": 3},
        {"spread": 3, "residual": False},
        {"pyramid": False},
        {"factor": 2, "pyramid": False, "residual": False},
    ],
)
@pytest.mark.parametrize(("pixels", "rows"), [(strips.PIXELS, strips.ROWS), (60, 1), (1, 1)])
def test_equals_its_description(x64, monkeypatch, settings, pixels, rows):
    """Every image of a batch of odd size, with the paper's ingredients and without.

    The last features whole, and in strips of rows: several, one of each, the last one shorter.
    """
    monkeypatch.setattr(strips, "PIXELS", pixels)
    monkeypatch.setattr(strips, "ROWS", rows)
    model = SMALL.clone(**settings)
    variables, luma = drawn(model), luma_of(2, 5, 3)
    assert ("level_0_image" in variables["params"]) == model.residual
    # A function of its own: JAX would know that of another test again, and not look at the strips.
    images = jit(lambda *args: model.apply(*args))(variables, luma)
    expected = reference(model, variables, luma)
    assert len(images) == model.levels == len(expected)
    assert images[-1].shape == (2, 5 * model.factor, 3 * model.factor, 1)
    for a, b in zip(images, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_elsewhere_only_what_is_huge_is_in_strips():
    """By the loop in what is lowered for a GPU; and what is empty stays."""

    def loops(height, width):
        image = jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32)
        function = jax.jit(lambda x: strips.by_rows(lambda x: 2 * x, x, scale=1, reach=1))
        return "while" in function.trace(image).lower(lowering_platforms=("cuda",)).as_text()

    assert loops(5000, 4000) and not loops(300, 300)
    empty = strips.by_rows(lambda x: 2 * x, jnp.zeros((0, 8, 8, 1)), scale=1, reach=1)
    assert empty.shape == (0, 8, 8, 1)


@pytest.mark.parametrize("settings", [{}, {"spread": 3}, {"pyramid": False}])
def test_strips_of_rows_have_the_gradients_of_the_whole(x64, monkeypatch, settings):
    model = SMALL.clone(**settings)
    variables, luma = drawn(model), luma_of(2, 13, 4)
    weights = np.random.RandomState(1).normal(size=(2, 52, 16, 1))

    def gradients():
        def inner(variables, luma):
            return (weights * model.apply(variables, luma)[-1]).sum()

        return jax.tree.leaves(jit(jax.grad(inner, (0, 1)))(variables, luma))

    whole = gradients()
    monkeypatch.setattr(strips, "PIXELS", 40)
    monkeypatch.setattr(strips, "ROWS", 1)
    for a, b in zip(gradients(), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def test_what_the_layers_give_can_be_kept(monkeypatch):
    monkeypatch.setattr(strips, "PIXELS", 1)
    monkeypatch.setattr(strips, "ROWS", 1)
    variables, luma = drawn(SMALL, dtype=np.float32), luma_of(1, 6, 7, dtype=np.float32)
    options = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, kept = jit(functools.partial(SMALL.apply, **options))(variables, luma)
    assert kept["intermediates"].keys() - {"__call__"} == variables["params"].keys()


def test_strips_of_a_wide_image_are_not_mostly_what_others_compute_too():
    heights = []

    def blurred(x):
        heights.append(x.shape[1])
        return (x[:, :-4] + x[:, 4:])[:, :1] + x

    wide = jnp.zeros((1, 64, strips.PIXELS, 1))
    jit(lambda x: strips.by_rows(blurred, x, scale=1, reach=2)).lower(wide)
    assert min(heights) == 2 * 8 + 2 * 2


def test_strips_of_rows_need_less_memory(monkeypatch):
    model = LapSRN(depth=1, features=16)
    variables, luma = drawn(model, dtype=np.float32), luma_of(1, 40, 50, dtype=np.float32)

    def memory():
        program = jit(lambda *args: model.apply(*args)).lower(variables, luma).compile()
        return program.memory_analysis().temp_size_in_bytes

    whole = memory()
    monkeypatch.setattr(strips, "PIXELS", 1000)
    assert memory() < 0.7 * whole


@pytest.mark.parametrize("factor", [2, 4])
def test_official_weights_give_the_official_images(x64, shared, factor):
    model, variables = lapsrn_from_mat(shared / "weights" / f"LapSRN_x{factor}.mat")
    variables = jax.tree.map(lambda x: x.astype(np.float64), variables)
    with np.load(shared / "golden" / "lapsrn_official.npz") as golden:
        images = jit(model.apply)(variables, golden[f"x{factor}_input"][None, :, :, None])
        assert len(images) == model.levels
        for level, image in enumerate(images):
            expected = golden[f"x{factor}_level{level + 1}"]
            np.testing.assert_allclose(image[0, :, :, 0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"factor": 2, "depth": 10, "spread": 3}, 407_441),
        ({"factor": 4, "depth": 10, "spread": 3}, 814_242),
        ({"factor": 8, "depth": 5, "spread": 3}, 667_123),
    ],
)
def test_has_the_published_number_of_parameters(settings, count):
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    variables = jax.eval_shape(LapSRN(**settings).init, jax.random.key(0), luma)
    assert sum(x.size for x in jax.tree.leaves(variables)) == count
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_stopping_at_a_level_costs_its_share(x64):
    """The same image; and the second level has four times the pixels of the first."""
    variables, luma = drawn(SMALL), luma_of(1, 6, 7)
    whole = jit(SMALL.apply).lower(variables, luma).compile()
    part = jit(functools.partial(SMALL.apply, levels=1)).lower(variables, luma).compile()
    (image,) = part(variables, luma)
    np.testing.assert_allclose(image, whole(variables, luma)[0], rtol=0, atol=1e-14)
    assert part.cost_analysis()["flops"] < 0.35 * whole.cost_analysis()["flops"]


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_bilinear_filters_enlarge_bilinearly(x64, stride):
    """Half-pixel centres; zeros are beyond the border, so that only the interior agrees."""
    x = luma_of(1, 5, 6)
    kernel = _bilinear(jax.random.key(0), (2 * stride, 2 * stride, 1, 1), jnp.float64)
    found = conv_transpose(x, kernel, stride, stride // 2)
    expected = jax.image.resize(x, (1, 5 * stride, 6 * stride, 1), "bilinear")
    inside = (slice(None), *(slice(stride // 2, -stride // 2),) * 2)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=1e-14)


def test_starts_from_the_bilinear_image():
    """What the new network adds to it comes from the features alone."""
    model, luma = SMALL.clone(features=64), luma_of(1, 6, 5, dtype=np.float32)
    variables = jit(model.init)(jax.random.key(0), luma)
    features = []
    for name, part in variables["params"].items():
        if name.endswith("detail"):
            part["kernel"] = jnp.zeros_like(part["kernel"])
        elif not name.endswith("image"):
            features.append((name, np.asarray(part["kernel"])))
        np.testing.assert_array_equal(part.get("bias", 0), 0)
    expected = luma
    for level, image in enumerate(jit(model.apply)(variables, luma)):
        expected = double_bilinear(expected)
        inside = (slice(None), *(slice(2 * level + 1, -2 * level - 1),) * 2)
        np.testing.assert_allclose(image[inside], expected[inside], atol=1e-6)

    assert len(features) == 5
    for name, kernel in features:
        # He et al. (2015): an output's inputs are pixels; of a 4x4 filter 2 apart it sees 2x2.
        pixels = 4 if name.endswith("up") else 9
        scaled = kernel / np.sqrt(2 / (pixels * kernel.shape[2]))
        unit = stats.truncnorm(-2, 2).std()
        if not name.endswith("up"):
            means, count = scaled.mean((0, 1, 2), keepdims=True), scaled[..., 0].size
            np.testing.assert_allclose(means, 0, atol=1e-6, err_msg=name)
            # With the means that were taken out, drawn anew, they are normal draws again.
            taken = np.random.RandomState(0).normal(size=means.shape) / np.sqrt(count)
            scaled = scaled + taken
        assert stats.kstest((scaled * unit).ravel(), stats.truncnorm(-2, 2).cdf).pvalue > 0.001, (
            name
        )


def test_a_new_network_answers_to_contrast_alone():
    """Inside a constant image of any brightness nothing is added to it: filters are centred."""
    luma = np.full((1, 12, 12, 1), 0.7, np.float32)
    features = LapSRN(depth=1, residual=False)
    variables = jit(features.init)(jax.random.key(0), luma)
    images = jit(features.apply)(variables, luma)
    assert np.abs(images[0][:, 8:-8, 8:-8]).max() < 1e-6
    assert np.abs(images[0]).max() > 0.01  # at the borders, whose padding is an edge


@pytest.mark.parametrize("settings", [{"spread": 3}, {"spread": 4}, {"pyramid": False}])
def test_spreading_starts_without_gain(settings):
    """LeakyReLU halves the power of what comes in, filters double it: on average over phases."""
    model = LapSRN(depth=1, **settings)
    luma = luma_of(1, 4, 4, dtype=np.float32)
    start = jit(lambda key: model.init(key, luma)["params"]["level_0_up"])
    kernel = np.asarray(start(jax.random.key(0))["kernel"], np.float64)
    stride = 2 if model.pyramid else 4
    assert (kernel**2).sum() / (stride**2 * model.features) == pytest.approx(2, rel=0.02)


def test_bfloat16_is_close_to_float32():
    variables, luma = drawn(SMALL, dtype=np.float32), luma_of(1, 7, 6, dtype=np.float32)
    half = SMALL.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), luma)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    exact = jit(SMALL.apply)(variables, luma)
    for image, expected in zip(jit(half.apply)(variables, luma), exact, strict=True):
        assert image.dtype == jnp.bfloat16 and expected.dtype == jnp.float32
        np.testing.assert_allclose(np.asarray(image, np.float32), expected, rtol=0, atol=2e-2)


def test_float64_input_has_float64_parameters(x64):
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float64)
    variables = jax.eval_shape(SMALL.init, jax.random.key(0), luma)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float64)}


@pytest.mark.parametrize(
    ("settings", "shape", "levels", "message"),
    [
        ({"factor": 3}, (1, 4, 4, 1), None, r"`factor` \(=3\) must be 2, 4 or 8"),
        ({"depth": 0}, (1, 4, 4, 1), None, r"`depth` \(=0\) must be at least 1"),
        ({"spread": 5}, (1, 4, 4, 1), None, r"`spread` \(=5\) must be 3 or 4"),
        ({}, (1, 4, 4, 1), 0, r"`levels` \(=0\) must be at least 1"),
        ({}, (1, 4, 4, 1), 3, r"`levels` \(=3\) must be at most 2"),
        ({"pyramid": False}, (1, 4, 4, 1), 2, r"`levels` \(=2\) must be at most 1"),
        ({}, (1, 4, 4, 3), None, r"\(of shape \(1, 4, 4, 3\)\) must be luma, \(N, H, W, 1\)"),
        ({}, (4, 4, 1), None, r"\(of shape \(4, 4, 1\)\) must be luma"),
    ],
)
def test_refuses_what_it_cannot_do(settings, shape, levels, message):
    init = functools.partial(SMALL.clone(**settings).init, levels=levels)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
