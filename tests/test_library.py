"""The blocks of docs/LIBRARY.md, one after another, and what they claim."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from jaxsr import dip, images, losses
from jaxsr.metrics import psnr

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "LIBRARY.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
ITERATIONS = r"(?<=iterations=)\d{4}"


def run(folder):
    """What the blocks leave behind, names by block; long fits are made short."""
    names, left = {}, []
    images.write(folder / "photo.png", images.from_uint8(skimage.data.coffee()[60:140, 330:410]))
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for block in BLOCKS[:-1]:
        exec(re.sub(ITERATIONS, "3", block), names)
        left.append(dict(names))
    patch.undo()
    return left


def test_the_page(tmp_path, compiled_quickly):
    """One test, so that the blocks run once, whoever shares out the tests."""
    assert sum(len(re.findall(ITERATIONS, block)) for block in BLOCKS) == 4
    left = run(tmp_path)
    assert len(left) == len(BLOCKS) - 1 == 17
    assert left[1]["result"].state.detection is None
    of_any_size(left[2])
    assert left[3]["result"].state.detection is not None
    stopped_fit_goes_on(left[4], tmp_path)
    fit_begins_from_an_earlier_ones_parameters(left[5])
    total_variation_restores(left[6])
    assert np.ptp(left[8]["sought"]["kernel"]) > 0
    assert np.all(left[10]["metrics"]["loss"] > 0) and int(left[10]["state"].step) == 10
    operators_are_mapped_as_one_by_one(left[11])
    networks_are_mapped_as_one_by_one(left[12])
    descent_fits_the_observation(left[13])
    fits_in_one_program_are_those_alone(left[14])
    assert np.isfinite(left[15]["slope"]) and left[15]["slope"] != 0
    exported_network_runs_without_jaxsr(left[16], tmp_path)


def total_variation_restores(names):
    solution, photo = names["solution"], names["photo"]
    assert solution.converged
    assert psnr(solution.image, photo) > psnr(names["y"], photo) + 1


def of_any_size(names):
    """The curve is of the canvas' middle."""
    result, (top, left) = names["result"], (2, 7)
    shown = result.image[:, top : top + 60, left : left + 50]
    assert result.history["psnr"][-1] == pytest.approx(float(psnr(shown, names["truth"])), abs=1e-3)


def stopped_fit_goes_on(names, folder):
    """From its last checkpoint, to the bits of a fit that was not stopped."""
    short, long = dip.Config(iterations=5), dip.Config(iterations=6)
    names["fit_in"](folder / "stopped", short, every=2)
    resumed = names["fit_in"](folder / "stopped", long, every=2)
    whole = names["fit_in"](folder / "whole", long, every=2)
    assert (resumed.iterations, whole.iterations) == (2, 6)
    np.testing.assert_array_equal(resumed.image, whole.image)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])


def fit_begins_from_an_earlier_ones_parameters(names):
    """The first loss is that of these, not of the key's."""
    start, operator, y = names["start"], names["operator"], names["photo"][:, :, ::-1]
    noise = jax.random.normal(jax.random.fold_in(start.key, 0), start.latent.shape)
    image = jax.jit(names["network"].apply)(names["result"].params, start.latent + 0.03 * noise)
    expected = float(losses.mse(operator(image), operator(y)).mean())
    assert names["mirrored"].history["loss"][0] == pytest.approx(expected, rel=1e-4)


def operators_are_mapped_as_one_by_one(names):
    for i, image in enumerate(names["stack"]):
        one = names["problems"]["deblurring"](image)
        np.testing.assert_allclose(names["blurred"][i], one, atol=1e-6)
    y = names["shrink"](names["photo"])
    (back,) = names["adjoint"](y)
    np.testing.assert_allclose((back * names["photo"]).sum(), (y * y).sum(), rtol=1e-5)


def networks_are_mapped_as_one_by_one(names):
    apply, slope = jax.jit(names["lapsrn"].apply), jax.jit(jax.grad(names["error"]))
    for i in range(3):
        one = jax.tree.map(lambda x, i=i: x[i], names["three"])
        image = apply(one, names["small"])[-1]
        np.testing.assert_allclose(names["enlarged"][i], image, rtol=0, atol=1e-5)
        expected = losses.charbonnier(image, names["luma"]).mean()
        assert names["errors"][i] == pytest.approx(float(expected), rel=1e-5)
        mapped = jax.tree.map(lambda x, i=i: x[i], names["gradients"])
        for found, alone in zip(*map(jax.tree.leaves, (mapped, slope(one))), strict=True):
            np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-5)
    assert np.ptp(names["errors"]) > 0  # three different ones


def descent_fits_the_observation(names):
    """The eigenvalue is that of the operator's matrix; the image stays within [0, 1]."""
    rows = jax.vmap(lambda unit: names["shrink"](unit[None, ..., None]).ravel())(
        jnp.eye(64 * 64).reshape(-1, 64, 64)
    )
    largest = np.linalg.norm(np.float64(rows), 2) ** 2
    assert float(names["largest"]) == pytest.approx(largest, rel=0.1)  # after 30 iterations
    x, y = names["x"], names["y"]
    assert float(psnr(names["shrink"](x), y)) > float(psnr(y * 0, y)) + 20
    assert x.min() >= 0 and x.max() <= 1


def fits_in_one_program_are_those_alone(names):
    key = jax.random.split(jax.random.key(6), 3)[1]
    image, curve = names["fit"](key)
    np.testing.assert_allclose(names["curves"][1][:3], curve[:3], rtol=1e-4)
    assert float(psnr(names["several"][1], image)) > 40


def exported_network_runs_without_jaxsr(names, folder):
    """In a process that cannot import it, at a size that it was not exported at."""
    script = f"""
import os, sys
os.chdir({str(folder)!r})
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "jaxsr":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
{BLOCKS[-1]}
image = np.random.default_rng(0).random((2, 9, 11, 1), np.float32)
np.savez("out.npz", image=image, result=enlarge(image))
assert "jaxsr" not in sys.modules
"""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "(1, 80, 96, 1)\n"
    with np.load(folder / "out.npz") as found:
        expected = jax.jit(names["lapsrn"].apply)(names["variables"], found["image"])[-1]
        np.testing.assert_allclose(found["result"], expected, atol=1e-5)


def test_slope_through_ten_iterations_is_that_of_differences(x64):
    """In float64, by a network of one matrix."""
    photo = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3), jnp.float64)

    def network(params, latent):
        return jax.nn.sigmoid(latent @ params)

    def after_ten(epsilon):
        config = dip.Config()
        state = dip.init(
            jax.random.key(7),
            init_fn=lambda key, z: jax.random.normal(key, (z.shape[-1], 3), z.dtype),
            apply_fn=network,
            size=(8, 8),
            config=config,
            dtype=jnp.float64,
        )
        state, _ = dip.run(
            state,
            photo,
            iterations=10,
            apply_fn=network,
            operator=lambda x: x,
            loss=lambda x, y: losses.charbonnier(x, y, epsilon=epsilon),
            config=config,
        )
        return jnp.mean((state.average - photo) ** 2)

    slope, value = jax.jit(jax.grad(after_ten))(0.1), jax.jit(after_ten)
    numeric = (value(0.1 + 1e-5) - value(0.1 - 1e-5)) / 2e-5
    assert slope != 0
    np.testing.assert_allclose(slope, numeric, rtol=1e-5)
