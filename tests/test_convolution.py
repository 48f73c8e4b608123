import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsr import convolution, im2col, winograd

# (batch, height, width, channels), features, size, stride
WINOGRAD = [
    ((1, 10, 10, 4), 4, 3, 1),
    ((2, 13, 8, 3), 5, 3, 1),
    ((1, 7, 11, 1), 2, 3, 1),
    ((1, 26, 26, 132), 20, 3, 1),
    ((1, 3, 20, 1), 1, 3, 1),
    ((1, 26, 26, 32), 9, 2, 1),
    ((2, 13, 29, 33), 10, 2, 1),
]
IM2COL = [
    ((1, 4, 5, 32), 32, 3, 1),
    ((1, 6, 6, 132), 128, 3, 1),
    ((1, 6, 6, 64), 64, 2, 1),
    ((1, 26, 26, 31), 40, 2, 1),
    ((2, 12, 9, 3), 5, 3, 2),
    ((1, 11, 14, 4), 6, 3, 2),
    ((1, 11, 12, 4), 3, 3, 3),
    ((2, 7, 6, 132), 4, 1, 1),
    ((1, 8, 7, 3), 4, 1, 2),
    ((1, 9, 8, 4), 3, 1, 3),
    ((1, 12, 11, 4), 3, 5, 2),
    ((1, 5, 5, 3), 4, 5, 3),
]
# Several taps, for all features together fewer than the channels.
NARROW = [
    ((1, 9, 8, 40), 1, 3, 1),
    ((2, 7, 9, 80), 3, 5, 1),
    ((1, 26, 26, 132), 8, 3, 1),
]
# More than 9 taps, and the functions that compute them in float32.
FAST, SUMMED = convolution._large_forward, convolution._large_backward
PRODUCTS = convolution._narrow_forward, convolution._narrow_backward
LARGE = {
    ((2, 12, 13, 3), 4, 5, 1): (FAST, SUMMED),
    ((1, 20, 21, 5), 4, (4, 7), 1): (FAST, SUMMED),
    ((1, 40, 12, 3), 4, (8, 4), 1): (FAST, SUMMED),
    ((1, 30, 19, 3), 4, (2, 8), 1): (FAST, im2col.gradients),  # thin
    ((1, 1, 40, 3), 4, (1, 11), 1): (FAST, im2col.gradients),
    ((2, 13, 12, 1), 96, 9, 1): (FAST, im2col.gradients),  # windows of few numbers
    ((1, 5, 7, 44), 64, 5, 1): (FAST, im2col.gradients),  # few pixels
    ((1, 9, 8, 40), 5, 5, 1): (FAST, PRODUCTS[1]),  # 3 times as many products as channels
    ((1, 9, 8, 30), 2, 5, 1): PRODUCTS,
}
TOLERANCE = {jnp.float32: 1e-4, jnp.float64: 1e-12}

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def reference_conv(x, w, stride=1):
    return lax.conv_general_dilated(
        x, w, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def problem(shape, features, size, dtype=jnp.float32, seed=0):
    """An image in [0, 1] and filters as they are initialised, of a side or of two."""
    rng = np.random.RandomState(seed)
    x = rng.uniform(0, 1, shape)
    sides = (size, size) if isinstance(size, int) else size
    w = rng.uniform(-1, 1, (*sides, shape[-1], features)) / np.sqrt(math.prod(sides) * shape[-1])
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def assert_close(actual, expected, tolerance):
    """To `tolerance` times the largest value."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    ("shape", "features", "size", "stride"), [*WINOGRAD, *IM2COL, *NARROW, *LARGE]
)
def test_conv_equals_lax(x64, shape, features, size, stride, dtype):
    """In value and in both gradients."""
    x, w = problem(shape, features, size, dtype)
    exact = functools.partial(reference_conv, stride=stride)
    y = jax.eval_shape(exact, x, w)
    dy = jnp.asarray(np.random.RandomState(1).uniform(-1, 1, y.shape), dtype)

    def all_three(f):
        value, pull = jax.vjp(f, x, w)
        return value, *pull(dy)

    actual = jax.jit(all_three, static_argnums=0)(
        functools.partial(convolution.conv, stride=stride)
    )
    expected = jax.jit(all_three, static_argnums=0)(exact)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("cases", "module"), [(WINOGRAD, "jaxsr.winograd"), (IM2COL, "jaxsr.im2col")]
)
def test_both_methods_are_covered(cases, module):
    for shape, features, size, stride in cases:
        for way in convolution.lowering(*problem(shape, features, size), stride):
            assert getattr(way, "func", way).__module__ == module


def test_other_filters_are_covered():
    for case in NARROW:
        assert convolution.lowering(*problem(*case[:3]), 1) == PRODUCTS
    for case, ways in LARGE.items():
        assert convolution.lowering(*problem(*case[:3]), 1) == ways


@pytest.mark.parametrize(
    ("dtype", "calls"), [(jnp.float32, 1), (jnp.bfloat16, 0), (jnp.float64, 0)]
)
def test_large_filters_are_the_fast_call_in_float32(x64, dtype, calls):
    """XLA's CPU back end has one forwards alone, and it is slow without padding."""
    x, w = problem((1, 12, 13, 24), 24, 5, dtype)

    def compiled(f, *args):
        return jax.jit(f).lower(*args).compile().as_text()

    value = compiled(convolution.conv, x, w)
    assert value.count(" convolution(") == calls
    assert value.count("window={size=5x5 pad=0_0x0_1}") == calls
    gradients = jax.grad(lambda x, w: convolution.conv(x, w).sum(), (0, 1))
    assert " convolution(" not in compiled(gradients, x, w)


@pytest.mark.parametrize("size", [4, 5, 9, (1, 11), (11, 1), (2, 8), (8, 2), (4, 7)])
@pytest.mark.parametrize("extra", [(0, 0), (3, 5)])
def test_large_filters_are_sums_of_3x3(x64, size, extra):
    """Down to images of one output."""
    h, k = (size, size) if isinstance(size, int) else size
    x, w = problem((2, h + extra[0], k + extra[1], 3), 4, size, jnp.float64)
    stacked = convolution._by_3x3(x, w)
    assert stacked[1].shape[:2] == (3, 3)
    assert_close(reference_conv(*stacked), reference_conv(x, w), 1e-13)


@pytest.mark.parametrize("taps", [2, 3])
def test_winograd_matrices_are_minimal_filtering(taps):
    """A' [(G g) * (B' d)] is the correlation of 6 numbers with 2 or 3, for every basis vector."""
    for d in np.eye(6):
        for g in np.eye(taps):
            product = winograd.A(taps).T @ ((winograd.G(taps) @ g) * (winograd.B.T @ d))
            np.testing.assert_allclose(product, np.correlate(d, g, "valid"), atol=1e-15)


@pytest.mark.parametrize("taps", [2, 3])
@pytest.mark.parametrize("size", [(9, 12), (6, 6), (3, 3), (7, 22)])
def test_winograd_and_its_gradients(x64, size, taps):
    x, w = problem((2, *size, 3), 4, taps, jnp.float64)
    y, pull = jax.vjp(reference_conv, x, w)
    assert_close(jax.jit(winograd.convolve)(x, w), y, 1e-12)
    dy = jnp.asarray(np.random.RandomState(1).uniform(-1, 1, y.shape))
    for a, e in zip(jax.jit(winograd.gradients)(x, w, dy), pull(dy), strict=True):
        assert_close(a, e, 1e-12)


def test_winograd_never_takes_half_precision():
    x, w = problem((1, 34, 34, 4), 4, 3)
    assert winograd.pays(x, w)
    for dtype in (jnp.bfloat16, jnp.float16):
        assert not winograd.pays(x.astype(dtype), w.astype(dtype))


def test_conv_in_bfloat16():
    x, w = problem((1, 10, 10, 4), 4, 3)
    half = jax.jit(convolution.conv)(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half.astype(jnp.float32), reference_conv(x, w), 0.02)


@pytest.mark.parametrize(("channels", "features"), [(64, 1), (32, 32)])
def test_bfloat16_is_rounded_once(channels, features):
    """Not once a tap: as near to float32 as `lax` on the same numbers."""
    x, w = (a.astype(jnp.bfloat16) for a in problem((2, 18, 18, channels), features, 3))
    dy = jax.random.normal(jax.random.key(1), (2, 16, 16, features), jnp.bfloat16)

    def errors(conv):
        wide = [a.astype(jnp.float32) for a in (x, w, dy)]
        y, pull = jax.vjp(reference_conv, *wide[:2])
        exact = (y, *pull(wide[2]))
        y, pull = jax.vjp(conv, x, w)
        return [
            float(jnp.linalg.norm(a.astype(jnp.float32) - e) / jnp.linalg.norm(e))
            for a, e in zip((y, *pull(dy)), exact, strict=True)
        ]

    for ours, theirs in zip(errors(convolution.conv), errors(reference_conv), strict=True):
        assert ours < 1.1 * theirs


KINDS = pytest.mark.parametrize(
    ("size", "stride", "dtype"), [(3, 1, jnp.float64), (3, 2, jnp.float64), (5, 1, jnp.float32)]
)


@KINDS
def test_conv_inside_a_loop(x64, size, stride, dtype):
    """Gradient descent on the filters in a `fori_loop`, against the same with `lax`."""
    x, w = problem((1, 14, 13, 3), 4, size, dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def descend(conv, w):
        gradient = jax.grad(lambda w: (conv(x, w, stride) ** 2).mean())
        return lax.fori_loop(0, 3, lambda _, w: w - 0.1 * gradient(w), w)

    assert_close(descend(convolution.conv, w), descend(reference_conv, w), TOLERANCE[dtype])


@KINDS
def test_conv_under_vmap_over_weights(x64, size, stride, dtype):
    x, w = problem((1, 14, 13, 3), 4, size, dtype)
    many = jnp.stack([w, w[::-1], 2 * w])

    def gradient(conv, w):
        return jax.value_and_grad(lambda w: (conv(x, w, stride) ** 2).mean())(w)

    values, slopes = jax.jit(jax.vmap(functools.partial(gradient, convolution.conv)))(many)
    for i, each in enumerate(many):
        value, expected = gradient(reference_conv, each)
        np.testing.assert_allclose(values[i], value, rtol=TOLERANCE[dtype])
        assert_close(slopes[i], expected, TOLERANCE[dtype])


@KINDS
def test_second_derivatives(x64, size, stride, dtype):
    """Hessian times vector, reverse over reverse, of a function with a bend."""
    x, w = problem((1, 14, 13, 2), 3, size, dtype)
    direction = jnp.asarray(np.random.RandomState(2).uniform(-1, 1, w.shape), dtype)

    def product(conv):
        gradient = jax.grad(lambda w: jnp.tanh(conv(x, w, stride)).sum())
        return jax.jit(jax.grad(lambda w: (gradient(w) * direction).sum()))(w)

    assert_close(product(convolution.conv), product(reference_conv), TOLERANCE[dtype])


NHWC = ("NHWC", "HWIO", "NHWC")


def reaches_lax(x, w, strides, padding, **settings):
    """Whether the adapter hands the call to `lax` whole; its value must be that of `lax`."""
    call = functools.partial(
        convolution.conv_general_dilated, window_strides=strides, padding=padding, **settings
    )
    expected = lax.conv_general_dilated(x, w, strides, padding, **settings)
    assert_close(call(x, w), expected, 1e-5)
    return "custom_vjp" not in str(jax.make_jaxpr(call)(x, w))


@pytest.mark.parametrize(
    ("strides", "padding", "settings"),
    [
        ((1, 1), [(0, 0), (0, 0)], {}),
        ((2, 2), [(1, 1), (1, 1)], {}),
        ((1, 1), [(1, 0), (0, 2)], {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1)}),
        ((1, 1), [(0, 0), (0, 0)], {"feature_group_count": 1, "precision": None}),
    ],
)
def test_adapter_takes_plain_convolutions(strides, padding, settings):
    x, w = problem((1, 8, 9, 4), 4, 3)
    assert not reaches_lax(x, w, strides, padding, dimension_numbers=NHWC, **settings)
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
    assert not reaches_lax(x, w, strides, padding, dimension_numbers=numbers, **settings)


@pytest.mark.parametrize(
    ("strides", "padding", "settings"),
    [
        ((1, 1), "SAME", {}),
        ((2, 2), "VALID", {}),
        ((1, 2), [(0, 0), (0, 0)], {}),
        ((1, 1), [(0, 0), (0, 0)], {"rhs_dilation": (2, 2)}),
        ((1, 1), [(0, 0), (0, 0)], {"lhs_dilation": (2, 2)}),
        ((1, 1), [(0, 0), (0, 0)], {"precision": lax.Precision.HIGHEST}),
        ((1, 1), [(0, 0), (0, 0)], {"preferred_element_type": jnp.float32}),
    ],
)
def test_adapter_leaves_the_rest_to_lax(strides, padding, settings):
    x, w = problem((1, 8, 9, 4), 4, 3)
    assert reaches_lax(x, w, strides, padding, dimension_numbers=NHWC, **settings)


def test_adapter_leaves_cuts_to_lax():
    """Whose values are not looked at: on a CPU XLA reads beyond an image that is cut so."""
    x, w = problem((1, 8, 9, 4), 4, 3)
    options = {"window_strides": (1, 1), "padding": [(-1, 1), (0, 0)], "dimension_numbers": NHWC}
    call = functools.partial(convolution.conv_general_dilated, **options)
    assert "custom_vjp" not in str(jax.make_jaxpr(call)(x, w))


def test_adapter_leaves_groups_and_other_layouts_to_lax():
    x, w = problem((2, 8, 9, 4), 4, 3)
    none = [(0, 0), (0, 0)]
    assert reaches_lax(x, w[:, :, :2], (1, 1), none, dimension_numbers=NHWC, feature_group_count=2)
    assert reaches_lax(x, w, (1, 1), none, dimension_numbers=NHWC, batch_group_count=2)
    first = (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1))
    assert reaches_lax(*first, (1, 1), none)
    assert reaches_lax(*first, (1, 1), none, dimension_numbers=("NCHW", "OIHW", "NCHW"))


def test_zeros_around_an_image_stay_out_of_the_filters_gradient():
    """Where they are folded into it, a GPU has no kernel for the transposed convolution's."""
    x, w = problem((1, 8, 8, 4), 4, 4)
    slope = jax.grad(lambda w: (convolution.conv_transpose(x, w, 2, 1) ** 2).sum())
    lowered = jax.jit(slope).trace(w).lower(lowering_platforms=("cuda",)).as_text()
    assert re.search("optimization_barrier .*tensor<1x10x10x4xf32>", lowered)
    on_cpu = jax.jit(slope).trace(w).lower(lowering_platforms=("cpu",)).as_text()
    assert "optimization_barrier" not in on_cpu


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_lax_untouched(platform, stride):
    """Forward one convolution, for both gradients two more; none at all on the CPU."""
    x, w = problem((1, 16, 16, 4), 4, 3)

    def loss(conv, x, w):
        return (conv(x, w, stride) ** 2).mean()

    for f, count in ((loss, 1), (jax.value_and_grad(loss, argnums=(1, 2)), 3)):
        lowered = {}
        for conv in (convolution.conv, reference_conv):
            trace = jax.jit(f, static_argnums=0).trace(conv, x, w)
            lowered[conv] = {
                p: trace.lower(lowering_platforms=(p,)).as_text() for p in (platform, "cpu")
            }
        assert lowered[reference_conv][platform].count("stablehlo.convolution") == count
        ours = lowered[convolution.conv]
        # The gradient of `conv` is told without its value, and `lax` linearises anew: dead code.
        assert count <= ours[platform].count("stablehlo.convolution") <= count + 1
        assert "stablehlo.dot_general" not in ours[platform]
        assert "stablehlo.convolution" not in ours["cpu"]
        assert "stablehlo.dot_general" in ours["cpu"]


@pytest.mark.parametrize("stride", [1, 2])
def test_an_image_smaller_than_the_filter_gives_nothing(stride):
    x, w = jnp.ones((1, 2, 5, 2)), jnp.ones((3, 3, 2, 4))
    expected = lax.conv_general_dilated(
        x, w, (stride,) * 2, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert convolution.conv(x, w, stride).shape == expected.shape == (1, 0, 2 // stride + 1, 4)


def test_gradients_are_exported_at_sizes_not_known_yet():
    """Also of a batch alone; the values are those at a known size."""
    w = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    x = jax.random.normal(jax.random.key(1), (2, 9, 8, 2))

    def loss(x):
        return (convolution.conv(x, w) ** 2).sum()

    for symbols in ("n, h, w, 2", "n, 9, 8, 2"):
        shape = jax.export.symbolic_shape(
            symbols, constraints=["h >= 3", "w >= 3"] if "h" in symbols else ()
        )
        unknown = jax.ShapeDtypeStruct(shape, jnp.float32)
        exported = jax.export.export(jax.jit(jax.grad(loss)))(unknown)
        np.testing.assert_allclose(exported.call(x), jax.grad(loss)(x), rtol=1e-4, atol=1e-4)
