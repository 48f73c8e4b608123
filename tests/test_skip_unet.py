import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from jaxsr.weights import skip_unet_from_torch

GOLDEN = ("dip_mse_x4_64x64", "dip_charbonnier_x8_64x64_small", "dip_charbonnier_x4_64x96")
SMALL = {"down": (8,), "up": (8,), "skip": (4,)}

# Most of these tests' time is compilation, for programs that run once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def initialised(network, shape, seed=0, dtype=jnp.float32):
    latent = jax.random.uniform(jax.random.key(seed), shape, dtype, maxval=0.1)
    return jit(network.init)(jax.random.key(seed + 1), latent), latent


def convolutions(variables):
    """Every convolution's kernel and bias, by name."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(variables):
        *name, leaf = [key.key for key in path]
        if name[-1] == "conv":
            found.setdefault("/".join(name), {})[leaf] = np.asarray(x)
    return found


def relative_error(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", GOLDEN)
def test_equals_the_reference(golden_dip, name):
    """Output, observation, loss and every parameter's gradient, in float64."""
    golden = golden_dip(name)

    def objective(variables):
        image = golden.network.apply(variables, golden.latent)
        seen = golden.operator(image)
        return golden.loss(seen, golden.observation).mean(), (image, seen)

    gradient_of = jit(jax.value_and_grad(objective, has_aux=True))
    (value, (image, seen)), gradient = gradient_of(golden.variables)
    expected = golden.expected
    assert relative_error(image, expected["output"].transpose(0, 2, 3, 1)) < 1e-10
    assert relative_error(seen, expected["downsampled"].transpose(0, 2, 3, 1)) < 1e-10
    np.testing.assert_allclose(value, expected["losses"][0], rtol=1e-10)
    # Where a parameter went is told by its position, sent through the same conversion.
    positions = skip_unet_from_torch(
        {n: np.full(golden.state_dict[n].shape, i) for i, n in enumerate(golden.names)}
    )
    norms = np.full(len(golden.names), np.nan)
    jax.tree.map(
        lambda position, g: norms.__setitem__(position.flat[0], np.linalg.norm(g)),
        positions,
        gradient,
    )
    np.testing.assert_allclose(norms, expected["gradient_norms"], rtol=1e-8, atol=1e-12)


def test_has_the_reference_number_of_parameters():
    latent = jax.ShapeDtypeStruct((1, 64, 64, 32), jnp.float32)
    variables = jax.eval_shape(SkipUNet().init, jax.random.key(0), latent)
    assert sum(x.size for x in jax.tree.leaves(variables)) == 2_217_831
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_initialises_as_pytorch_does():
    """Convolutions, biases too, from U(+-1 / sqrt(fan in)); norms to scale 1 and shift 0."""
    network = SkipUNet(down=(64,), up=(64,), skip=(4,))
    variables, _ = initialised(network, (1, 4, 4, 32))
    found = convolutions(variables)
    assert len(found) == 6
    drawn = {"kernel": [], "bias": []}
    for name, arrays in found.items():
        for leaf, x in arrays.items():
            scaled = x.ravel() * np.sqrt(np.prod(arrays["kernel"].shape[:3]))
            assert np.abs(scaled).max() <= 1, (name, leaf)
            drawn[leaf].append(scaled)
    for leaf, parts in drawn.items():
        sample = np.concatenate(parts)
        assert stats.kstest(sample, stats.uniform(-1, 2).cdf).pvalue > 0.01, leaf
    for name in ("halve_0", "down_0", "skip_0", "up_0", "mix_0"):
        np.testing.assert_array_equal(variables["params"][name]["norm"]["scale"], 1)
        np.testing.assert_array_equal(variables["params"][name]["norm"]["bias"], 0)


@pytest.mark.parametrize(
    ("scales", "height", "width"),
    [(5, 63, 64), (5, 64, 96 + 16), (5, 32, 64), (5, 64, 32), (2, 4, 8)],
)
def test_refuses_sizes_it_cannot_halve(scales, height, width):
    network = SkipUNet(down=(4,) * scales, up=(4,) * scales, skip=(4,) * scales)
    latent = jax.ShapeDtypeStruct((1, height, width, 8), jnp.float32)
    with pytest.raises(
        InputError, match=rf"\(={width}x{height}\) must be multiples of {2**scales}"
    ):
        jax.eval_shape(network.init, jax.random.key(0), latent)


@pytest.mark.parametrize(
    "settings", [{"up": (8, 8)}, {"skip": ()}, {"down": (8, 8)}, {"down": (), "up": (), "skip": ()}]
)
def test_refuses_settings_that_differ_in_their_scales(settings):
    network = SkipUNet(**SMALL | settings)
    latent = jax.ShapeDtypeStruct((1, 8, 8, 5), jnp.float32)
    with pytest.raises(InputError, match=r"`down`, `up` and `skip` \(=\(.*\)\) must hold one"):
        jax.eval_shape(network.init, jax.random.key(0), latent)


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({"down": 128}, (1, 8, 8, 5), r"`down`, `up` and `skip` \(=128, "),
        ({"down": [8, 8]}, (1, 8, 8, 5), "must hold one"),
        ({"channels": 0}, (1, 8, 8, 5), r"`channels` \(=0\) must be at least 1"),
        ({"down": (8, 0, 8)}, (1, 16, 16, 5), r"`down` \(=0\) must be at least 1"),
        ({"skip": (4, -1, 4)}, (1, 16, 16, 5), r"`skip` \(=-1\) must be at least 0"),
        ({}, (16, 16, 5), r"the latent \(of shape \(16, 16, 5\)\) must be \(N, H, W, C\)"),
    ],
)
def test_refuses_settings_and_latents(settings, shape, said):
    network = SkipUNet(**{"down": (8,) * 3, "up": (8,) * 3, "skip": (4,) * 3} | settings)
    with pytest.raises(InputError, match=said):
        network.init(jax.random.key(0), jnp.zeros(shape))


def test_smallest_and_oblong_images():
    network = SkipUNet(**SMALL)
    variables, latent = initialised(network, (1, 4, 6, 5))
    image = jit(network.apply)(variables, latent)
    assert image.shape == (1, 4, 6, 3)
    assert image.min() > 0 and image.max() < 1


def test_gray():
    """One channel is the same network before its last convolution."""
    color, gray = SkipUNet(**SMALL), SkipUNet(**SMALL, channels=1)
    variables, latent = initialised(color, (1, 4, 4, 5))
    second = jax.tree.map(lambda x: x[..., 1:2], variables["params"]["image"])
    image = jit(gray.apply)({"params": variables["params"] | {"image": second}}, latent)
    expected = jit(color.apply)(variables, latent)[..., 1:2]
    np.testing.assert_allclose(image, expected, rtol=1e-5)


def test_without_skips():
    """The skip branch alone is missing, and the result does not look at it."""
    network = SkipUNet(down=(8,), up=(8,), skip=(0,))
    variables, latent = initialised(network, (1, 4, 4, 5))
    assert "skip_0" not in variables["params"]
    assert variables["params"]["join_0"]["scale"].shape == (8,)
    whole = SkipUNet(**SMALL)
    full, _ = initialised(whole, (1, 4, 4, 5))
    # A skip branch whose filters in the next convolution are 0 is none.
    params = dict(full["params"]) | {k: v for k, v in variables["params"].items() if k != "join_0"}
    join, up = variables["params"]["join_0"], variables["params"]["up_0"]
    params["join_0"] = jax.tree.map(lambda x: jnp.concatenate([jnp.ones(4), x]), join)
    kernel = up["conv"]["conv"]["kernel"]
    padded = jnp.concatenate([jnp.zeros((3, 3, 4, 8)), kernel], axis=2)
    conv = {"conv": up["conv"]["conv"] | {"kernel": padded}}
    params["up_0"] = up | {"conv": conv}
    expected = jit(whole.apply)({"params": params}, latent)
    np.testing.assert_allclose(jit(network.apply)(variables, latent), expected, rtol=1e-5)


def test_bfloat16_is_close_to_float32():
    network = SkipUNet(**SMALL)
    variables, latent = initialised(network, (1, 8, 8, 5))
    exact = jit(network.apply)(variables, latent)
    half = SkipUNet(**SMALL, dtype=jnp.bfloat16)
    assert (
        jax.eval_shape(half.init, jax.random.key(0), latent)["params"]["image"]["conv"][
            "kernel"
        ].dtype
        == jnp.float32
    )
    image = jit(half.apply)(variables, latent)
    assert image.dtype == jnp.float32
    np.testing.assert_allclose(image, exact, atol=0.03)
    assert np.abs(image - exact).max() > 1e-6, "bfloat16 was not used"


def test_float64_input_has_float64_parameters(x64):
    variables, latent = initialised(SkipUNet(**SMALL), (1, 4, 4, 5), dtype=jnp.float64)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float64)}
    assert jax.eval_shape(SkipUNet(**SMALL).apply, variables, latent).dtype == jnp.float64


def test_images_of_a_batch_do_not_see_each_other(x64):
    network = SkipUNet(**SMALL)
    variables, latent = initialised(network, (2, 4, 4, 5), dtype=jnp.float64)
    latent = latent * jnp.array([1.0, 30.0])[:, None, None, None]
    apply = jit(network.apply)
    alone = jnp.concatenate([apply(variables, z[None]) for z in latent])
    np.testing.assert_allclose(jit(network.apply)(variables, latent), alone, rtol=1e-12)


def test_under_jit_and_vmap_over_networks(x64):
    network = SkipUNet(**SMALL)
    latent = jax.random.uniform(jax.random.key(0), (1, 4, 4, 5), jnp.float64)
    keys = jax.random.split(jax.random.key(1), 2)
    many = jit(jax.vmap(network.init, (0, None)))(keys, latent)
    images = jit(jax.vmap(network.apply, (0, None)))(many, latent)
    for i in range(2):
        expected = jit(network.apply)(jax.tree.map(lambda x, i=i: x[i], many), latent)
        np.testing.assert_allclose(images[i], expected, rtol=1e-12)


def test_remat_gives_the_same_gradient_in_less_memory(x64):
    shape = {"down": (16,) * 2, "up": (16,) * 2, "skip": (4,) * 2}
    latent = jnp.asarray(np.random.RandomState(0).uniform(0, 0.1, (1, 128, 128, 8)))
    plain, remat = SkipUNet(**shape), SkipUNet(**shape, remat=True)
    variables = jit(plain.init)(jax.random.key(0), latent)
    programs = [
        jit(jax.grad(lambda v, model=model: (model.apply(v, latent) ** 2).sum()))
        .lower(variables)
        .compile()
        for model in (plain, remat)
    ]
    found = [jax.tree.leaves(program(variables)) for program in programs]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    kept, less = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert less < 0.8 * kept
