"""Without a trick: another program, the same numbers."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from benchmarks import plain, tricks
from jaxsr import training
from jaxsr.dip import Config, init, step
from jaxsr.losses import mse
from jaxsr.models import LapSRN, SkipUNet
from jaxsr.operators import downsample
from tests.commands import main

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SMALL = functools.partial(SkipUNet, down=(8,), up=(8,), skip=(4,))
LAPSRN = LapSRN(depth=1, features=32)
RECIPE = training.Config(batch=4, size=64, weight_decay=0.0)


def compiled(function, arguments, form, **functions):
    """The program of a step in text, and Adam's first mean after it: a tenth of the gradient."""
    with form.patch:
        jax.clear_caches()
        traced = jax.jit(functools.partial(function, **functions)).trace(*arguments)
        state, _ = traced.lower().compile()(*arguments)

    def has_mean(x):
        return hasattr(x, "mu")

    (adam,) = filter(has_mean, jax.tree.leaves(state.opt_state, is_leaf=has_mean))
    return str(traced.jaxpr), ravel_pytree(adam.mu)[0]


@functools.cache
def fit_state():
    networks = {"init_fn": SMALL().init, "apply_fn": SMALL().apply}
    start = functools.partial(init, size=(16, 16), config=Config(), **networks)
    return jax.jit(start)(jax.random.key(0))


@functools.cache
def training_state():
    start = functools.partial(training.init, model=LAPSRN, config=RECIPE)
    return jax.jit(start)(jax.random.key(0))


def dip(form):
    functions = {"apply_fn": SMALL(**form.network).apply, "config": Config()}
    state = fit_state()
    observation = jax.random.uniform(jax.random.key(1), (1, 4, 4, 3))
    functions |= {"loss": mse, "operator": downsample(4)}
    return compiled(step, (state, observation), form, **functions)


def lapsrn(form):
    state = training_state()
    images = jax.random.uniform(jax.random.key(1), (4, 64, 64, 1))
    config = dataclasses.replace(RECIPE, **{"parts": 4, **form.recipe})
    return compiled(training.step, (state, images), form, model=LAPSRN, config=config)


def image(form):
    """The program of an image, and the image."""
    luma = jax.random.uniform(jax.random.key(1), (1, 90, 100, 1))
    variables = training_state().variables
    with form.patch:
        jax.clear_caches()
        traced = jax.jit(LAPSRN.apply).trace(variables, luma)
        return str(traced.jaxpr), np.ravel(traced.lower().compile()(variables, luma)[-1])


@pytest.fixture(scope="module")
def ours(compiled_quickly):
    """The programs and their numbers with all tricks."""
    return {work: work(plain.Plain()) for work in (dip, image, lapsrn)}


FORMS = [(dip, name, form) for name, form in plain.DIP.items()]
FORMS += [(image, name, form) for name, form in plain.IMAGE.items()]
FORMS += [(lapsrn, name, form) for name, form in plain.TRAINING.items()]


@pytest.mark.parametrize(
    ("work", "form"), [(w, f) for w, _, f in FORMS], ids=[n for _, n, _ in FORMS]
)
def test_without_a_trick(work, form, ours):
    program, numbers = work(form)
    assert program != ours[work][0]
    difference = np.linalg.norm(numbers - ours[work][1])
    assert difference < 1e-3 * np.linalg.norm(ours[work][1])


def test_a_run_writes_what_it_found(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tricks, "SkipUNet", SMALL)
    monkeypatch.setattr(plain, "DIP", {"a": plain.WINOGRAD})
    monkeypatch.setattr(plain, "IMAGE", {"b": plain.PAIRS})
    monkeypatch.setattr(plain, "TRAINING", {"c": plain.Plain(recipe={"parts": 1})})
    monkeypatch.setitem(tricks.lapsrn.NETWORKS, "paper", LAPSRN)
    monkeypatch.setattr(tricks.lapsrn, "RECIPE", training.Config(batch=4, size=16))
    path = tmp_path / "tricks.json"
    options = ["--sizes", "64x64", "--iterations", "1", "--images", "1", "--steps", "1"]
    options += ["--rounds", "2"]
    assert main(tricks, [*options, "--json", str(path)]) == 0
    results = json.loads(path.read_text())["results"]
    works = ["dip 64x64", "lapsrn image 64x64", "lapsrn training step"]
    assert [result["name"] for result in results] == [f"tricks {work}" for work in works]
    fit = results[0]
    without = fit["without"]["a"]
    ours = fit["ours_seconds_per_iteration"]
    assert without["gain"] == pytest.approx(without["seconds_per_iteration"] / ours)
    assert "gains: c" in capsys.readouterr().out
    options += ["--works", "image", "--json", str(path)]
    assert main(tricks, options) == 0
    (result,) = json.loads(path.read_text())["results"]
    assert result["name"] == "tricks lapsrn image 64x64"
    assert main(tricks, ["--sizes", "100x64"]) == 2
    assert main(tricks, ["--steps", "0"]) == 2
