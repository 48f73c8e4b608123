"""`python -m benchmarks.losses`: fits of a tiny network, and bookkeeping on fits made up here."""

import csv
import itertools
import json
import os
import pathlib
import shutil
import signal
import threading
import time
import types

import jax
import numpy as np
import PIL.Image
import pytest
import skimage.data

from benchmarks import loss_fits, losses, psnr_curves
from experiments import problem
from jaxsr import images
from jaxsr.errors import InputError
from tests.commands import main

pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Linear:
    """A network of one matrix, which compiles in no time."""

    def __init__(self, channels):
        self.channels = channels

    def init(self, key, latent):
        return jax.random.normal(key, (latent.shape[-1], self.channels))

    def apply(self, params, latent):
        return jax.nn.sigmoid(latent @ params)


def command(out, *more):
    return ["--size", "64x64", "--iterations", "6", "--out", str(out), *map(str, more)]


def cells(out):
    return {path.name: path.read_bytes() for path in (out / "cells").iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of two losses and two seeds, and what `dip.fit` was given and made, fit by fit."""
    folder = tmp_path_factory.mktemp("losses")
    calls, rates = [], itertools.count(1)
    real = loss_fits.dip.fit

    def watched(key, low, *args, **kwargs):
        result = real(key, low, *args, **kwargs)
        calls.append((key, low, kwargs, result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "cores", lambda: 1)  # fits in their order
        patch.setattr(loss_fits, "SkipUNet", Linear)
        patch.setattr(loss_fits.dip, "fit", watched)
        patch.setattr(loss_fits.timing, "once", lambda program, *, clock: 8 / next(rates))
        args = command(folder / "out", "--losses", "mse", "general-0", "--seeds", 0, 7)
        assert main(losses, args) == 0
        shutil.copytree(folder / "out", folder / "again")
        (folder / "again" / "cells" / "general-0_seed7.json").unlink()
        (folder / "again" / "cells" / ".half.tmp.json").write_text("{")  # what a kill leaves
        assert main(losses, command(folder / "again", *args[6:])) == 0
    return types.SimpleNamespace(path=folder, out=folder / "out", calls=calls, args=args)


def cell(out, loss, seed):
    return json.loads((out / "cells" / f"{loss}_seed{seed}.json").read_text())


def decibels(image, truth):
    error = np.asarray(image, np.float64) - np.asarray(truth, np.float64)
    return -10 * np.log10(np.mean(error**2))


def test_records_hold_what_was_fitted(finished):
    assert len(finished.calls) == 5  # one of them after the deletion
    truth = skimage.data.coffee()[60 + 32 : 188 - 32, 330 + 32 : 458 - 32]
    small = PIL.Image.fromarray(truth).resize((16, 16), PIL.Image.Resampling.LANCZOS)
    order = [("mse", 0), ("general-0", 0), ("mse", 7), ("general-0", 7), ("general-0", 7)]
    starts = {}
    for (loss, seed), (key, low, kwargs, result) in zip(order, finished.calls, strict=True):
        np.testing.assert_array_equal(np.rint(np.asarray(low[0]) * 255), np.asarray(small))
        np.testing.assert_array_equal(np.rint(np.asarray(kwargs["reference"][0]) * 255), truth)
        assert (jax.random.key_data(key) == jax.random.key_data(jax.random.key(seed))).all()
        record = cell(finished.path / "again", loss, seed)
        assert record["loss"] == loss and record["seed"] == seed
        assert len(record["psnr"]) == len(record["psnr_output"]) == 6
        assert record["psnr"][-1] == pytest.approx(decibels(result.image, [truth / 255]), abs=1e-4)
        np.testing.assert_array_equal(
            np.array(record["psnr_output"], np.float32), result.history["psnr_output"]
        )
        starts.setdefault(seed, []).append((record["psnr"][0], record["psnr_output"][0]))
    for values in starts.values():  # the first output is from before the first gradient
        np.testing.assert_allclose(values, values[0][0], atol=1e-3)
    assert abs(starts[0][0][0] - starts[7][0][0]) > 0.01


def test_the_report_is_of_these_records(finished):
    found = json.loads((finished.out / "losses.json").read_text())
    truth = skimage.data.coffee()[92:156, 362:426]
    small = PIL.Image.fromarray(truth).resize((16, 16), PIL.Image.Resampling.LANCZOS)
    bicubic = np.asarray(small.resize((64, 64), PIL.Image.Resampling.BICUBIC))
    assert found["bicubic_psnr"] == pytest.approx(decibels(bicubic / 255, truth / 255), abs=1e-5)
    assert found["level"] == found["bicubic_psnr"] + 1
    assert found["environment"]["versions"]["jax"] == jax.__version__
    assert found["settings"]["size"] == "64x64" and found["settings"]["losses"][0] == "mse"
    assert list(found["summary"]) == ["mse", "general-0"]
    for loss, figures in found["summary"].items():
        records = [cell(finished.out, loss, seed) for seed in (0, 7)]
        pair = [record["psnr"][-1] for record in records]
        assert figures["psnr_6"]["mean"] == pytest.approx(np.mean(pair), rel=1e-12)
        assert figures["psnr_6"]["spread"] == pytest.approx(np.std(pair, ddof=1), rel=1e-9)
        assert figures["iterations_to_level"] == {"mean": None, "spread": None, "seeds": 0, "of": 2}
    # 40 iterations in 8 / 1, 8 / 2, ... s: of mse the first, fourth, fifth, eighth and ninth
    for loss, rate in (("mse", 25), ("general-0", 30)):
        assert found["speeds"][loss]["iterations_per_second"] == pytest.approx(rate, rel=1e-12)
    assert found["speeds"]["mse"]["spread"] == pytest.approx(0.015 / 0.04**2, rel=1e-9)
    rows = list(csv.DictReader((finished.out / "losses.csv").read_text().splitlines()))
    assert [(row["loss"], row["seed"]) for row in rows[:2]] == [("mse", "0"), ("general-0", "0")]
    assert float(rows[3]["psnr_6"]) == cell(finished.out, "general-0", 7)["psnr"][-1]
    assert rows[0]["iterations_to_level"] == ""
    with PIL.Image.open(finished.out / "losses.png") as picture:
        assert picture.size == (960, 540)


def test_only_what_is_missing_is_fitted(finished, monkeypatch, tmp_path, capsys):
    before, after = cells(finished.out), cells(finished.path / "again")
    name = "general-0_seed7.json"
    assert {**after, name: b""} == {**before, name: b"", ".half.tmp.json": b"{"}
    remade, kept = json.loads(after[name]), json.loads(before[name])
    assert remade["psnr"] == kept["psnr"] and remade["psnr_output"] == kept["psnr_output"]

    shutil.copytree(finished.out, tmp_path / "out")
    monkeypatch.setattr(loss_fits, "fit", None)  # nothing may be computed
    assert main(losses, command(tmp_path / "out", *finished.args[6:])) == 0
    assert cells(tmp_path / "out") == before
    for name in ("losses.json", "losses.csv", "losses.png"):
        assert (tmp_path / "out" / name).read_bytes() == (finished.out / name).read_bytes()
    protocol, header, *rows = capsys.readouterr().out.splitlines()[-4:]
    assert protocol.startswith("PSNR under protocol paper-dip: RGB, unrounded")
    assert header.split()[:3] == ["dB", "after", "6"] and header.endswith("iterations/s")
    assert len({len(row) for row in (header, *rows)}) == 1
    found = json.loads((finished.out / "losses.json").read_text())["summary"]["mse"]["psnr_6"]
    assert f" mse  {found['mean']:.2f} +- {found['spread']:.2f}" in rows[0]


@pytest.fixture
def made_up(monkeypatch):
    """`dip.fit` without work: PSNR rises by a decibel an iteration, on the level by the loss."""
    calls = []

    def fit(key, low, operator, *, config, loss, **_):
        calls.append(loss)
        psnr = np.arange(20, 20 + config.iterations, dtype=np.float32)
        history = {"psnr": psnr, "psnr_output": psnr - 1}
        return types.SimpleNamespace(
            history=history, iterations=config.iterations, finite=True, over=True
        )

    monkeypatch.setattr(losses, "cores", lambda: 1)
    monkeypatch.setattr(loss_fits.dip, "fit", fit)
    speed = {"iterations_per_second": 7.0, "spread": 0.5}
    monkeypatch.setattr(
        loss_fits, "speeds", lambda path, made, truth, names: dict.fromkeys(names, speed)
    )
    return calls


def test_a_folder_is_of_one_setting(made_up, tmp_path, capsys):
    out = tmp_path / "out"
    args = ("--losses", "l1")
    assert main(losses, command(out, *args)) == 0
    before = cells(out)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "noise.png")
    for more, name in (
        (("--size", "64x96"), "`--size` (=64x96)"),
        (("--iterations", 7), "`--iterations` (=7)"),
        (("--hr", tmp_path / "noise.png"), "`image_sha256`"),
        (("--losses", "mse", "--iterations", 7), "`--iterations` (=7)"),  # none of these is there
    ):
        capsys.readouterr()
        assert main(losses, command(out, *args, *more)) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"error: {name}") and captured.err.count("\n") == 1
        assert "choose another `--out`" in captured.err
    assert cells(out) == before

    assert main(losses, command(out, "--losses", "l1", "huber", "--seeds", 1, 2)) == 0  # more of it
    assert len(made_up) == 2 + 3 and before.items() <= cells(out).items()

    path = out / "cells" / "l1_seed0.json"
    record = json.loads(path.read_text())
    record["made"]["jax"] = "0.0.1"
    path.write_text(json.dumps(record))
    assert main(losses, command(out, *args)) == 2
    assert f"`jax` (={jax.__version__}) must be that of {path} (=0.0.1)" in capsys.readouterr().err
    for damaged in (b"", b'{"psnr": [1', b"[]", b'{"made": {}}', b"\xff"):
        path.write_bytes(damaged)
        assert main(losses, command(out, *args)) == 2
        captured = capsys.readouterr()
        assert f"`{path}` is damaged" in captured.err and captured.err.count("\n") == 1


def test_the_command_tells_what_it_keeps():
    """The other tests run it as `tests.commands` does."""
    last = pathlib.Path(losses.__file__).read_text().splitlines()[-1]
    assert last == "    sys.exit(peers.main(Options, run, stopped=STOPPED))"


def test_ctrl_c_keeps_the_finished_fits(made_up, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    real = loss_fits.dip.fit

    def pressed(*args, on_chunk, **kwargs):
        if len(made_up) < 2:
            return real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)
        while not on_chunk(None):
            time.sleep(0.01)
        return types.SimpleNamespace(finite=True, over=False)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(loss_fits.dip, "fit", pressed)
            assert main(losses, command(out)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    assert captured.err.startswith("stopped: the finished") and captured.err.count("\n") == 1
    assert sorted(cells(out)) == ["l1_seed0.json", "mse_seed0.json"]
    assert not (out / "losses.json").exists()
    assert main(losses, command(out)) == 0
    assert len(made_up) == 14 == len(cells(out))


def test_fits_run_beside_each_other(monkeypatch):
    """Each of two devices has one, from one list; what one of them raises ends the other's."""
    first = jax.devices()[0]
    monkeypatch.setattr(loss_fits.jax, "local_devices", lambda: [first, first])
    both, done = threading.Barrier(2, timeout=60), []

    def one(key, stopped):
        both.wait()
        assert jax.config.jax_default_device == first
        assert jax.config.jax_default_matmul_precision == "highest"
        done.append(key)

    keys = [(loss, seed) for seed in range(3) for loss in ("mse", "l1")]
    loss_fits.fit_all(keys, one)
    assert sorted(done) == sorted(keys) and {*done[:2]} == {*keys[:2]}
    loss_fits.fit_all([], one)

    def raising(key, stopped):
        if key in keys[:2]:
            both.wait()
        if key == keys[0]:
            raise InputError("full")
        assert stopped.wait(60)
        done.append(key)

    done.clear()
    with pytest.raises(InputError, match="full"):
        loss_fits.fit_all(keys, raising)
    assert keys[1] in done and {*done} <= {*keys[1:3]}  # the third may have begun meanwhile


@pytest.mark.parametrize("after", [4, 0])  # iterations; 0: in the first window, without history
def test_an_overflow_has_no_figures(made_up, monkeypatch, tmp_path, capsys, after):
    real = loss_fits.dip.fit

    def overflowed(key, *args, **kwargs):
        result = real(key, *args, **kwargs)
        if jax.random.key_data(key)[-1] == 1:
            history = {name: values[:after] for name, values in result.history.items()}
            return types.SimpleNamespace(
                **{
                    **vars(result),
                    "history": history,
                    "iterations": after,
                    "finite": False,
                    "over": False,
                }
            )
        return result

    monkeypatch.setattr(loss_fits.dip, "fit", overflowed)
    args = command(tmp_path, "--losses", "l1", "--seeds", 0, 1, 2, "--iterations", 9)
    assert main(losses, args) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "overflowed" in line]
    assert said == [f"l1, seed 1: overflowed after iteration {after}"]
    found = json.loads((tmp_path / "losses.json").read_text())
    assert found["cells"][1]["psnr_9"] is None and found["cells"][1]["psnr_output"] is None
    assert found["cells"][2]["psnr_9"] == 28
    first = int(np.ceil(found["level"])) - 20 + 1
    assert [row["iterations_to_level"] for row in found["cells"]] == [first, None, first]
    missing = {"mean": None, "spread": None, "seeds": 2, "of": 3}
    figures = found["summary"]["l1"]
    assert figures["psnr_9"] == figures["iterations_to_level"] == missing
    table = losses.table(found["summary"], found["speeds"])
    assert table.splitlines()[1].count("in 2 of 3") == 3


def naive_stays_at(psnr, level):
    for start in range(len(psnr)):
        if all(value >= level for value in psnr[start:]):
            return start + 1
    return None


def test_the_iteration_from_which_psnr_stays():
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(200):
        psnr = np.round(np.cumsum(rng.normal(0.2, 1, rng.integers(1, 12))), 1)
        found.add(psnr_curves.stays_at(psnr, 0.5))
        assert psnr_curves.stays_at(psnr, 0.5) == naive_stays_at(psnr, 0.5)
    assert {None, 1, 2, 5} <= found
    assert psnr_curves.stays_at(np.array([1.0, 2.0, 2.0]), 2.0) == 2  # on the level is not below it
    assert psnr_curves.stays_at(np.array([3.0, 3.0, np.nan]), 2.0) is None


def test_figures_are_taken_where_asked():
    psnr = np.linspace(20, 30, 2500)
    found = psnr_curves.figures_of(psnr, psnr - 1, 25.0)
    assert list(found)[:5] == [f"psnr_{n}" for n in (250, 500, 1000, 2000, 2500)]
    assert found["psnr_250"] == psnr[249] and found["psnr_2500"] == 30
    assert found["psnr_output"] == 29 and found["iterations_to_level"] == 1251
    short = psnr_curves.figures_of(psnr[:500], psnr[:500], 25.0)
    assert list(short)[:3] == ["psnr_250", "psnr_500", "psnr_output"]


def test_means_and_spreads():
    values = list(np.random.default_rng(1).normal(27, 0.3, 5))
    found = psnr_curves.over_seeds(values)
    assert found["mean"] == pytest.approx(np.mean(values), rel=1e-14)
    assert found["spread"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert psnr_curves.over_seeds([3]) == {"mean": 3, "spread": None, "seeds": 1, "of": 1}
    assert psnr_curves.over_seeds([3, None]) == {"mean": None, "spread": None, "seeds": 1, "of": 2}


def test_the_table_is_aligned():
    summary = {
        "mse": {
            "psnr_250": psnr_curves.over_seeds([27.0, 28.0]),
            "iterations_to_level": psnr_curves.over_seeds([None]),
        },
        "general-0.5": {
            "psnr_250": psnr_curves.over_seeds([27.5]),
            "iterations_to_level": psnr_curves.over_seeds([9, 10]),
        },
    }
    speeds = {"mse": {"iterations_per_second": 8.125, "spread": 0.0}}
    speeds["general-0.5"] = {"iterations_per_second": 11, "spread": 0.25}
    assert losses.table(summary, speeds).splitlines() == [
        "   dB after            250  to +1 dB   iterations/s",
        "        mse  27.50 +- 0.71         -   8.12 +- 0.00",
        "general-0.5          27.50   10 +- 1  11.00 +- 0.25",
    ]


def barron(d, alpha):
    x, b = (d / 0.05) ** 2, abs(alpha - 2)
    return np.log(x / 2 + 1) if alpha == 0 else b / alpha * ((x / b + 1) ** (alpha / 2) - 1)


def test_losses_by_name():
    names = ["mse", "l1", "charbonnier", "huber", "general-0", "general-0.5", "general-1.5"]
    assert list(losses.LOSSES) == names
    d = np.linspace(-1, 1, 41)
    for name in names[4:]:
        found = losses.LOSSES[name](d, np.zeros(41))
        np.testing.assert_allclose(found, barron(d, float(name[8:])), rtol=1e-4, atol=1e-6)


def test_the_middle_of_the_image(tmp_path):
    photograph = problem.photograph()
    np.testing.assert_array_equal(losses.ground_truth(None, "128x128"), photograph)
    np.testing.assert_array_equal(losses.ground_truth(None, "96x64"), photograph[16:112, 32:96])
    coffee = images.from_uint8(skimage.data.coffee())
    np.testing.assert_array_equal(losses.ground_truth(None, "320x480"), coffee[40:360, 60:540])
    pixels = np.random.default_rng(0).integers(0, 255, (67, 100), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "gray.png")
    found = losses.ground_truth(tmp_path / "gray.png", "64x96")
    np.testing.assert_array_equal(found[..., 0], images.from_uint8(pixels[1:65, 2:98]))
    with pytest.raises(InputError, match=r"`size` \(=96x64\) must fit into the image, of 67x100"):
        losses.ground_truth(tmp_path / "gray.png", "96x64")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--size", "100x100"), "each a multiple of 32, at least 64"),
        (("--size", "32x64"), "(=32x64)"),
        (("--size", "640x640"), "`--size` (=640x640) must fit into the image, of 400x600"),
        (("--losses", "mse", "l3"), "('mse', 'l3')) must be among mse, l1, charbonnier, huber"),
        (("--losses", "mse", "mse"), "`--losses` (=('mse', 'mse'))"),
        (("--losses",), "`--losses` (=()) must be among"),
        (("--seeds", "1", "1"), "`--seeds` (=(1, 1)) must be in [0, 2^32), each once"),
        (("--seeds", "-1"), "`--seeds` (=(-1,))"),
        (("--seeds", str(2**32)), "`--seeds` (=(4294967296,))"),
        (("--seeds",), "`--seeds` (=())"),
        (("--iterations", "0"), "`--iterations` (=0) must be at least 1"),
        (("--hr", "missing.png"), "`missing.png` does not exist"),
        (("--hr", "text.png"), "`text.png` is not an image"),
        (("--out", "text.png"), "`--out` (=text.png) cannot be used: "),
    ],
)
def test_bad_input_is_one_line(made_up, monkeypatch, tmp_path, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    assert main(losses, command("out", *more)) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1
    assert captured.out == "" and made_up == []
