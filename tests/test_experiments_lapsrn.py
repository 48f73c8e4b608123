import csv
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import types

import jax
import numpy as np
import PIL.Image
import pytest

from experiments import command, epochs, lapsrn, networks, record, training_data
from experiments.training_folder import TrainingFolder
from jaxsr import chunks, losses, pretrained, reports, training
from jaxsr.checkpoints import Checkpoints
from jaxsr.errors import InputError
from jaxsr.models import LapSRN

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Four filters a layer; two folders of noise."""
    monkeypatch.setattr(networks, "LapSRN", lambda **kw: LapSRN(features=4, **kw))
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    draw(tmp_path)


def draw(folder):
    rng = np.random.default_rng(0)
    for name, count in (("train", 3), ("test", 2)):
        (folder / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (24 + i, 30, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{i}.png")


SMALL = ["--data", "train", "--scale", "2", "--depth", "1", "--patch", "16", "--batch", "2"]
SMALL += ["--iterations", "2", "--epochs", "3"]


def run(*args):
    return command.main(lapsrn.Settings, lapsrn.run, [*SMALL, *map(str, args)])


def arrays(folder):
    return jax.tree.leaves(pretrained.load(folder)[1])


def test_settings_reach_the_training(monkeypatch):
    class Asked(Exception):
        """In the place of a training, with its arguments."""

    def lower(state, *_, **options):
        raise Asked(state, options)

    monkeypatch.setattr(training, "run", types.SimpleNamespace(lower=lower))
    args = ("--loss", "mse", "--seed", 7, "--level-weights", 3, "--learning-rate", 0.25)
    with pytest.raises(Asked) as asked:
        run("--out", "a", *args, "--weight-decay", 0.5)
    state, options = asked.value.args
    assert options["loss"] is losses.mse
    steps = {"batch": 2, "parts": 2, "size": 16, "learning_rate": 0.25, "halve_every": 20}
    assert options["config"] == training.Config(level_weights=(3,), weight_decay=0.5, **steps)
    assert state.key == jax.random.split(jax.random.key(7))[1]


def test_a_record_that_cannot_be_written_leaves_the_folder_free(monkeypatch, tmp_path):
    settings, digests = lapsrn.Settings(out=tmp_path / "a"), {"test_sha256": None}

    def full(*_):
        raise InputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(record.reports, "write_json", full)
        with pytest.raises(InputError, match="the disk is full"):
            TrainingFolder(settings, digests)
    with TrainingFolder(settings, digests) as folder:
        assert not folder.finished()


def test_a_training_leaves_a_network_and_its_history(tmp_path, capsys):
    assert run("--test", "test", "--out", "a") == 0
    model, _ = pretrained.load("a")
    assert model == LapSRN(factor=2, depth=1, features=4)
    with open("a/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {row["learning_rate"] for row in rows} == {"0.001"}
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["psnr"] == float(rows[-1]["psnr"])
    best = max(rows, key=lambda row: float(row["psnr"]))
    assert metrics["oracle_best"] == {"epoch": int(best["epoch"]), "psnr": float(best["psnr"])}
    kept = {p.name for p in (tmp_path / "a" / "checkpoints").iterdir()}
    assert kept == {"2", "3", best["epoch"]}
    with PIL.Image.open("a/curve.png") as curve:
        assert curve.size == (960, 540)
    assert f"3 epochs, loss {metrics['loss']:.5f}, files in a" in capsys.readouterr().out
    assert run("--test", "test", "--out", "a") == 0
    assert "a is finished" in capsys.readouterr().out
    # The PSNR is that of the network in the folder.
    stacks = lapsrn.training_data.stacks(
        lapsrn.training_data.load("test", None, None, patch=1, factor=2)[0], 2
    )
    found = training.mean_psnr(pretrained.load("a")[1], stacks, model=model)
    assert found == pytest.approx(metrics["psnr"], abs=1e-4)


def test_a_killed_training_goes_on_to_the_same_bits(monkeypatch):
    """Killed before each of the writes that end an epoch."""
    assert run("--out", "whole") == 0

    class Killed(BaseException):
        pass

    # Of the saved checkpoints every other is the network's own.
    for place, name, last in (
        (pretrained, "save", 2),
        (reports, "write_csv", 2),
        (Checkpoints, "save", 3),
        (Checkpoints, "save", 4),
    ):
        out, write, calls = f"{place.__name__}{last}", getattr(place, name), []

        def dying(*args, last=last, write=write, calls=calls, **options):
            calls.append(args)
            if len(calls) == last:
                raise Killed
            return write(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(place, name, dying)
            with pytest.raises(Killed):
                run("--out", out)
        assert run("--out", out, "--epochs", 2) == 2  # it may not shrink
        assert run("--out", out) == 0
        for a, b in zip(arrays("whole"), arrays(out), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("call", "kept"), [(4, 1), (5, 2)])
def test_ctrl_c_within_an_epoch_loses_it_and_at_its_end_does_not(call, kept, monkeypatch, capsys):
    """Of epochs of three steps, one a call; it is seen after the next one."""
    calls = itertools.count(1)

    def interrupting(*_):
        if next(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return 1

    monkeypatch.setattr(chunks, "following", interrupting)
    assert run("--out", "a", "--iterations", 3) == command.INTERRUPTED
    are = "epoch is" if kept == 1 else "epochs are"
    assert f"stopped, {kept} {are} kept in a" in capsys.readouterr().out


def test_ctrl_c_loses_one_epoch_at_most(monkeypatch, capsys):
    keep = TrainingFolder.keep

    def interrupting(self, epoch, *args):
        keep(self, epoch, *args)
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFolder, "keep", interrupting)
        assert run("--out", "a") == command.INTERRUPTED
    assert "stopped, 1 epoch is kept in a" in capsys.readouterr().out
    assert run("--out", "a") == 0
    assert "resuming a after epoch 1" in capsys.readouterr().out
    assert run("--out", "whole") == 0
    for a, b in zip(arrays("whole"), arrays("a"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {"metrics.json", "curve.png"} <= {*os.listdir("a")}
    # One that grows and is stopped has no records of its shorter self beside longer weights.
    with monkeypatch.context() as patch:
        patch.setattr(
            TrainingFolder, "keep", lambda *args: (keep(*args), signal.raise_signal(signal.SIGINT))
        )
        assert run("--out", "a", "--epochs", 5) == command.INTERRUPTED
    assert not {"metrics.json", "curve.png"} & {*os.listdir("a")}


def test_goes_on_elsewhere_and_under_an_earlier_versions_record(tmp_path, capsys):
    assert run("--out", "a") == 0
    config = json.loads((tmp_path / "a/config.json").read_text())
    del config["network"]  # as early ones
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    assert run("--out", "a", "--device", "cpu") == 0
    assert "a is finished" in capsys.readouterr().out


# By its clock a process that is alone takes single steps; one of several must not look at it.
PROCESS = """
import sys
import jax
from experiments import command, epochs, lapsrn, networks, training_data
from jaxsr import chunks
from jaxsr.models import LapSRN
chunks.following = lambda *_: {1: 1}[jax.process_count()]
networks.LapSRN = lambda **kw: LapSRN(features=4, **kw)
sys.exit(command.main(lapsrn.Settings, lapsrn.run, sys.argv[1:]))
"""


def test_two_processes_train_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    root = os.path.dirname(os.path.dirname(lapsrn.__file__))
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": root,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    # Adam makes rounding visible where a gradient is next to 0; under this seed none is.
    common = [*SMALL, "--test", "test", "--devices", "all", "--parts", "1", "--seed", "2"]

    def start(out, *args):
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, *common, "--out", out, *args],
            env=environment | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled" / out)},
            stderr=subprocess.PIPE,
            text=True,
        )

    shared = ("--coordinator", address, "--processes", "2")
    both = [start("two", *shared, "--process", str(i)) for i in range(2)]
    for process in [*both, start("one")]:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    for a, b in zip(arrays("one"), arrays("two"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    one, two = (json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("one", "two"))
    assert one["psnr"] == pytest.approx(two["psnr"], abs=1e-3)
    assert list(tmp_path.glob("compiled/one/**/*-cache"))
    assert not list(tmp_path.glob("compiled/two/**/*-cache"))  # which the first alone would find


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--level-weights", 1, 1), "`--level-weights` (=(1.0, 1.0)) must be 1 numbers, one a"),
        (("--patch", 32), "0.png` (of 30x24) must have at least 32 a side"),
        (("--test", "small"), "`small/a.png` (of 5x9) must have at least 6 a side"),
        (("--patch", 15), "`--patch` (=15) must be a multiple of the scale 2, above 0"),
        (("--patch", 0), "`--patch` (=0) must be a multiple of the scale 2, above 0"),
        (("--halve-every", 2**30), "`--halve-every` (=1073741824) times `--iterations` (="),
        (("--epochs", 2**31), "`--epochs` (=2147483648) times `--iterations` (="),
        (("--data", "nowhere"), "`nowhere` must be a folder of images: no such file"),
        (("--data", "empty"), "`empty` holds no image file"),
        (("--epochs", 0), "`--epochs` (=0) must be at least 1"),
        (("--parts", 3), "`--parts` (=3) must divide the batch (=2)"),
        (("--manual-dir", "x"), "`--manual-dir` (=x) goes with `--data bsds300` alone"),
        (("--processes", 2), "`--processes` and `--process` go with `--coordinator`"),
        (
            ("--coordinator", "a:1", "--processes", 2),
            "`--coordinator` (=a:1) needs `--processes` and `--process`",
        ),
        (
            ("--coordinator", "host", "--processes", 2, "--process", 0),
            "`--coordinator` (=host) must be HOST:PORT, or auto",
        ),
        (("--parts", 0), "`--parts` (=0) must be at least 1"),
        (("--out", "train"), "`--out` (=train) must be new, empty, or of an earlier run"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, args, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    PIL.Image.new("RGB", (5, 9)).save(tmp_path / "small" / "a.png")
    assert run(*args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and said in captured.err
    assert captured.err.count("\n") == 1


def test_a_mistake_does_not_claim_the_folder(capsys):
    assert run("--out", "a", "--patch", 15) == 2
    assert run("--out", "a", "--epochs", 1) == 0
    capsys.readouterr()
    assert run("--out", "a", "--test", "test") == 2
    assert "the test images (=" in capsys.readouterr().err


def test_weights_that_diverge_are_not_kept(capsys):
    assert run("--out", "a", "--learning-rate", 1e30, "--epochs", 2) == 1
    assert "became NaN or infinite in epoch 1; 0 epochs are kept" in capsys.readouterr().out


@pytest.fixture
def timed(monkeypatch):
    """`timed(...)`: the rows of a training's history, by a clock that goes on by 1, 2, 3, ..."""

    def history(out, *args):
        ticks = itertools.accumulate(itertools.count(1))
        monkeypatch.setattr(epochs, "time", types.SimpleNamespace(perf_counter=ticks.__next__))
        monkeypatch.setattr(chunks, "following", lambda *_: 1)
        assert run("--out", out, *args) == 0
        with open(f"{out}/history.csv", newline="") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

    return history


def test_the_rate_is_halved_by_epochs_and_images_counted_a_second(timed, tmp_path):
    rows = timed("a", "--halve-every", 1)
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    # Looks at the clock: 1, 3 around compiling; of the three epochs, each of 4 images in two calls,
    # six, around it and around each call: 6 to 36, 45 to 105, 120 to 210.
    assert [row["images_per_second"] for row in rows] == pytest.approx([4 / 30, 4 / 60, 4 / 90])
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["images_per_second"] == pytest.approx(4 / 60) and metrics["compile_seconds"] == 2


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(timed):
    steps = timed("steps", "--iterations", 1, "--epochs", 3)
    (epoch,) = timed("epoch", "--iterations", 3, "--epochs", 1)
    assert epoch["loss"] == pytest.approx(np.mean([row["loss"] for row in steps]), rel=1e-6)


def test_test_images_are_cut_at_the_bottom_and_right():
    codes = np.random.default_rng(0).integers(0, 256, (26, 31, 1), np.uint8)
    (stack,) = training_data.stacks([codes], 4)
    expected = (16 + codes[:24, :28] * (219 / 255)) / 255
    np.testing.assert_allclose(stack, expected[None], atol=1e-6)


def test_a_psnr_that_is_no_number_is_told(tmp_path, capsys):
    args = ("--out", "a", "--epochs", 1, "--test", "test")
    assert run(*args) == 0
    path = tmp_path / "a" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"psnr": "nan"}))
    capsys.readouterr()
    assert run(*args) == 0
    assert "a is finished: PSNR nan dB (" in capsys.readouterr().out
