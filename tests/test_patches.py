import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsr import resample
from jaxsr.datasets import patches
from jaxsr.errors import InputError
from jaxsr.images import rgb_to_y


def pictures(seed=0):
    """Three noise images of different sizes and channels, uint8."""
    rng = np.random.default_rng(seed)
    shapes = ((40, 31, 3), (33, 64, 1), (50, 50, 3))
    return [rng.integers(0, 256, shape, np.uint8) for shape in shapes]


def luma(image):
    return rgb_to_y(image.astype(np.float64) / 255)


@pytest.mark.parametrize("scale", [1.0, 0.73, 0.61803])
@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_a_view_is_imresize_crop_and_turn(x64, scale, flips):
    """Against the whole image through MATLAB's imresize, away from its borders."""
    images, size = pictures(), 12
    bank = patches.bank(images, size=size)
    cut = jax.jit(patches.cut, static_argnames="size")
    for i, image in enumerate(images):
        corner = (4, 5)
        expected = resample.imresize(luma(image), scale)[4 : 4 + size, 5 : 5 + size, 0]
        expected = expected[::-1] if flips[0] else expected
        expected = expected[:, ::-1] if flips[1] else expected
        expected = expected.T if flips[2] else expected
        view = patches.View(
            jnp.int32(i), jnp.float64(scale), jnp.float64(corner), jnp.array(flips, bool)
        )
        patch = cut(bank, view, size=size)
        np.testing.assert_allclose(patch[..., 0], expected, atol=1e-4)  # 16 bits a pixel


def test_at_a_border_the_weights_are_renormalised(x64):
    """A plain NumPy loop over the cubic's taps that lie inside."""
    image = pictures()[1]
    bank = patches.bank([image], size=8)
    scale, corner, size = 0.55, (0, 27), 8
    view = patches.View(jnp.int32(0), jnp.float64(scale), jnp.float64(corner), jnp.zeros(3, bool))
    patch = patches.cut(bank, view, size=size)[..., 0]
    values = luma(image)[..., 0]

    def weights(side, offset):
        matrix = np.zeros((size, side))
        for o in range(size):
            center = (offset + o + 0.5) / scale
            for i in range(side):
                matrix[o, i] = resample.cubic(np.array((i + 0.5 - center) * scale))
        return matrix / matrix.sum(1, keepdims=True)

    expected = weights(33, 0) @ values @ weights(64, 27).T
    np.testing.assert_allclose(patch, expected, atol=1e-4)


def test_views_are_uniform_and_stay_inside():
    images, size = pictures(), 20
    bank = patches.bank(images, size=size)
    keys = jax.random.split(jax.random.key(0), 3000)
    views = jax.jit(jax.vmap(lambda key: patches.draw(key, bank, size=size)))(keys)
    sides = np.array([image.shape[:2] for image in images])[views.image]
    scale = np.asarray(views.scale)
    assert stats.chisquare(np.bincount(views.image)).pvalue > 0.01
    assert all(stats.binomtest(int(n), 3000).pvalue > 0.01 for n in np.sum(views.flips, 0))
    least = np.maximum(0.5, size / sides.min(1))
    assert stats.kstest((scale - least) / (1 - least), "uniform").pvalue > 0.01
    room = np.floor(sides * scale[:, None] + 1e-4) - size
    corner = np.asarray(views.corner)
    assert np.all((corner >= 0) & (corner <= room)) and np.all(corner == np.floor(corner))
    # A whole number up to `room`, uniform: jittered to a real one.
    jitter = np.random.default_rng(0).uniform(size=corner.shape)
    assert stats.kstest(((corner + jitter) / (room + 1)).ravel(), "uniform").pvalue > 0.01


def test_a_patch_depends_on_its_own_key_alone(compiled_quickly):
    """So that the batch may be cut in parts and on many devices."""
    bank = patches.bank(pictures(), size=16)
    key = jax.random.key(3)
    whole = patches.sample(key, bank, batch=4, size=16)
    for i, own in enumerate(jax.random.split(key, 4)):
        view = patches.draw(own, bank, size=16)
        np.testing.assert_allclose(patches.cut(bank, view, size=16), whole[i], atol=1e-6)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([], "there are no training images"),
        ([np.zeros((30, 15, 3), np.uint8)], r"\(of 15x30 pixels\) is smaller than a patch \(=16\)"),
        ([np.full((16, 16, 1), 0.5, np.float32)], r"\(of float32\) must be of uint8"),
        ([np.zeros((16, 16, 4), np.uint8)], r"\(of shape \(16, 16, 4\)\) must be"),
        (np.zeros((2, 3, 16, 16, 3), np.uint8), r"\(of shape \(3, 16, 16, 3\)\) must be"),
    ],
)
def test_a_bank_refuses(images, said):
    with pytest.raises(InputError, match=said):
        patches.bank(images, size=16)


@pytest.mark.parametrize("size", [0, 1.5])
def test_a_bank_refuses_patches_of_no_size(size):
    with pytest.raises(InputError, match=rf"`size` \(={size}\) must be"):
        patches.bank([np.zeros((16, 16, 1), np.uint8)], size=size)


def test_a_bank_holds_luma_rounded_to_16_bits():
    codes = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    exact = (16 + codes / 255 @ np.array([65.481, 128.553, 24.966])) / 255 * 65535
    off = np.asarray(patches.bank([codes], size=8).pixels) - exact.ravel()
    assert np.abs(off).max() < 0.52
