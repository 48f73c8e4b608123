import dataclasses
import functools
import itertools
import math
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxsr import chunks, dip, losses, operators
from jaxsr.dip import fitting, programs, stopping
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# Adam steps in which the reference's trajectory can be followed. The last one amplifies rounding by
# over a hundred a step: four equally exact ways of writing our network part from each other by 1e-3
# before step 20, and from the reference, alike, by 2e-6 at the fifth.
GOLDEN = {
    "dip_mse_x4_64x64": 20,
    "dip_charbonnier_x8_64x64_small": 20,
    "dip_charbonnier_x4_64x96": 4,
}


def linear_init(key, latent):
    """A network of one matrix: the smallest that trains."""
    return jax.random.normal(key, (latent.shape[-1], 3), latent.dtype)


def linear_apply(params, latent):
    return jax.nn.sigmoid(latent @ params)


def tv(image):
    return 0.01 * losses.total_variation(image)


def problem(config, *, dtype=jnp.float32, seed=0):
    observation = jax.random.uniform(jax.random.key(5), (1, 4, 4, 3), dtype)
    functions = {
        "apply_fn": linear_apply,
        "operator": operators.downsample(2, kernel="area"),
        "loss": losses.charbonnier,
        "config": config,
    }
    state = dip.init(
        jax.random.key(seed),
        init_fn=linear_init,
        apply_fn=linear_apply,
        size=(8, 8),
        config=config,
        dtype=dtype,
    )
    return state, observation, functions


def fit(config, **arguments):
    _, observation, functions = problem(config)
    observation = arguments.pop("observation", observation)
    operator = arguments.pop("operator", functions.pop("operator"))
    arguments = {"init_fn": linear_init, "size": (8, 8), **functions, **arguments}
    return dip.fit(jax.random.key(0), observation, operator, **arguments)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, _plain(a), _plain(b))


def _plain(tree):
    def plain(x):
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(plain, tree)


@pytest.mark.parametrize(("name", "steps"), GOLDEN.items())
def test_follows_the_reference(golden_dip, name, steps):
    golden = golden_dip(name)
    config = dip.Config(learning_rate=golden.meta["learning_rate"], noise_std=0.0, average=0.0)
    params = golden.variables
    image = jax.eval_shape(golden.network.apply, params, golden.latent)
    state = dip.State(
        params=jax.tree.map(jnp.asarray, params),
        opt_state=optax.adam(config.learning_rate).init(params),
        latent=golden.latent,
        key=jax.random.key(0),
        step=jnp.zeros((), jnp.int32),
        average=jnp.zeros(image.shape, image.dtype),
    )
    state, history = dip.run(
        state,
        golden.observation,
        iterations=steps,
        apply_fn=golden.network.apply,
        operator=golden.operator,
        loss=golden.loss,
        config=config,
    )
    np.testing.assert_allclose(history["loss"], golden.expected["losses"][:steps], rtol=1e-7)
    if steps == golden.meta["steps"]:
        final = jax.jit(golden.network.apply)(state.params, state.latent)
        expected = golden.expected["final_output"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(final, expected, rtol=1e-6)


def test_run_equals_a_python_loop_of_steps():
    state, observation, functions = problem(dip.Config())
    functions |= {"regulariser": tv}
    reference = jnp.full((1, 8, 8, 3), 0.5)
    expected, losses_seen = state, []
    step = jax.jit(functools.partial(dip.step, **functions))
    for _ in range(5):
        expected, record = step(expected, observation, reference)
        losses_seen.append(record["loss"])
    final, history = dip.run(state, observation, reference, iterations=5, **functions)
    np.testing.assert_allclose(history["loss"], losses_seen, rtol=1e-6)
    np.testing.assert_allclose(final.params, expected.params, rtol=1e-5)
    assert set(history) == {"loss", "psnr_fit", "psnr", "psnr_output"}


def test_no_iterations_are_refused():
    state, observation, functions = problem(dip.Config())
    for count, rule in ((0, "at least 1"), (2.0, "an integer")):
        with pytest.raises(InputError, match=rf"`iterations` \(={count}\) must be {rule}"):
            dip.run(state, observation, iterations=count, **functions)


def test_run_takes_any_loop():
    def python_loop(start, stop, body, carry):
        for i in range(start, stop):
            carry = body(i, carry)
        return carry

    config = dip.Config()
    _, observation, functions = problem(config)
    runs = [
        dip.run(problem(config)[0], observation, iterations=3, loop_fn=loop, **functions)
        for loop in (jax.lax.fori_loop, python_loop)
    ]
    np.testing.assert_allclose(runs[0][1]["loss"], runs[1][1]["loss"], rtol=1e-6)
    np.testing.assert_allclose(runs[0][0].average, runs[1][0].average, rtol=1e-6)


def test_the_step_is_what_it_says(x64):
    """One iteration against its definition in NumPy: noise, loss, Adam's first step, average."""
    config = dip.Config(average=0.9)
    state, observation, functions = problem(config, dtype=jnp.float64)
    noise = jax.random.normal(jax.random.fold_in(state.key, 0), state.latent.shape)
    latent = np.asarray(state.latent + 0.03 * noise)
    weights = np.asarray(state.params)

    def value(weights):
        image = 1 / (1 + np.exp(-latent @ weights))
        small = image.reshape(1, 4, 2, 4, 2, 3).mean((2, 4))
        return np.sqrt((small - np.asarray(observation)) ** 2 + 1e-6).mean(), image

    after, record = dip.step(state, observation, **functions)
    expected, image = value(weights)
    np.testing.assert_allclose(record["loss"], expected, rtol=1e-12)
    np.testing.assert_allclose(after.average, image, rtol=1e-12)
    moved = np.zeros_like(weights)
    moved[3, 1] = 1e-6
    slope = (value(weights + moved)[0] - value(weights - moved)[0]) / 2e-6
    first_step = -config.learning_rate * slope / (abs(slope) + 1e-8)
    np.testing.assert_allclose(after.params[3, 1] - weights[3, 1], first_step, rtol=1e-4)


def test_a_fit_of_two_images_by_ones_own_optimiser(x64):
    """Against a NumPy loop: of momentum, each image with its own noise, one network for both."""
    config = dip.Config(iterations=4, average=0.0)
    observation = jax.random.uniform(jax.random.key(5), (2, 4, 4, 3), jnp.float64)
    functions = {"init_fn": linear_init, "apply_fn": linear_apply, "size": (8, 8), "config": config}
    start = dip.init(jax.random.key(1), batch=2, dtype=jnp.float64, **functions)
    found = dip.fit(
        jax.random.key(1),
        observation,
        operators.downsample(2, kernel="area"),
        loss=losses.mse,
        optimiser=optax.sgd(0.5, momentum=0.9),
        **functions,
    )
    weights, velocity, seen = np.asarray(start.params), 0.0, []
    for t in range(4):
        noise = jax.random.normal(jax.random.fold_in(start.key, t), start.latent.shape)
        latent = np.asarray(start.latent + 0.03 * noise)
        image = 1 / (1 + np.exp(-latent @ weights))
        error = image.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)) - np.asarray(observation)
        seen.append((error**2).mean())
        slope = (2 * error / error.size).repeat(2, 1).repeat(2, 2) / 4 * image * (1 - image)
        velocity = 0.9 * velocity + np.einsum("nhwl,nhwc->lc", latent, slope)
        weights = weights - 0.5 * velocity
    np.testing.assert_allclose(found.history["loss"], seen, rtol=1e-6)  # kept in float32
    np.testing.assert_allclose(found.params, weights, rtol=1e-10)
    np.testing.assert_allclose(found.image, image, rtol=1e-10)
    last = 1 / (1 + np.exp(-np.asarray(start.latent) @ weights))
    np.testing.assert_allclose(found.last, last, rtol=1e-10)


@pytest.mark.parametrize("decay", [0.99, 0.0, 0.06])
def test_average_decays_polynomially_then_exponentially(decay):
    """Weights by binomials, as the recursion's closed form has them; a fixed decay takes over."""
    config = dip.Config(average=decay)
    state, observation, functions = problem(config)
    outputs = []
    for _ in range(4):
        before = state
        state, _ = dip.step(state, observation, **functions)
        noise = jax.random.normal(jax.random.fold_in(before.key, before.step), before.latent.shape)
        outputs.append(linear_apply(before.params, before.latent + 0.03 * noise))
    polynomial = {0.99: 4, 0.0: 1, 0.06: 2}[decay]  # 20/21 > 0.94 > 20/22
    weights = np.array([math.comb(t + 18, 19) for t in range(1, polynomial + 1)], np.float64)
    expected = sum(w * x for w, x in zip(weights, outputs, strict=False)) / weights.sum()
    for output in outputs[polynomial:]:
        expected = decay * expected + (1 - decay) * output
    np.testing.assert_allclose(state.average, expected, rtol=1e-5)


def test_numpys_integers_are_counted_with_as_pythons_are():
    """An int8 of 127 and one iteration more is -128."""
    config = dip.Config(iterations=np.int16(3), patience=np.int8(127))
    assert fit(config).iterations == 3
    assert config == dip.Config(iterations=3, patience=127)
    assert {type(config.iterations), type(config.patience)} == {int}


def test_the_average_of_bfloat16_images_is_kept_in_float32():
    """Against the recursion in float64: rounded to bfloat16 it would be off by a hundred times."""

    def half(params, latent):
        return linear_apply(params, latent).astype(jnp.bfloat16)

    config = dip.Config(patience=100)
    _, observation, functions = problem(config)
    functions["apply_fn"] = half
    options = {"init_fn": linear_init, "apply_fn": half, "size": (8, 8), "config": config}
    state = dip.init(jax.random.key(0), **options)
    step = jax.jit(functools.partial(dip.step, **functions))
    expected = 0.0
    for t in range(1, 31):
        noise = jax.random.normal(jax.random.fold_in(state.key, t - 1), state.latent.shape)
        output = np.float64(jax.jit(half)(state.params, state.latent + 0.03 * noise))
        expected = expected + max(0.01, 20 / (t + 19)) * (output - expected)
        state, _ = step(state, observation)
    assert state.average.dtype == state.detection.mean.dtype == jnp.float32
    np.testing.assert_allclose(state.average, expected, atol=1e-5)


def test_numpys_numbers_leave_float32_as_it_is(x64):
    numbers = {"learning_rate": 0.01, "noise_std": 0.03, "average": 0.99}
    found = []
    for kind in (float, np.float64):
        config = dip.Config(**{name: kind(value) for name, value in numbers.items()})
        state, observation, functions = problem(config)
        found.append(dip.step(state, observation, **functions))
        before, after = ([x.dtype for x in jax.tree.leaves(s)] for s in (state, found[-1][0]))
        assert before == after
    assert_same(*found)


def test_regularisers_weight_may_be_mapped():
    state, observation, functions = problem(dip.Config())

    def loss(weight):
        run = {**functions, "regulariser": lambda image: weight * losses.total_variation(image)}
        return dip.step(state, observation, **run)[1]["loss"]

    none, one, three = jax.vmap(loss)(jnp.array([0.0, 1.0, 3.0]))
    np.testing.assert_allclose(three - none, 3 * (one - none), rtol=1e-5)
    assert one > none


def test_an_optimiser_is_given_the_loss_and_its_function():
    """As optax's line searches ask for."""
    seen = []

    def update(gradient, opt_state, params=None, *, value, grad, value_fn):
        seen.append((value, value_fn(params), jax.grad(value_fn)(params), grad))
        return jax.tree.map(lambda x: -0.1 * x, gradient), opt_state

    own = optax.GradientTransformationExtraArgs(lambda params: (), update)
    state, observation, functions = problem(dip.Config())
    state = state._replace(opt_state=())
    _, record = dip.step(state, observation, **functions, optimiser=own)
    ((value, again, slope, gradient),) = seen
    np.testing.assert_allclose(again, record["loss"], rtol=1e-6)
    np.testing.assert_allclose(value, record["loss"], rtol=1e-6)
    np.testing.assert_allclose(slope, gradient, rtol=1e-5)


def test_a_fit_by_a_line_search():
    """L-BFGS, to data that it can meet: hundreds of Adam's iterations in some dozen."""
    config = dip.Config(iterations=40, noise_std=0.0, average=0.0)
    reached = [
        fit(config, optimiser=optimiser, loss=losses.mse).history["loss"][-1]
        for optimiser in (optax.lbfgs(), None)
    ]
    assert reached[0] < reached[1]


def test_works_under_vmap():
    config = dip.Config()
    _, observation, functions = problem(config)
    states = [problem(config, seed=seed)[0] for seed in (1, 2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    step = functools.partial(dip.step, **functions)
    together, records = jax.vmap(lambda s: step(s, observation))(stacked)
    for i, state in enumerate(states):
        alone, record = step(state, observation)
        np.testing.assert_allclose(records["loss"][i], record["loss"], rtol=1e-6)
        np.testing.assert_allclose(together.params[i], alone.params, rtol=1e-5)


def test_gradient_through_the_solver(x64):
    """A short fit is differentiable, here with respect to the observation."""
    config = dip.Config()
    state, observation, functions = problem(config, dtype=jnp.float64)

    def final_loss(observation):
        carry = state
        for _ in range(3):
            carry, record = dip.step(carry, observation, **functions)
        return record["loss"]

    gradient = jax.grad(final_loss)(observation)
    moved = jnp.zeros_like(observation).at[0, 1, 2, 0].set(1e-6)
    slope = (final_loss(observation + moved) - final_loss(observation - moved)) / 2e-6
    np.testing.assert_allclose(gradient[0, 1, 2, 0], slope, rtol=1e-5)


def test_fit_does_not_depend_on_its_chunks(monkeypatch):
    config = dip.Config(iterations=20)
    whole = fit(config)
    broken = fit(config, pauses=(3, 4, 11))
    assert_same(whole.state, broken.state)
    assert_same(whole.history, broken.history)
    monkeypatch.setattr(chunks, "LENGTH", 7)
    assert_same(whole.history, fit(config).history)


def test_fit_resumes_to_the_same_bits():
    stopped = fit(dip.Config(iterations=9))
    resumed = fit(dip.Config(iterations=20), resume=(stopped.state, stopped.history))
    whole = fit(dip.Config(iterations=20))
    assert_same(whole.state, resumed.state)
    assert_same(whole.history, resumed.history)
    assert (whole.iterations, resumed.iterations) == (20, 11)


def test_fits_of_many_problems_do_not_keep_their_programs(live_programs):
    """As over a folder: each image has an operator of its own."""
    live = []
    for _ in range(programs.KEPT + 2):
        own = functools.partial(operators.downsample(2, kernel="area"))
        fit(dip.Config(iterations=1), operator=own)
        live.append(live_programs())
    assert live[-1] == live[programs.KEPT]


def test_fits_of_many_sizes_do_not_keep_their_programs():
    """By one operator and network, as it is for images of several sizes."""
    image, operator = jnp.full((1, 8, 256, 3), 0.5), operators.downsample(2, kernel="area")
    for kept in (programs.iterations, programs.output):
        kept.cache_clear()
    for width in range(8, 8 * (programs.KEPT + 2), 8):
        fit(
            dip.Config(iterations=1),
            observation=operator(image[:, :, :width]),
            operator=operator,
            size=(8, width),
        )
    for kept in (programs.iterations, programs.output):
        assert kept.cache_info().currsize == programs.KEPT


def test_fit_refuses_what_it_cannot_go_on_from():
    stopped = fit(dip.Config(iterations=9))
    short = {name: column[:-1] for name, column in stopped.history.items()}
    longer = dip.Config(iterations=20)
    for history, length in ((short, "8"), ({}, "0"), (short | {"loss": np.zeros(9)}, "8, 9")):
        said = rf"\(of length {length}\) must be as long as its state has iterations \(=9\)"
        with pytest.raises(InputError, match=said):
            fit(longer, resume=(stopped.state, history))


def test_fit_refuses_a_state_of_another_kind():
    """Else patience would be ignored, or the columns of one history would differ in length."""
    stopped, detecting = fit(dip.Config(iterations=9)), fit(dip.Config(iterations=9, patience=5))
    truth = jnp.full((1, 8, 8, 3), 0.5)
    for result, options, said in (
        (stopped, {"patience": 5}, r"with no detection .* must fit `patience` \(=5\)"),
        (stopped, {"size": (16, 16)}, r"`size` \(=\(16, 16\)\) must be .* \(=\(8, 8\)\)"),
        (stopped, {"apply_fn": "net"}, "`apply_fn` .* must be a function"),
        (stopped, {"optimiser": optax.sgd(0.1)}, "`resume`: .* of the same `optimiser`"),
        (stopped, {"optimiser": optax.adam}, r"`optimiser` \(=<function adam .* must be one of"),
        (detecting, {}, r"with a detection .* must fit `patience` \(=None\)"),
        (
            stopped,
            {"reference": truth},
            r"the history \(of loss, psnr_fit\) must be of loss, psnr,",
        ),
    ):
        config = dip.Config(iterations=20, patience=options.pop("patience", None))
        with pytest.raises(InputError, match=said):
            fit(config, resume=(result.state, result.history), **options)


@dataclasses.dataclass
class Unhashable:
    """As Python makes dataclasses that compare by their values."""

    def __call__(self, prediction, target):
        return (prediction - target) ** 2


def test_fit_says_what_it_is_not_for():
    with pytest.raises(InputError, match="`fit` runs outside of `jit`, `vmap` and `grad`"):
        jax.vmap(lambda y: fit(dip.Config(iterations=1), observation=y))(jnp.zeros((2, 1, 8, 8, 3)))
    given = jax.random.key(0), jnp.zeros((1, 8, 8, 3)), operators.identity
    functions = {"init_fn": linear_init, "apply_fn": linear_apply}
    functions |= {"size": (8, 8), "loss": losses.mse}
    for config in ({"iterations": 3}, dip.Config):
        with pytest.raises(InputError, match=r"`config` \(=.*\) must be a `dip.Config`"):
            dip.fit(*given, config=config, **functions)
    functions = {"init_fn": linear_init, "apply_fn": linear_apply, "config": dip.Config()}
    for batch, said in ((0, "at least 1"), (2.0, "an integer")):
        with pytest.raises(InputError, match=rf"`batch` \(={batch}\) must be {said}"):
            dip.init(jax.random.key(0), size=(8, 8), batch=batch, **functions)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "mse"}, "`loss` \\(='mse'\\) must be a function"),
        ({"operator": "identity"}, "`operator` \\(='identity'\\) must be a function"),
        ({"apply_fn": "net"}, "`apply_fn` \\(='net'\\) must be a function"),
        ({"apply_fn": lambda p, z: (p, z)}, "`apply_fn` must give one array, of images"),
        ({"regulariser": 0.1}, r"`regulariser` \(=0.1\) must be a function"),
        ({"regulariser": lambda image: 0.1 * image}, "`regulariser` must give one number"),
        ({"regulariser": lambda image: None}, r"must give one number \(it gives None\)"),
        ({"on_chunk": 5}, r"`on_chunk` \(=5\) must be a function"),
        ({"size": 8}, r"`size` \(=8\) must be a tuple \(height, width\)"),
        ({"size": (8, 8, 2)}, r"`size` \(=\(8, 8, 2\)\) must be a tuple \(height, width\)"),
        ({"size": np.array([8, 8])}, r"`size` \(=\[8 8\]\) must be a tuple"),
        ({"loss": np.zeros((2, 2))}, r"`loss` \(=array\(\[\[0., 0.\], \[0., 0.\]\]\)\) must be"),
        ({"size": (-8, 8)}, r"`height` \(=-8\) must be at least 1"),
        ({"loss": Unhashable()}, r"`loss` \(=Unhashable\(\)\) must be hashable"),
        ({"loss": lambda x, y: (x, y)}, r"`loss` must give an array \(it gives tuple\)"),
        ({"reference": np.full((1, 8, 8, 3), np.nan)}, "the reference must be finite"),
    ],
)
def test_fit_refuses_what_is_no_function_or_size(options, said):
    with pytest.raises(InputError, match=said):
        fit(dip.Config(iterations=1), **options)


def test_a_score_cannot_take_the_place_of_the_fit():
    """A score by the truth would else decide, as `psnr_fit`, on what is done again."""

    def score(image, reference):
        return {"psnr_fit": jnp.float32(-99), "loss": jnp.float32(-99), "mean": image.mean()}

    truth = jnp.full((1, 8, 8, 3), 0.5)
    plain = fit(dip.Config(iterations=3))
    scored = fit(dip.Config(iterations=3), reference=truth, score=score)
    for name in ("loss", "psnr_fit"):
        np.testing.assert_array_equal(scored.history[name], plain.history[name])
    assert np.isfinite(scored.history["mean"]).all()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.uint8(0), r"the observation \(of uint8\) must hold floats"),
        (np.float32("nan"), "the observation must be finite"),
    ],
)
def test_fit_refuses_an_observation_of_integers_or_nan(value, said):
    arguments = {"init_fn": linear_init, "apply_fn": linear_apply, "size": (8, 8)}
    with pytest.raises(InputError, match=said):
        dip.fit(
            jax.random.key(0),
            np.full((1, 8, 8, 3), value),
            operators.identity,
            loss=losses.mse,
            config=dip.Config(iterations=1),
            **arguments,
        )


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (lambda x: (x, x), "the operator's result must be one array"),
        (jnp.fft.fft2, r"the operator's result \(of complex64\) must hold floats"),
        (lambda x: x.astype("uint8"), r"the operator's result \(of uint8\) must hold floats"),
    ],
)
def test_fit_refuses_what_no_loss_could_compare(operator, said):
    with pytest.raises(InputError, match=said):
        dip.fit(
            jax.random.key(0),
            jnp.zeros((1, 8, 8, 3)),
            operator,
            init_fn=linear_init,
            apply_fn=linear_apply,
            size=(8, 8),
            loss=losses.mse,
            config=dip.Config(iterations=1),
        )


@pytest.mark.parametrize("shape", [(1, 5, 4, 3), (1, 4, 4, 1)])
def test_fit_refuses_an_observation_of_another_shape(shape):
    said = r"the observation \(of shape .*\) must be of shape \(1, 4, 4, 3\): the operator's"
    with pytest.raises(InputError, match=said):
        dip.fit(
            jax.random.key(0),
            np.zeros(shape, np.float32),
            operators.downsample(2, kernel="area"),
            init_fn=linear_init,
            apply_fn=linear_apply,
            size=(8, 8),
            loss=losses.mse,
            config=dip.Config(iterations=1),
        )


def test_fit_reports_progress_and_stops_when_told():
    seen = []

    def on_chunk(progress):
        seen.append(int(progress.state.step))
        assert len(progress.history["loss"]) == seen[-1]
        return seen[-1] >= 6

    result = fit(dip.Config(iterations=50), on_chunk=on_chunk, pauses=(2, 6))
    assert {2, 6} <= set(seen)
    assert int(result.state.step) == 6 and result.finite


def test_fit_keeps_the_last_finite_state():
    """A loss that overflows once the network is good enough: the fit stops in that chunk."""
    good = fit(dip.Config(iterations=12), pauses=(12,))
    limit = float(good.history["loss"].min())

    def fragile(prediction, target):
        error = losses.charbonnier(prediction, target)
        return jnp.where(error.mean() < limit * 1.0001, jnp.nan, error)

    result = fit(dip.Config(iterations=40), loss=fragile, pauses=range(1, 40))
    assert not result.finite
    done = int(result.state.step)
    assert 0 < done < 40
    assert np.isfinite(result.history["loss"]).all() and len(result.history["loss"]) == done
    assert np.isfinite(result.image).all() and np.isfinite(result.params).all()


def test_least_variance_is_that_of_a_plain_loop():
    """The authors' recursion in float64, over images that settle and drift away again."""
    rng, a = np.random.default_rng(0), 0.1
    steps = np.concatenate([np.geomspace(1, 0.01, 40), np.geomspace(0.01, 1, 30)])
    outputs = np.cumsum(steps[:, None, None, None] * rng.standard_normal((70, 4, 5, 3)), axis=0)
    detection = stopping.start((1, 4, 5, 3), jnp.float32)
    mean, variance, variances = outputs[0], 0.0, [np.inf]
    for t, output in enumerate(outputs, start=1):
        result = jnp.full((1, 4, 5, 3), t, jnp.float32)
        detection = stopping.update(detection, jnp.float32(output)[None], result, jnp.int32(t))
        if t > 1:
            variance = (1 - a) * (variance + a * np.mean((output - mean) ** 2))
            mean = mean + a * (output - mean)
            variances.append(variance / (1 - (1 - a) ** (t - 1)))
    best = 1 + int(np.argmin(variances))
    assert 40 < best < 60 and int(detection.iteration) == best
    assert (detection.best == best).all()
    np.testing.assert_allclose(detection.mean[0], mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(detection.least, min(variances), rtol=1e-4)


def test_fit_ends_with_the_image_of_least_variance(monkeypatch):
    """Whatever the chunks, and after a resume: `patience` iterations after it, as it was then."""
    config = dip.Config(iterations=400, patience=7, learning_rate=0.1)
    whole = fit(config)
    best, done = int(whole.state.detection.iteration), int(whole.state.step)
    assert done == best + 7 < 400 == config.iterations and len(whole.history["loss"]) == done
    plain = fit(dip.Config(iterations=best, learning_rate=0.1))
    np.testing.assert_array_equal(whole.image, plain.image)
    assert plain.state.detection is None
    stopped = fit(config, on_chunk=lambda progress: int(progress.state.step) >= 3)
    resumed = fit(config, resume=(stopped.state, stopped.history))
    monkeypatch.setattr(chunks, "LENGTH", 4)
    for other in (resumed, fit(config)):
        assert_same(whole.state, other.state)
        assert_same(whole.history, other.history)


def spiked(config):
    """A network that fails for one draw of the noise, and the iteration, from 1, that has it."""
    state, *_ = problem(config)
    keys = [jax.random.fold_in(state.key, t) for t in range(config.iterations)]
    noise = jnp.stack([jax.random.normal(key, state.latent.shape)[0, 0, 0] for key in keys])
    corner = np.asarray(state.latent[0, 0, 0]) + config.noise_std * np.asarray(noise)
    channel = int(np.argmax(corner.argmax(0) > 10))  # the first that is highest after some fitting
    second, highest = np.sort(corner[:, channel])[-2:]

    def network(params, latent):
        fails = latent[0, 0, 0, channel] > (highest + second) / 2
        return jnp.where(fails, 10.0, linear_apply(params, latent))

    return network, 1 + int(corner[:, channel].argmax())


def test_fit_that_is_thrown_back_goes_back(monkeypatch):
    config = dip.Config(iterations=40)
    network, at = spiked(config)
    pauses = (at - 3, at)
    found = fit(config, apply_fn=network, pauses=pauses)
    assert found.rollbacks == 1 and int(found.state.step) == len(found.history["loss"]) == 40
    plain = fit(config)
    for name, column in plain.history.items():
        np.testing.assert_allclose(found.history[name][: at - 3], column[: at - 3], rtol=1e-5)
    before, after = found.history["psnr_fit"][[at - 4, at - 1]]
    assert after > before - 5
    assert found.history["loss"][at - 1] != plain.history["loss"][at - 1]  # of other noise
    monkeypatch.setattr(fitting, "FALL", np.inf)
    thrown = fit(config, apply_fn=network, pauses=pauses)
    assert thrown.rollbacks == 0 and thrown.history["psnr_fit"][at - 1] < 0


def test_fit_that_was_resumed_goes_back_as_it_would_have():
    config = dip.Config(iterations=40)
    network, at = spiked(config)
    pauses = (at - 3, at)
    whole = fit(config, apply_fn=network, pauses=pauses)
    stopped = fit(dataclasses.replace(config, iterations=at - 3), apply_fn=network)
    resumed = fit(config, apply_fn=network, pauses=pauses, resume=(stopped.state, stopped.history))
    assert (stopped.rollbacks, resumed.rollbacks, resumed.iterations) == (0, 1, 40 - (at - 3))
    assert_same(whole.state, resumed.state)
    assert_same(whole.history, resumed.history)


def test_fit_that_overflows_at_once_has_an_empty_history():
    result = fit(dip.Config(iterations=5), loss=lambda a, b: jnp.log(a - a - 1))
    assert not result.finite and not result.over and int(result.state.step) == 0
    assert {name: len(column) for name, column in result.history.items()} == {
        "loss": 0,
        "psnr_fit": 0,
    }


def test_fit_sees_a_parameter_overflow_behind_a_finite_loss():
    """A level that steps over the largest float32; the output is 0 throughout."""

    def network(level, latent):
        return 0 * latent[..., :1] + 1e-38 * jnp.clip(level, -3e38, 3e38)

    def upwards():
        return optax.GradientTransformation(
            lambda params: (), lambda slope, state, params: (jnp.float32(2e37), state)
        )

    result = dip.fit(
        jax.random.key(0),
        jnp.zeros((1, 2, 2, 1)),
        operators.identity,
        init_fn=lambda key, latent: jnp.float32(3.3e38),
        apply_fn=network,
        size=(2, 2),
        loss=losses.mse,
        config=dip.Config(iterations=1),
        optimiser=upwards(),
    )
    assert not result.finite and float(result.params) == np.float32(3.3e38)


def test_noise_after_going_back_is_of_no_earlier_key(monkeypatch):
    """Of `jax.random.split`, say, which derives what `fold_in` does for 0 and 1."""
    monkeypatch.setattr(fitting, "FALL", -np.inf)
    config = dip.Config(iterations=8)
    start = problem(config)[0].key
    found = set()

    def words(key):
        return tuple(jax.random.key_data(key).tolist())

    fit(config, pauses=(4,), on_chunk=lambda progress: found.add(words(progress.state.key)))
    used = {words(jax.random.fold_in(start, t)) for t in range(8)}
    assert len(found) == 1 + fitting.ROLLBACKS and not found & used


def test_fit_goes_back_so_often_and_no_more(monkeypatch):
    """Three windows, the last two of which always count as a fall."""
    monkeypatch.setattr(fitting, "FALL", -np.inf)
    seen = []
    result = fit(
        dip.Config(iterations=12),
        pauses=(4, 8),
        on_chunk=lambda progress: seen.append(progress.rollbacks),
    )
    assert result.rollbacks == 2 * fitting.ROLLBACKS == max(seen)
    assert int(result.state.step) == len(result.history["loss"]) == 12


def test_fit_checks_its_last_window_where_patience_ends_it(monkeypatch):
    monkeypatch.setattr(fitting, "FALL", -np.inf)  # every window but the first counts as a fall
    config = dip.Config(iterations=400, patience=7, learning_rate=0.1)
    result = fit(config, pauses=(3,))
    assert 3 < int(result.state.step) < fitting.WINDOW
    assert result.rollbacks == fitting.ROLLBACKS and result.over


def test_fit_counts_the_seconds_of_the_iterations_that_it_keeps(monkeypatch):
    """One an iteration, of chunks of one, by a clock that goes on by one at every look."""
    monkeypatch.setattr(chunks, "following", lambda *_: 1)
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(fitting, "time", clock)

    def broken(prediction, target):
        error = losses.charbonnier(prediction, target)
        return jnp.where(error.mean() < limit * 1.0001, jnp.nan, error)

    whole = fit(dip.Config(iterations=12))
    limit = float(whole.history["loss"].min())
    ended = fit(dip.Config(iterations=12), loss=broken, pauses=(3,))
    assert not ended.finite and ended.iterations == 3 < int(whole.history["loss"].argmin())
    monkeypatch.setattr(fitting, "FALL", -np.inf)
    again = fit(dip.Config(iterations=12), pauses=(4, 8))
    assert again.rollbacks == 2 * fitting.ROLLBACKS
    for result, iterations in ((whole, 12), (ended, 3), (again, 12)):
        assert result.iterations == result.seconds == iterations


def test_fit_that_sees_nothing_wrong_is_not_thrown_back():
    """Where the observation is met exactly, its PSNR is infinite at every window's end."""
    result = dip.fit(
        jax.random.key(0),
        jnp.zeros((1, 8, 8, 3)),
        operators.identity,
        init_fn=linear_init,
        apply_fn=lambda params, latent: 0 * linear_apply(params, latent),
        size=(8, 8),
        loss=losses.mse,
        config=dip.Config(iterations=6),
        pauses=(2, 4),
    )
    assert result.rollbacks == 0 and np.isinf(result.history["psnr_fit"]).all()


def test_fits_an_image_with_the_skip_network():
    """The real network draws a smooth image from a quarter of its pixels, better than it began."""
    ramp = jnp.linspace(0.1, 0.9, 64)
    truth = jnp.broadcast_to(ramp[None, :, None, None] * ramp[None, None, :, None], (1, 64, 64, 3))
    operator = operators.downsample(4)
    network = SkipUNet(down=(8,) * 3, up=(8,) * 3, skip=(4,) * 3)
    result = dip.fit(
        jax.random.key(0),
        operator(truth),
        operator,
        init_fn=network.init,
        apply_fn=network.apply,
        size=(64, 64),
        loss=losses.charbonnier,
        config=dip.Config(iterations=60, average=0.9),
        reference=truth,
    )
    psnr = result.history["psnr"]
    assert psnr[-1] > 30 > psnr[0] + 15
    assert result.image.shape == truth.shape == result.last.shape


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("iterations", 0),
        ("iterations", 10**7 + 1),
        ("iterations", -3),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("noise_std", -0.1),
        ("average", 1.0),
        ("latent_channels", 0),
        ("patience", 0),
    ],
)
def test_config_refuses(setting, value):
    with pytest.raises(InputError, match=rf"`{setting}` \(={value}\) must be"):
        dip.Config(**{setting: value})


def test_config_takes_numbers_of_any_kind():
    """Of JAX, which could not be hashed, and those that are no floats."""
    plain = dip.Config(learning_rate=0.125, noise_std=0.0)
    for number in (jnp.float32, np.float32, np.array):
        given = dip.Config(learning_rate=number(0.125), noise_std=number(0))
        assert given == plain and hash(given) == hash(plain)
    with pytest.raises(InputError, match=r"`average` \(='0.5'\) must be a number"):
        dip.Config(average="0.5")


@pytest.mark.parametrize("value", [2.5, 3.0, True])
@pytest.mark.parametrize("setting", ["iterations", "latent_channels", "patience"])
def test_config_takes_whole_numbers_alone(setting, value):
    with pytest.raises(InputError, match=rf"`{setting}` \(={value}\) must be an integer"):
        dip.Config(**{setting: value})
    assert getattr(dip.Config(**{setting: np.int64(7)}), setting) == 7


def test_the_latent_is_uniform_in_0_to_a_tenth():
    latent = problem(dip.Config())[0].latent
    assert latent.shape == (1, 8, 8, 32)
    assert stats.kstest(np.ravel(latent), stats.uniform(0, 0.1).cdf).pvalue > 0.01
    assert problem(dip.Config(latent_channels=5))[0].latent.shape == (1, 8, 8, 5)


def test_the_regulariser_is_added_to_the_loss(x64):
    state, observation, functions = problem(dip.Config(), dtype=jnp.float64)
    functions |= {"regulariser": lambda image: 0.3 * losses.total_variation(image)}
    noise = jax.random.normal(jax.random.fold_in(state.key, 0), state.latent.shape, jnp.float64)
    _, record = dip.step(state, observation, **{**functions, "loss": losses.mse})
    image = 1 / (1 + np.exp(-np.asarray(state.latent + 0.03 * noise) @ np.asarray(state.params)))
    small = image.reshape(1, 4, 2, 4, 2, 3).mean((2, 4))
    tv = sum(np.abs(np.diff(image, axis=axis)).mean() for axis in (1, 2))
    expected = ((small - observation) ** 2).mean() + 0.3 * tv
    np.testing.assert_allclose(record["loss"], expected, rtol=1e-12)


@pytest.fixture
def compilations(caplog):
    """`compilations()` lists the programs compiled since the last call, in whichever thread."""
    jax.config.update("jax_log_compiles", True)

    def found():
        told = [text for text in caplog.messages if "XLA compilation of" in text]
        caplog.clear()
        return told

    with caplog.at_level("WARNING"):
        yield found
    jax.config.update("jax_log_compiles", False)


def test_a_further_fit_compiles_nothing(compilations):
    config = dip.Config(iterations=3)
    functions = {
        "init_fn": lambda key, latent: jnp.ones(()),
        "apply_fn": lambda level, latent: level * latent[..., :1],
        "loss": losses.mse,
    }
    compiled = []
    for seed in range(2):
        found = dip.fit(
            jax.random.key(seed),
            jnp.full((1, 3, 5, 1), 0.3),
            operators.identity,
            size=(3, 5),
            config=config,
            **functions,
        )
        compiled.append(compilations())
    assert all(f"jit({name})" in "".join(compiled[0]) for name in ("init", "loop", "<lambda>"))
    assert compiled[1] == []
    state = jax.device_put(found.state, jax.devices()[0])  # committed, as a checkpoint's are
    more = {**functions, "config": dip.Config(iterations=5), "size": (3, 5)}
    more["resume"] = state, found.history
    dip.fit(jax.random.key(0), jnp.full((1, 3, 5, 1), 0.3), operators.identity, **more)
    assert "jit(loop)" not in "".join(compilations())


@pytest.mark.parametrize("pauses", [[0], [1.5], np.linspace(1, 4, 3)])
def test_pauses_are_counted(pauses):
    with pytest.raises(InputError, match=r"`pauses` \(=.*\) must be (an integer|at least 1)"):
        fit(dip.Config(iterations=2), pauses=pauses)
    assert type(fit(dip.Config(iterations=4), pauses=np.arange(2, 5, 2)).iterations) is int


def test_a_fit_may_be_watched_for_nan():
    """No number of it is one, also not where a chunk is shorter than its record has room."""
    with jax.debug_nans(True):
        assert fit(dip.Config(iterations=3)).finite


PLACED = """
import tempfile
import jax
import jax.numpy as jnp
import numpy as np
from jaxsr import dip, losses, operators

functions = {"init_fn": lambda key, latent: jnp.ones(()), "loss": losses.mse, "size": (3, 5)}
functions["apply_fn"] = lambda level, latent: level * latent[..., :1]
fit = lambda key, y, steps=3, **more: dip.fit(
    key, y, operators.identity, config=dip.Config(iterations=steps), **functions, **more)
key, y, other = jax.random.key(0), jnp.full((1, 3, 5, 1), 0.3), jax.devices()[1]
expected = fit(key, y, 5).history["loss"]
with tempfile.TemporaryDirectory() as folder:
    there = fit(key, jax.device_put(y, other), traces=folder)
assert there.image.devices() == {other}
fit(jax.device_put(key, other), y)
back = fit(key, np.asarray(y), 5, resume=(there.state, there.history))
here = fit(key, y)
again = fit(key, jax.device_put(y, other), 5, resume=(here.state, here.history))
for found in (back, again):
    np.testing.assert_allclose(found.history["loss"], expected, rtol=1e-6)
"""


def test_a_fit_goes_where_its_observation_lies():
    """Whatever device the key, or the state that it resumes from, is on."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    quickly = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", PLACED]
    ended = subprocess.run(command, env=os.environ | quickly, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def rising(config, **more):
    """An output that Adam raises from 1 by the learning rate, whatever the noise; y is 0."""
    return dip.fit(
        jax.random.key(0),
        jnp.zeros((1, 2, 2, 1)),
        operators.identity,
        init_fn=lambda key, latent: jnp.ones(()),
        apply_fn=lambda level, latent: jnp.broadcast_to(level, (1, 2, 2, 1)),
        size=(2, 2),
        loss=lambda x, y: y - x,
        config=config,
        **more,
    )


@pytest.mark.parametrize(("fall", "rollbacks"), [(4.9, 0), (5.1, 3)])
def test_a_fall_is_of_over_5_decibels(fall, rollbacks):
    config = dip.Config(iterations=2, learning_rate=10 ** (fall / 20) - 1)
    result = rising(config, pauses=(1,))
    assert result.rollbacks == rollbacks
    np.testing.assert_allclose(result.history["psnr_fit"], [0, -fall], atol=1e-4)


def test_windows_are_of_100_iterations():
    """The output is 1, 2, 3, ...: from the 100th to the 200th its PSNR falls by 6 dB."""
    result = rising(dip.Config(iterations=200, learning_rate=1.0))
    assert result.rollbacks == 3
    np.testing.assert_allclose(result.history["psnr_fit"][[99, 199]], [-40, -46.0206], atol=1e-2)
