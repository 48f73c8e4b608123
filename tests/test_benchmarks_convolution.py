import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from benchmarks import convolution, peers
from tests.commands import main

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(peers, "PAUSE", 0)


def problem(channels=3, side=8):
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = ((1, side + 2, side + 2, channels), (3, 3, channels, channels))
    shapes = (*shapes, (1, side, side, channels))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("name", convolution.IN_A_LOOP)
def test_an_iteration_needs_all_three(name):
    """Against SciPy's correlations in float64, channel by channel."""
    arrays = problem()
    found = convolution.looped(convolution.IN_A_LOOP[name], 1, rate=0.01)(*arrays)
    x, w, dy = (np.asarray(a, np.float64) for a in arrays)
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    for c in range(3):
        for k in range(3):
            y[0, :, :, k] += signal.correlate2d(x[0, :, :, c], w[:, :, c, k], "valid")
            dx[0, :, :, c] += signal.convolve2d(dy[0, :, :, k], w[:, :, c, k], "full")
            dw[:, :, c, k] = signal.correlate2d(x[0, :, :, c], dy[0, :, :, k], "valid")
    for actual, before, gradient in zip(found, (x, w, dy), (dx, dw, y), strict=True):
        np.testing.assert_allclose(actual, before - 0.01 * gradient, atol=1e-5)


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_writes_what_it_found(alone, tmp_path, capsys):
    if not alone:
        pytest.importorskip("torch")
    path = tmp_path / "convolution.json"
    options = ["--sizes", "12x12", "--channels", "4", "--megapixels", "0.001"]
    options += ["--rounds", "2", "--json", str(path), *(["--alone"] if alone else [])]
    assert main(convolution, options) == 0
    (found,) = json.loads(path.read_text())["results"]
    assert found["chosen"] == "winograd"
    assert ("PyTorch eager" in found["ways"]) == (not alone)
    ours = found["ways"]["ours"]["seconds_per_convolution"]
    assert found["ours_seconds_per_convolution"] == ours > 0
    assert capsys.readouterr().out.count("ours is winograd") == 1
    large = ["--taps", "5", *options, "--alone"]
    assert main(convolution, large) == 0
    (found,) = json.loads(path.read_text())["results"]
    assert found["chosen"] == "lax and 3x3 filters" and "winograd" not in found["ways"]
    assert main(convolution, [*large, "--features", "80"]) == 0
    (found,) = json.loads(path.read_text())["results"]
    assert found["chosen"] == "lax and im2col"
    assert found["name"] == "convolution 12x12, 4 channels to 80, 5x5 filters"
    assert main(convolution, ["--sizes", "8x10"]) == 2
    assert "`--sizes` (=8x10)" in capsys.readouterr().err
    assert main(convolution, ["--megapixels", "0"]) == 2
    assert main(convolution, ["--features", "0"]) == 2
    assert "`--features` (=0)" in capsys.readouterr().err


def test_no_product_is_rounded_to_tf32(monkeypatch, capsys):
    precisions = []

    def watched(x, w):
        precisions.append(jax.config.jax_default_matmul_precision)
        return convolution.plain(x, w)

    monkeypatch.setitem(convolution.IN_A_LOOP, "ours", convolution.differentiated(watched))
    options = ["--sizes", "4x4", "--channels", "2", "--megapixels", "1e-5", "--rounds", "1"]
    assert main(convolution, [*options, "--alone"]) == 0
    assert {*precisions} == {"highest"} and len(precisions) == 2  # to be checked, to be timed


def test_on_a_gpu_all_ways_take_turns(monkeypatch, capsys):
    """As many iterations of `lax` in a loop as of the others: that is ours there."""
    calls = []

    def interleaved(programs, *, units=1, **_):
        calls.append(([*programs], units))
        return {name: convolution.timing.Timing((1.0,)) for name in programs}

    monkeypatch.setattr(convolution.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(convolution.timing, "interleaved", interleaved)
    assert main(convolution, ["--sizes", "4x4", "--channels", "2", "--alone"]) == 0
    assert calls == [([*convolution.IN_A_LOOP, "lax outside"], 125_000)]
    assert capsys.readouterr().out.count("ours is lax") == 1


def test_im2col_is_chosen_where_filters_outnumber_pixels():
    x, w, _ = problem(64, 4)
    assert convolution.chosen(x, w) == "im2col"
    large = jnp.zeros((1, 66, 66, 64))
    assert convolution.chosen(large, w) == "winograd"
    assert convolution.chosen(large.astype(jnp.bfloat16), w) == "im2col"
