import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import resample, training
from jaxsr.datasets import patches
from jaxsr.errors import InputError
from jaxsr.models import LapSRN

pytestmark = pytest.mark.usefixtures("compiled_quickly")
MODEL = LapSRN(factor=4, depth=1, features=4)
CONFIG = training.Config(batch=4, size=16, weight_decay=0.0)
sample = jax.jit(patches.sample, static_argnames=("batch", "size"))
init = jax.jit(training.init, static_argnames=("model", "config", "dtype"))


def images(count=4, side=16, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.1, 0.9, (count, side, side, 1)))


def assert_trees_close(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_the_learning_rate_is_halved_in_steps():
    rate = training.schedule(training.Config())
    for step, expected in ((0, 1e-3), (299, 1e-3), (300, 5e-4), (599, 5e-4), (1499, 1e-3 / 16)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("every", [1, 41, 55, 61, 300, 330])
def test_the_learning_rate_is_halved_in_time(every):
    """Compiled too; 61 times the nearest float to 1 / 61 is below 1."""
    steps = np.arange(60 * every, dtype=np.int32)
    rates = jax.jit(training.schedule(training.Config(halve_every=every)))(steps)
    np.testing.assert_array_equal(rates, np.float32(1e-3) / 2.0 ** np.repeat(np.arange(60), every))


def test_a_step_too_large_for_float32_is_not_rounded():
    rate = training.schedule(training.Config(halve_every=2**24 + 1))
    rates = [float(rate(jnp.int32(step))) for step in (2**24, 2**24 + 1)]
    assert rates == pytest.approx([1e-3, 5e-4], rel=1e-6)


def test_image_pyramid_is_matlabs_pyramid(x64):
    pictures = images(2, 24)
    low, targets = training.image_pyramid(pictures, model=MODEL)
    for actual, scale in ((low, 1 / 4), (targets[0], 1 / 2), (targets[1], 1)):
        np.testing.assert_allclose(actual, resample.imresize(pictures, scale), atol=1e-12)
    jump = LapSRN(factor=4, depth=1, features=4, pyramid=False)
    assert len(training.image_pyramid(pictures, model=jump)[1]) == 1


@jax.jit
def level_losses(variables, pictures):
    """Both levels' Charbonnier losses, each a mean (the paper's eq. 1)."""
    low, targets = training.image_pyramid(pictures, model=MODEL)
    levels = zip(MODEL.apply(variables, low), targets, strict=True)
    return jnp.array([jnp.sqrt((x - y) ** 2 + 1e-6).mean() for x, y in levels])


def test_step_is_adam_on_the_weighted_losses_after_the_l2_term(x64):
    """Three steps of Kingma and Ba's algorithm in NumPy, on the whole batch at once.

    The gradient is w1 that of level 1 and w2 that of level 2 (the paper's eq. 2), plus the decay.
    """
    config = dataclasses.replace(
        CONFIG,
        level_weights=(2.0, 3.0),
        parts=2,
        weight_decay=0.05,
        learning_rate=0.01,
        halve_every=2,
    )
    state = init(jax.random.key(0), model=MODEL, config=config, dtype=jnp.float64)
    advance = jax.jit(functools.partial(training.step, model=MODEL, config=config))
    slopes = jax.jit(jax.jacrev(level_losses))
    values = state.variables
    mean = square = jax.tree.map(np.zeros_like, values)
    for t, rate in ((1, 0.01), (2, 0.01), (3, 0.005)):
        found = jax.tree.map(
            lambda g, p: 2 * g[0] + 3 * g[1] + 0.05 * p, slopes(values, images()), values
        )
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, found)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, found)
        values = jax.tree.map(
            lambda p, m, v, t=t, rate=rate: (
                p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            ),
            values,
            mean,
            square,
        )
        one, two = map(float, level_losses(state.variables, images()))
        state, metrics = advance(state, images())
        assert float(metrics["loss"]) == pytest.approx(2 * one + 3 * two, rel=1e-12)
    assert_trees_close(state.variables, values, 1e-7)  # the rate itself is a float32
    assert int(state.step) == 3


def test_patches_are_taken_in_the_type_of_the_parameters(x64):
    state = init(jax.random.key(0), model=MODEL, config=CONFIG)
    advance = jax.jit(functools.partial(training.step, model=MODEL, config=CONFIG))
    for dtype in (jnp.float64, jnp.bfloat16):
        pictures = images().astype(dtype)
        found, expected = (advance(state, x) for x in (pictures, pictures.astype(jnp.float32)))
        jax.tree.map(np.testing.assert_array_equal, found[0].variables, expected[0].variables)
        assert found[1]["loss"] == expected[1]["loss"] and found[1]["loss"].dtype == jnp.float32


def test_one_patch_can_be_learnt_by_heart():
    """Over 40 dB where bicubic has 24, for the network sees nothing else."""
    y, x = np.mgrid[:16, :16]
    picture = 0.5 + 0.2 * np.sin(0.9 * x) * np.cos(0.7 * y) + 0.2 * (x + y > 17)
    picture = jnp.asarray(picture, jnp.float32)[None, :, :, None]
    model = LapSRN(factor=2, depth=2, features=16)
    config = training.Config(
        level_weights=(1.0,), batch=1, size=16, weight_decay=0.0, halve_every=250
    )
    state = init(jax.random.key(0), model=model, config=config)
    advance = jax.jit(functools.partial(training.step, model=model, config=config))
    for _ in range(1000):
        state, _ = advance(state, picture)
    psnr = training.eval_step(state.variables, picture, model=model)
    assert psnr[0] > 40


def test_eval_step_is_the_psnr_of_the_restored_image(x64):
    state = init(jax.random.key(0), model=MODEL, config=CONFIG, dtype=jnp.float64)
    pictures = images(2, 24)
    found = training.eval_step(state.variables, pictures, model=MODEL)
    for i, picture in enumerate(np.asarray(pictures)):
        low = resample.imresize(picture, 1 / 4)
        restored = np.clip(jax.jit(MODEL.apply)(state.variables, low[None])[-1][0], 0, 1)
        error = ((restored - picture)[4:-4, 4:-4] ** 2).mean()
        assert float(found[i]) == pytest.approx(-10 * np.log10(error), abs=1e-9)


def test_patches_follow_from_the_key_and_the_step_alone():
    """So that a resumed run sees the data that it would have seen."""
    rng = np.random.default_rng(0)
    bank = patches.bank([rng.integers(0, 256, (40, 40, 1), np.uint8)], size=16)
    run = functools.partial(training.run, length=5, model=MODEL, config=CONFIG)
    state = init(jax.random.key(0), model=MODEL, config=CONFIG)
    together, history = run(jax.tree.map(jnp.copy, state), bank, 3)
    for i in range(3):
        key = jax.random.fold_in(state.key, i)
        seen = sample(key, bank, batch=4, size=16)
        expected = level_losses(state.variables, seen).sum()
        state, metrics = run(state, bank, 1)
        assert float(metrics["loss"][0]) == pytest.approx(float(expected), rel=1e-5)
        assert metrics["loss"][0] == history["loss"][i]
    assert (history["loss"][3:] == 0).all() and (history["loss"][:3] > 0).all()
    jax.tree.map(np.testing.assert_array_equal, state.variables, together.variables)


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxsr import training
from jaxsr.datasets import patches
from jaxsr.models import LapSRN

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
model = LapSRN(factor=4, depth=1, features=4)
rng = np.random.default_rng(0)
bank = patches.bank([rng.integers(0, 256, (60, 50, 1), np.uint8)], size=16)
config = training.Config(batch=8, parts=2, size=16)
found = []
for devices in (jax.devices()[:1], jax.devices()):
    assert len(devices) in (1, 4)
    mesh = Mesh(devices, ("data",))
    everyone = NamedSharding(mesh, PartitionSpec())
    state = training.init(jax.random.key(0), model=model, config=config, dtype="float64")
    state, here = jax.device_put((state, bank), everyone)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    options = {"model": model, "config": config, "sharding": sharding}
    program = training.run.lower(state, here, 0, length=5, **options).compile()
    assert ("all-reduce" in program.as_text()) == (len(devices) > 1)
    for _ in range(2):
        state, _ = program(state, here, 5)
    found.append(jax.device_get(state.variables))
error = jax.tree.map(lambda a, b: np.abs(a - b).max(), *found)
print(max(jax.tree.leaves(error)))
"""


def test_four_devices_train_as_one():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 0}, r"`batch` \(=0\) must be at least 1"),
        ({"parts": 3}, r"`parts` \(=3\) must divide the batch \(=16\)"),
        ({"learning_rate": 0.0}, r"`learning_rate` \(=0.0\) must be above 0"),
        ({"weight_decay": -1.0}, r"`weight_decay` \(=-1.0\) must be at least 0, and finite"),
        ({"level_weights": (1.0, np.inf)}, r"must be finite, at least 0, one above"),
        ({"level_weights": (0.0, 0.0)}, r"`level_weights` \(=\(0.0, 0.0\)\) must be"),
        ({"level_weights": ("a", 1.0)}, r"`level_weights` \(=\('a', 1.0\)\) must be numbers"),
        ({"level_weights": 3.0}, r"`level_weights` \(=3.0\) must be numbers"),
        ({"level_weights": (1.0, 1.0, 1.0)}, r"must be 2 numbers, one a level"),
        ({"size": 18}, r"`size` \(=18\) must be a multiple of the factor 4"),
        ({"size": 16.0}, r"`size` \(=16.0\) must be an integer"),
        ({"parts": True}, r"`parts` \(=True\) must be an integer"),
        ({"halve_every": 2.5}, r"`halve_every` \(=2.5\) must be an integer"),
        ({"halve_every": 2**31}, r"`halve_every` \(=2147483648\) must be below 2147483648"),
    ],
)
def test_bad_settings_are_told(settings, said):
    with pytest.raises(InputError, match=said):
        training.init(jax.random.key(0), model=MODEL, config=training.Config(**settings))


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (np.full((2, 16, 16, 1), 9, np.uint8), {}, r"the patches \(of uint8\) must hold floats"),
        (np.ones((3, 16, 16, 1), np.float32), {}, r"`parts` \(=2\) must divide the 3 patches"),
        (np.ones((2, 16, 16, 1), np.float32), {"loss": "mse"}, "`loss` .* must be a function"),
    ],
)
def test_a_step_refuses(images, options, said):
    config = dataclasses.replace(CONFIG, batch=2, parts=2, size=16)
    state = init(jax.random.key(0), model=MODEL, config=config)
    with pytest.raises(InputError, match=said):
        training.step(state, images, model=MODEL, config=config, **options)


def test_settings_may_be_given_as_a_list_and_by_numpy():
    config = training.Config(level_weights=[2.0, 3.0], batch=np.int64(16))
    assert config == training.Config(level_weights=(2.0, 3.0))
    assert hash(config) == hash(training.Config(level_weights=(2.0, 3.0)))
    config = training.Config(level_weights=np.array([2.0, 3.0]))
    assert {type(weight) for weight in config.level_weights} == {float}  # NumPy's would widen


def black():
    """Variables of a network whose result is 0."""
    state = init(jax.random.key(0), model=MODEL, config=CONFIG)
    return jax.tree.map(jnp.zeros_like, state.variables)


def test_eval_step_clips():
    """A result of 1.3 becomes 1, which the ground truth, 0.9, is off by 0.1: 20 dB."""
    variables = black()
    variables["params"]["level_1_detail"]["bias"] += 1.3
    found = training.eval_step(variables, jnp.full((1, 24, 24, 1), 0.9), model=MODEL)
    assert float(found[0]) == pytest.approx(20, abs=1e-4)


def test_mean_psnr_is_over_images_not_stacks():
    """Of three images of 20 dB, and a larger one of 0."""
    stacks = [np.full((3, 24, 24, 1), 0.1, np.float32), np.full((1, 28, 24, 1), 1.0, np.float32)]
    assert training.mean_psnr(black(), stacks, model=MODEL) == pytest.approx(15, abs=1e-4)
