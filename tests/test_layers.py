import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from jaxsr import layers

jit = functools.partial(jax.jit, compiler_options={"xla_llvm_disable_expensive_passes": True})


def test_norm_is_as_accurate_as_the_wider_of_image_and_parameters(x64):
    """Standardised in NumPy, with gradients that have the types of what they are gradients of."""
    x = 100 + np.random.default_rng(0).normal(size=(1, 8, 8, 2))
    exact = (x - x.mean((1, 2))) / np.sqrt(x.var((1, 2)) + 1e-5)
    for image, narrow in ((jnp.float64, jnp.float32), (jnp.float32, jnp.bfloat16)):
        params = {"scale": jnp.ones(2, narrow), "bias": jnp.zeros(2, narrow)}

        def squares(params, x):
            return (layers.Norm().apply({"params": params}, x) ** 2).sum()

        y = layers.Norm().apply({"params": params}, jnp.asarray(x, image))
        assert y.dtype == image
        np.testing.assert_allclose(y, exact, atol=1e-10 if image == jnp.float64 else 1e-4)
        gradient = jax.grad(squares)(params, jnp.asarray(x, image))
        assert {value.dtype for value in gradient.values()} == {jnp.dtype(narrow)}
        np.testing.assert_allclose(gradient["scale"], 2 * 64, rtol=1e-2)


def test_reflect_pad_equals_numpy():
    x = np.random.RandomState(0).uniform(0, 1, (2, 2, 5, 3)).astype(np.float32)
    expected = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(layers.reflect_pad(jnp.asarray(x)), expected)


def test_norm_equals_numpy(x64):
    rng = np.random.RandomState(0)
    x = rng.uniform(0, 1, (2, 5, 6, 3)) * [1, 10, 0.01] + [0, 5, -3]
    x[1] *= 7
    scale, bias = rng.uniform(-1, 1, (2, 3))
    y = layers.Norm().apply({"params": {"scale": scale, "bias": bias}}, jnp.asarray(x))
    for n in range(2):
        for c in range(3):
            pixels = x[n, :, :, c]
            spread = np.sqrt(((pixels - pixels.mean()) ** 2).mean() + 1e-5)
            expected = (pixels - pixels.mean()) / spread * scale[c] + bias[c]
            np.testing.assert_allclose(y[n, :, :, c], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("slope", [1.0, 0.2])
def test_norm_gradient_equals_autodiff(x64, slope):
    """Of its definition, in value, gradient and the gradient's gradient."""
    rng = np.random.RandomState(0)
    x, dy = rng.normal(size=(2, 2, 5, 6, 3)) * [1, 10, 0.01]
    scale, bias = rng.uniform(-1, 1, (2, 3))

    def definition(x, scale, bias):
        spread = jnp.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
        y = (x - x.mean((1, 2), keepdims=True)) / spread * scale[None, None, None]
        y = y + bias[None, None, None]
        return jnp.where(y > 0, y, slope * y)

    def layer(x, scale, bias):
        return layers.Norm(slope=slope).apply({"params": {"scale": scale, "bias": bias}}, x)

    def gradient(f):
        return jax.grad(lambda *a: (f(*a) * dy).sum(), argnums=(0, 1, 2))

    def curvature(f):
        return jax.grad(lambda *a: sum((g**2).sum() for g in gradient(f)(*a)), argnums=(0, 1, 2))

    for of in (lambda f: f, gradient, curvature):
        found, expected = (jax.tree.leaves(jit(of(f))(x, scale, bias)) for f in (layer, definition))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max())


def test_norm_of_a_flat_and_of_a_bright_image():
    """No division by 0, and no cancellation far from 0."""
    params = {"params": {"scale": jnp.ones(1), "bias": jnp.full(1, 0.25)}}
    flat = layers.Norm().apply(params, jnp.full((1, 4, 4, 1), 0.7))
    np.testing.assert_allclose(flat, 0.25, atol=1e-4)
    checks = jnp.asarray(np.indices((4, 4)).sum(0) % 2, jnp.float32)[None, :, :, None]
    bright = layers.Norm().apply(params, 1000 + checks)
    np.testing.assert_allclose(bright, (2 * checks - 1) + 0.25, atol=1e-3)


def test_norm_keeps_half_precision_but_computes_wide():
    x = jnp.asarray(np.random.RandomState(0).uniform(5, 6, (1, 16, 16, 2)), jnp.bfloat16)
    variables = layers.Norm().init(jax.random.key(0), x)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    y = layers.Norm().apply(variables, x)
    assert y.dtype == jnp.bfloat16
    exact = layers.Norm().apply(variables, x.astype(jnp.float32))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_uniform_fan_in_is_the_distribution_of_pytorch():
    sample = np.asarray(layers.uniform_fan_in(36)(jax.random.key(0), (3, 3, 4, 128)))
    assert np.abs(sample).max() <= 1 / 6
    assert stats.kstest(sample.ravel(), stats.uniform(-1 / 6, 1 / 3).cdf).pvalue > 0.01


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_conv_layer_equals_its_definition(size, stride):
    """Reflect, correlate, add the bias; kernel and bias both within 1 / sqrt(fan in)."""
    x = jnp.asarray(np.random.RandomState(0).uniform(0, 1, (1, 9, 8, 4)), jnp.float32)
    layer = layers.Conv(64, size, stride)
    variables = jit(layer.init)(jax.random.key(0), x)
    kernel, bias = (np.asarray(variables["params"]["conv"][k]) for k in ("kernel", "bias"))
    bound = 1 / np.sqrt(4 * size**2)
    assert 0.8 * bound < np.abs(bias).max() <= bound
    assert 0.8 * bound < np.abs(kernel).max() <= bound
    edge = size // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
    expected = lax.conv_general_dilated(
        jnp.asarray(padded),
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert expected.shape == (1, -(-9 // stride), -(-8 // stride), 64)
    expected = np.asarray(expected) + bias
    np.testing.assert_allclose(jit(layer.apply)(variables, x), expected, rtol=1e-4, atol=1e-5)
