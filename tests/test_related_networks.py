"""SRCNN, FSRCNN, VDSR and DRCN against loops in NumPy, and through training and upscaling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from experiments import networks
from jaxsr import pretrained, training, upscaling
from jaxsr.errors import InputError
from jaxsr.models import DRCN, FSRCNN, SRCNN, VDSR, LapSRN
from jaxsr.resample import imresize

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SMALL = [
    SRCNN(factor=3, features=(4, 3)),
    SRCNN(factor=2, sizes=(5, 1, 3), features=(3, 2)),
    FSRCNN(factor=4, features=5, shrunk=3, depth=2),
    FSRCNN(factor=3, features=4, shrunk=2, depth=1),
    VDSR(factor=2, depth=4, features=3),
    DRCN(factor=3, depth=3, features=3),
]
NAMES = [f"{type(model).__name__}-{model.factor}" for model in SMALL]


@functools.cache
def drawn(model, *, biased=True):
    """Weights that are all different numbers, float64; biases and slopes 0 unless `biased`."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    rng = np.random.default_rng(0)

    def draw(leaf):
        values = rng.standard_normal(leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return values * (biased or leaf.ndim > 1)

    return jax.tree.map(draw, shapes)


def convolve(x, layer):
    """(H, W, C) under a filter and bias, zeros beyond the border: one channel after another."""
    kernel, bias = layer["kernel"], layer["bias"]
    planes = [
        sum(
            scipy.ndimage.correlate(x[..., c], kernel[..., c, k], mode="constant")
            for c in range(x.shape[-1])
        )
        for k in range(kernel.shape[-1])
    ]
    return np.stack(planes, -1) + bias


def relu(x):
    return np.maximum(x, 0)


def expected(model, params, image):
    """All images of a call on (H, W, 1), by the papers' formulae."""
    factor = model.factor
    if isinstance(model, FSRCNN):
        x = image
        names = ["features", "shrink", *(f"map_{i}" for i in range(model.depth)), "expand"]
        for name in names:
            x = convolve(x, params[name])
            x = np.where(x > 0, x, params[f"{name}_slope"] * x)
        kernel, bias = params["up"]["kernel"], params["up"]["bias"]
        height, width, channels = x.shape
        large = np.zeros((factor * height + 8, factor * width + 8))
        for i, j in np.ndindex(height, width):
            for c in range(channels):
                window = np.s_[factor * i : factor * i + 9, factor * j : factor * j + 9]
                large[window] += x[i, j, c] * kernel[:, :, c, 0]
        cut = (9 - factor) // 2
        part = large[cut : cut + factor * height, cut : cut + factor * width]
        return [part[..., None] + bias]
    x = enlarged = imresize(image, factor)
    if isinstance(model, SRCNN):
        for i in range(3):
            x = convolve(relu(x) if i else x, params[f"conv_{i}"])
        return [x]
    if isinstance(model, VDSR):
        for i in range(model.depth):
            x = convolve(relu(x) if i else x, params[f"conv_{i}"])
        return [enlarged + x]
    for i in range(2):
        x = relu(convolve(x, params[f"embed_{i}"]))
    found = []
    for _ in range(model.depth):
        x = relu(convolve(x, params["infer"]))
        wide = relu(convolve(x, params["draw_0"]))
        found.append(enlarged + convolve(wide, params["draw_1"]))
    weights = np.exp(params["weights"]) / np.exp(params["weights"]).sum()
    return [*found, sum(w * image for w, image in zip(weights, found, strict=True))]


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_equals_a_loop(x64, model):
    variables = drawn(model)
    image = np.random.default_rng(1).random((9, 7, 1))
    found = jax.jit(model.apply)(variables, jnp.asarray(image)[None])
    wanted = expected(model, variables["params"], image)
    assert len(found) == len(wanted) == len(model.enlargements)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (SRCNN(), 57_281),  # 9-5-5, biases included
        (FSRCNN(), 12_464 + 5 * 12 + 2 * 56 + 1 + 5 * 12 + 2 * 56),  # published without the latter
        (VDSR(), 664_704 + 19 * 64 + 1),  # published without biases
        (DRCN(), 1_775_121),
    ],
)
def test_has_the_published_parameters(model, parameters):
    luma = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), luma)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_tiles_leave_no_seams(x64, model):
    """A window that reaches as far as the margin gives what the whole image gives."""
    variables = drawn(model, biased=False)
    image = np.random.default_rng(2).random((41, 23, 1))
    whole = upscaling.upscale(image, model, variables)
    tiled = upscaling.upscale(image, model, variables, tile=7)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert whole.shape == (41 * model.factor, 23 * model.factor, 1)


@pytest.mark.parametrize("model", SMALL, ids=NAMES)
def test_levels_give_the_first_images(x64, model):
    variables, image = drawn(model), jnp.asarray(np.random.default_rng(3).random((1, 6, 5, 1)))
    apply = jax.jit(model.apply, static_argnames="levels")
    whole = apply(variables, image)
    for levels in range(1, len(whole) + 1):
        found = apply(variables, image, levels=levels)
        assert len(found) == levels
        for ours, theirs in zip(found, whole, strict=False):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    for levels in (-1, 0, len(whole) + 1):
        rule = "at least 1" if levels < 1 else f"at most {len(whole)}"
        said = rf"`levels` \(={levels}\) must be {rule}"
        with pytest.raises(InputError, match=said):
            apply(variables, image, levels=levels)


def test_the_images_of_drcn_see_ever_further(x64):
    """An impulse, without biases and with weights above 0: whoever sees it is not 0.

    But for the first, to whom the bicubic gives it the weight 0.
    """
    model = SMALL[-1]
    variables = jax.tree.map(np.abs, drawn(model, biased=False))
    middle = 12
    impulse = jnp.zeros((1, 2 * middle + 1, 2 * middle + 1, 1)).at[0, middle, middle].set(1.0)
    for levels, result in enumerate(jax.jit(model.apply)(variables, impulse), start=1):
        touched = np.flatnonzero(np.abs(np.asarray(result[0, ..., 0])).max(1) > 1e-15)
        sees = [model.receptive_field(p, p, levels=levels) for p in range(result.shape[1])]
        expected = [p for p, (first, last) in enumerate(sees) if first <= middle <= last]
        assert (touched.min(), touched.max()) == (expected[0] + 1, expected[-1])


def test_the_mean_of_drcn_is_not_rounded_to_the_type_of_its_layers():
    model = SMALL[-1].clone(dtype=jnp.bfloat16)
    variables = jax.tree.map(jnp.float32, drawn(model))
    image = jnp.asarray(np.random.default_rng(4).random((1, 6, 6, 1), np.float32))
    *found, mean = model.apply(variables, image)
    weights = np.exp(np.float64(variables["params"]["weights"]))
    expected = np.tensordot(weights / weights.sum(), np.float64(found), 1)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("model", SMALL[:5:2] + SMALL[5:], ids=str)
def test_trains_and_comes_back(compiled_quickly, tmp_path, model):
    weights = networks.level_weights(model)
    assert sum(weights) == pytest.approx(1)
    size = 6 * model.factor
    config = training.Config(level_weights=weights, batch=2, size=size)
    state = training.init(jax.random.key(0), model=model, config=config)
    images = jnp.asarray(np.random.default_rng(0).random((2, size, size, 1), np.float32))
    step = jax.jit(functools.partial(training.step, model=model, config=config))
    losses = []
    for _ in range(4):
        state, metrics = step(state, images)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    pretrained.save(tmp_path, model, state.variables)
    found, variables = pretrained.load(tmp_path)
    assert found == model
    jax.tree.map(np.testing.assert_array_equal, variables, state.variables)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SRCNN(sizes=(8, 6, 4)), r"`sizes` \(=\(8, 6, 4\)\) must be three odd numbers"),
        (SRCNN(sizes=(9, 5)), r"`sizes` \(=\(9, 5\)\) must be three odd numbers"),
        (SRCNN(features=(64, 32, 16)), r"`features` \(=\(64, 32, 16\)\) must be two numbers"),
        (SRCNN(features=(64, 0)), r"`features` \(=0\) must be at least 1"),
        (VDSR(depth=0), r"`depth` \(=0\) must be at least 1"),
        (FSRCNN(depth=-1), r"`depth` \(=-1\) must be at least 1"),
        (FSRCNN(shrunk=0), r"`shrunk` \(=0\) must be at least 1"),
        (DRCN(depth=0), r"`depth` \(=0\) must be at least 1"),
        (LapSRN(features=0), r"`features` \(=0\) must be at least 1"),
        (LapSRN(depth=2.0), r"`depth` \(=2.0\) must be an integer"),
        (LapSRN(factor=4.0, pyramid=False), r"`factor` \(=4.0\) must be an integer"),
    ],
)
def test_settings_that_no_network_has(model, said):
    with pytest.raises(InputError, match=said):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_refusals():
    with pytest.raises(InputError, match=r"`factor` \(=5\) must be 2, 3, 4 or 8"):
        VDSR(factor=5).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(InputError, match="must be luma"):
        SRCNN().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    with pytest.raises(InputError, match=r"`--depth` \(=3\) goes with `--network lapsrn`"):
        networks.build("vdsr", 4, None, depth=3)
