"""`python -m experiments.dip` in-process, with a small network so that it compiles in seconds."""

import errno
import functools
import json
import os
import shutil
import signal

import jax
import numpy as np
import PIL.Image
import pytest

from experiments import command, dip, folder, networks, record
from jaxsr import images, protocols
from jaxsr.checkpoints import Checkpoints

OUTPUT = (
    *("sr.png", "sr_last.png", "lr.png", "bicubic.png", "hr.png", "comparison.png", "psnr.png"),
    *("history.csv", "config.json", "metrics.json"),
)


pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    network = functools.partial(networks.prior, down=(8,), up=(8,), skip=(2,))
    monkeypatch.setattr(networks, "prior", network)
    monkeypatch.setattr(folder, "APART", 0.0)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)


def run(*args):
    return command.main(dip.Settings, dip.run, [str(arg) for arg in args])


def picture(path, shape=(64, 64, 3), dtype=np.uint8):
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    rows, cols, *_ = np.indices(shape)
    ramp = 0.2 + 0.6 * rows / shape[0] * cols / shape[1]
    pixels = (top * np.clip(ramp + 0.05 * rng.random(shape), 0, 1)).astype(dtype)
    PIL.Image.fromarray(pixels).save(path)
    return path


def test_patience_ends_a_fit_with_the_image_of_least_variance(tmp_path, capsys):
    hr = picture(tmp_path / "ramp.png")
    common = ("--hr", hr, "--learning-rate", 0.05)
    assert run(*common, "--iterations", 400, "--patience", 4, "--out", "out") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    at = metrics["stopped_at"]
    assert metrics["iterations"] == at + 4 < 400 == metrics["iterations_asked"]
    assert run(*common, "--iterations", at, "--out", "plain") == 0
    plain = json.loads((tmp_path / "plain" / "metrics.json").read_text())
    best, same = (np.load(tmp_path / name / "sr.npy") for name in ("out", "plain"))
    np.testing.assert_allclose(best, same, atol=1e-3)  # two programs' rounding
    assert metrics["psnr"] == pytest.approx(plain["psnr"], abs=1e-3)
    rows = (tmp_path / "out" / "history.csv").read_text().splitlines()
    psnr = [float(row.split(",")[3]) for row in rows[1:]]
    assert metrics["psnr_at_the_stop"] == pytest.approx(psnr[at - 1], abs=1e-4)
    assert metrics["psnr_at_the_end"] == pytest.approx(psnr[-1], abs=1e-4)
    assert metrics["psnr_at_the_peak_oracle"] == pytest.approx(max(psnr), abs=1e-4)
    assert "stopped_at" not in plain and plain["rollbacks"] == 0
    capsys.readouterr()
    assert run(*common, "--iterations", 400, "--patience", 4, "--out", "out") == 0
    assert "is finished" in capsys.readouterr().out


def test_a_ground_truth(tmp_path, capsys):
    hr = picture(tmp_path / "ramp.png", (66, 65, 3))
    assert run("--hr", hr, "--iterations", 12, "--out", "out", "--checkpoint-every", 5) == 0
    out = tmp_path / "out"
    assert all((out / name).stat().st_size for name in OUTPUT)
    assert [p.name for p in (out / "snapshots").iterdir()] == ["000010.png"]

    metrics = json.loads((out / "metrics.json").read_text())
    truth, low = images.read(out / "hr.png").pixels, images.read(out / "lr.png").pixels
    assert truth.shape == (64, 64, 3) and low.shape == (16, 16, 3)
    result = images.read(out / "sr.png").pixels
    expected = protocols.PROTOCOLS["plain"].score(result, truth, 4)
    for name in ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-9)
        assert np.isfinite(metrics["bicubic"][name])
    assert metrics["iterations"] == 12 and metrics["seed"] == 0
    assert metrics["precision"] == "float32" and metrics["versions"]["jax"] == jax.__version__
    assert metrics["iterations_per_second"] == pytest.approx(12 / metrics["seconds"])
    assert metrics["compile_seconds"] > 0

    header, *rows = (out / "history.csv").read_text().splitlines()
    columns = "iteration,loss,psnr_fit,psnr,psnr_y,psnr_output,psnr_y_output"
    assert header == columns and len(rows) == 12
    last = dict(zip(header.split(","), map(float, rows[-1].split(",")), strict=True))
    assert last["psnr"] == pytest.approx(metrics["psnr_rgb"], abs=0.02)  # before rounding to 8 bits
    printed = capsys.readouterr().out
    assert "cropped from 65x66 to 64x64" in printed
    gain = metrics["psnr"] - metrics["bicubic"]["psnr"]
    assert f"{gain:+.2f} over bicubic" in printed and "files in out" in printed

    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    assert run("--hr", hr, "--iterations", 12, "--out", "out", "--checkpoint-every", 5) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}


@pytest.mark.parametrize("damage", [{"iterations": None}, {"psnr": "high"}])
def test_damaged_metrics_are_one_line(tmp_path, capsys, damage):
    args = ("--hr", picture(tmp_path / "ramp.png"), "--iterations", 2, "--out", "out")
    assert run(*args) == 0
    path = tmp_path / "out" / "metrics.json"
    record = json.loads(path.read_text()) | damage
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    capsys.readouterr()
    assert run(*args) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `out/metrics.json` is damaged (") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [((17, 23, 3), np.uint8, "RGB"), ((16, 20), np.uint16, "L"), ((18, 16, 4), np.uint8, "RGBA")],
)
def test_a_low_resolution(tmp_path, shape, dtype, mode):
    lr = picture(tmp_path / "small.png", shape, dtype)
    assert run("--lr", lr, "--factor", 3, "--iterations", 3, "--out", "out") == 0
    with PIL.Image.open("out/sr.png") as result:
        assert result.size == (3 * shape[1], 3 * shape[0]) and result.mode == mode
    assert not os.path.exists("out/hr.png")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["iterations"] == 3 and "psnr" not in metrics
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["kernel"] == "matlab-bicubic" and config["noise_std"] == 0.03


def test_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    """Three deaths, and iterations that grew in between, against an untouched run."""
    hr = picture(tmp_path / "ramp.png")
    common = ("--hr", hr, "--checkpoint-every", 4, "--iterations")
    assert run(*common, 20, "--out", "whole") == 0
    assert run(*common, 9, "--out", "broken") == 0

    class Killed(BaseException):
        pass

    keep = folder.RunFolder.keep
    for death in (10, 13, 19):

        def dying(self, progress, *args, death=death):
            if int(progress.state.step) >= death:
                raise Killed
            keep(self, progress, *args)

        monkeypatch.setattr(folder.RunFolder, "keep", dying)
        with pytest.raises(Killed):
            run(*common, 20, "--out", "broken")
    chunks = []

    def counting(self, progress, *args):
        chunks.append(progress.seconds)
        keep(self, progress, *args)

    monkeypatch.setattr(folder.RunFolder, "keep", counting)
    spent = json.loads((tmp_path / "broken" / "spent.json").read_text())
    before = [spent[step]["seconds"] for step in ("9", "16")]
    spent["16"]["rollbacks"] = 2
    (tmp_path / "broken" / "spent.json").write_text(json.dumps(spent))
    assert run(*common, 20, "--out", "broken") == 0
    metrics = json.loads((tmp_path / "broken" / "metrics.json").read_text())
    assert (
        metrics["seconds"] == pytest.approx(before[1] + sum(chunks)) and before[1] > before[0] > 0
    )
    assert metrics["rollbacks"] == 2 and spent["9"]["rollbacks"] == 0
    for name in ("sr.png", "sr_last.png", "history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_checkpoints_lie_apart(tmp_path, monkeypatch):
    """By a clock of a second an iteration: after 8 and 16 they would be too close."""
    monkeypatch.setattr(folder, "APART", 6.0)
    keep = folder.RunFolder.keep
    kept = []

    def timed(self, progress, *rest):
        keep(self, progress._replace(seconds=float(progress.iterations)), *rest)
        kept.append(self._checkpoints.latest_step())

    monkeypatch.setattr(folder.RunFolder, "keep", timed)
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--checkpoint-every", 4, "--iterations")
    assert run(*args, 18, "--out", "out") == 0
    assert [*dict.fromkeys(kept)] == [None, 8, 16]
    assert sorted(x.name for x in (tmp_path / "out/checkpoints").iterdir()) == ["16", "18"]


def ctrl_c_at(step):
    """A bar's `show` that also presses Ctrl-C there."""
    show = folder.Bar.show

    def press(self, progress):
        if int(progress.state.step) == step:
            os.kill(os.getpid(), signal.SIGINT)
        show(self, progress)

    return press


def test_a_grown_fit_that_is_stopped_keeps_no_records_of_the_shorter(tmp_path, monkeypatch):
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--out", "out", "--checkpoint-every", 2, "--iterations")
    assert run(*args, 2) == 0
    records = [tmp_path / "out" / name for name in folder.RECORDS]
    assert all(path.exists() for path in records)
    before = (tmp_path / "out/sr.npy").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(folder.Bar, "show", ctrl_c_at(4))
        assert run(*args, 8) == command.INTERRUPTED
    assert (tmp_path / "out/sr.npy").read_bytes() != before
    assert not any(path.exists() for path in records)
    assert run(*args, 8) == 0
    assert all(path.exists() for path in records)


def test_ctrl_c_keeps_everything(tmp_path, monkeypatch, capfd):
    hr = picture(tmp_path / "ramp.png")
    with monkeypatch.context() as patch:
        patch.setattr(folder.Bar, "show", ctrl_c_at(4))
        args = ("--hr", hr, "--iterations", 8, "--out", "out", "--checkpoint-every", 2)
        assert run(*args) == command.INTERRUPTED
    printed, told = capfd.readouterr()
    assert command.ACKNOWLEDGED.decode() in told
    assert "stopped at iteration 4 of 8" in printed and "same command goes on" in printed
    assert (tmp_path / "out/sr.png").exists() and not (tmp_path / "out/metrics.json").exists()
    assert run(*args) == 0
    assert "resuming out from iteration 4" in capfd.readouterr().out


def test_divergence_says_what_to_try(tmp_path, capsys):
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--iterations", 6, "--learning-rate", 1e38, "--out", "out")
    assert run(*args) == 1
    printed = capsys.readouterr().out
    assert "infinite: try a lower --learning-rate (=1e+38)" in printed
    assert not (tmp_path / "out/metrics.json").exists()


def test_an_observation_is_no_ground_truth(tmp_path, capsys):
    """Of the same file, by the same settings: another problem."""
    path = picture(tmp_path / "ramp.png")
    args = ("--factor", 2, "--kernel", "area", "--iterations", 2, "--out", "out")
    assert run("--hr", path, *args) == 0
    assert run("--lr", path, *args) == 2
    assert "`--lr` (=" in (error := capsys.readouterr().err) and "differs from the run" in error


def test_a_patience_of_0_is_none_without_noise(tmp_path):
    """As a run of an earlier version recorded it."""
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--iterations", 2, "--out", "out", "--patience", 0)
    assert run(*args) == 0
    path = tmp_path / "out/config.json"
    config = json.loads(path.read_text())
    assert config["patience"] is None
    path.write_text(json.dumps(config | {"patience": 0}))
    assert run(*args) == 0 and run(*args[:-2]) == 0
    assert run(*args[:-1], 5) == 2


def test_a_degradation_of_its_own_needs_a_truth(tmp_path, capsys):
    lr = picture(tmp_path / "ramp.png")
    assert run("--lr", lr, "--degrade-seed", 3, "--out", "out") == 2
    assert "`--degrade-seed` (=3) goes with `--hr` alone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_transparency_is_another_image(tmp_path, capsys):
    args = ("--lr", "clear.png", "--factor", 2, "--iterations", 2, "--out", "out")
    for rows in (8, 9):
        pixels = np.full((32, 32, 4), 200, np.uint8)
        pixels[:rows, :, 3] = 0
        PIL.Image.fromarray(pixels).save("clear.png")
        assert run(*args) == (0 if rows == 8 else 2)
    assert "the image, its mask or its blur kernel (=" in capsys.readouterr().err


def test_the_least_robust_loss_is_taken_up_again(tmp_path, capsys):
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--loss", "general", "--loss-alpha", "-inf", "--iterations", 2)
    assert [run(*args, "--out", "out") for _ in range(2)] == [0, 0]
    assert "is finished" in capsys.readouterr().out


def test_a_name_that_is_no_text(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    picture(tmp_path / name)
    assert run("--hr", name, "--iterations", 2, "--out", "out") == 0
    assert r"caf\udce9" in (tmp_path / "out/config.json").read_text()


@pytest.mark.parametrize(
    ("name", "rule"), [(os.fsdecode(b"caf\xe9.png"), "must be UTF-8"), (r"a\b.png", "no backslash")]
)
def test_a_name_that_checkpoints_cannot_bear(tmp_path, capsys, name, rule):
    """Of the folder that the image's name gives: refused before anything is computed."""
    picture(tmp_path / name)
    assert run("--hr", name, "--iterations", 2) == 2
    said = capsys.readouterr().err
    assert rule in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("config.json"))


def test_a_command_that_finds_another_at_work_leaves_its_record(tmp_path, capsys):
    """Its own asks for more iterations: the other could not be resumed by its own command."""
    hr, out = picture(tmp_path / "ramp.png"), tmp_path / "out"
    assert run("--hr", hr, "--iterations", 2, "--out", "out") == 0
    before = (out / "config.json").read_bytes()
    with Checkpoints(out / "checkpoints"):
        assert run("--hr", hr, "--iterations", 3, "--remat", "--out", "out") == 2
    assert "is in use by another process" in capsys.readouterr().err
    assert (out / "config.json").read_bytes() == before


def test_a_strip(tmp_path):
    """Of 17 times its shortest side at the scale of the comparison's panels."""
    observed = tmp_path / "strip.png"
    images.write(observed, np.full((16, 13_000, 1), 0.5, np.float32))
    args = ("--task", "denoise", "--observed", observed, "--iterations", 1, "--out", "out")
    assert run(*args) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["stopped_at"] == 1


def test_reference_recipe_and_general_loss(tmp_path):
    hr = picture(tmp_path / "ramp.png")
    args = ("--loss", "general", "--loss-alpha", 0.5, "--recipe", "reference", "--out", "out")
    assert run("--hr", hr, "--iterations", 2, "--protocol", "dip", *args) == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["kernel"], config["average"]) == ("lanczos2", 0.0)
    assert (config["loss_alpha"], config["loss_scale"]) == (0.5, 0.05)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--hr", "missing.png"), "`missing.png` does not exist"),
        (("--hr", "empty.png"), "`empty.png` is empty"),
        (("--hr", "truncated.png"), "`truncated.png` is damaged or cut off"),
        (("--lr", "text.png"), "`text.png` is not an image in a known format"),
        (("--lr", "one.png"), "at least 16"),
        (("--hr", "bomb.png"), "`bomb.png` is too large: an image has at most 1000"),
        (("--hr", "ramp.png", "--lr", "ramp.png"), "exclude each other"),
        (("--hr", "ramp.png", "--factor", "0"), "`--factor` (=0) must be an integer of at least 2"),
        (("--hr", "ramp.png", "--factor", "1"), "`--factor` (=1)"),
        (("--hr", "ramp.png", "--factor", "65"), "must have sides of at least 65"),
        (("--hr", "ramp.png", "--iterations", "-5"), "`--iterations` (=-5) must be at least 1"),
        (("--hr", "ramp.png", "--noise-std", "-1"), "`--noise-std` (=-1.0)"),
        (("--hr", "ramp.png", "--loss-alpha", "1"), "`--loss-alpha` (=1.0)"),
        (("--loss", "general", "--loss-scale", "-1", "--seeds", "2"), "`--loss-scale` (=-1.0)"),
        (("--loss", "general", "--loss-alpha", "nan"), "`--loss-alpha` (=nan)"),
        (("--lr", "ramp.png", "--factor", "1000000000"), "the image is too large for this machine"),
        (("--hr", "ramp.png", "--checkpoint-every", "0"), "`--checkpoint-every` (=0)"),
        (("--hr", "ramp.png", "--seed", "-1"), "`--seed` (=-1)"),
        (("--hr", "ramp.png", "--device", "tpu"), "`--device` (=tpu)"),
        (("--hr", "ramp.png", "--out", "text.png/out"), "`--out` (=text.png/out) cannot be used"),
        (("--hr", "ramp.png", "--out", "theirs"), "must be new, empty"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, args, said):
    good = picture(tmp_path / "ramp.png").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "truncated.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.png").write_text("no image")
    picture(tmp_path / "one.png", (1, 1, 3))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "lr.png").write_text("precious")
    if "bomb.png" in args:
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
        (tmp_path / "bomb.png").write_bytes(good)
    assert run(*args) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert (tmp_path / "theirs" / "lr.png").read_text() == "precious"
    assert len(list((tmp_path / "theirs").iterdir())) == 1


def test_a_kill_before_the_first_images_is_no_obstacle(tmp_path, monkeypatch):
    """Whatever the moment of death, the same command goes on in the folder it left."""
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--iterations", 2, "--out", "out")

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    for module, name in ((record.reports, "write_json"), (folder.images, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, die)
            with pytest.raises(Killed):
                run(*args)
        (tmp_path / "out" / ".half.tmp.json").write_text("{")
    assert run(*args) == 0


@pytest.mark.parametrize("args", [("--loss", "l3"), ("--factor", "2.5"), ("--kernel", "magic")])
def test_the_parser_refuses(capsys, args):
    assert run(*args) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert args[0] in said and args[1] in said


def test_a_folder_is_of_one_setting(tmp_path, capsys, monkeypatch):
    hr = picture(tmp_path / "ramp.png")
    common = ("--hr", hr, "--out", "out", "--iterations", 4)
    assert run(*common) == 0
    before = (tmp_path / "out/sr.png").read_bytes()
    for args, said in (
        (("--seed", 1), "`--seed` (=1)"),
        (("--loss", "mse"), "`--loss` (=mse)"),
        (("--iterations", 3), "`--iterations` (=3)"),
        (("--hr", picture(tmp_path / "other.png", (80, 80, 3))), "the image"),
    ):
        assert run(*common, *args) == 2
        assert said in capsys.readouterr().err
    assert run(*common, "--remat") == 0  # finished
    assert (tmp_path / "out/sr.png").read_bytes() == before
    assert run("--hr", hr, "--out", "anew", "--iterations", 4, "--remat") == 0
    whole, anew = (np.load(tmp_path / x / "sr.npy") for x in ("out", "anew"))
    np.testing.assert_allclose(anew, whole, atol=5e-3)  # rounding, through four steps of Adam

    shutil.copytree(tmp_path / "out", tmp_path / "damaged")
    for path in (tmp_path / "damaged/checkpoints/4").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    assert run(*common, "--out", "damaged", "--iterations", 6) == 2
    assert "delete that folder" in capsys.readouterr().err
    assert (tmp_path / "damaged/sr.png").read_bytes() == before

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run(*common, "--iterations", 6) == 2
    assert "No space left" in capsys.readouterr().err
    assert (tmp_path / "out/sr.png").read_bytes() == before


def test_goes_on_in_the_folder_of_an_earlier_version(tmp_path, capsys):
    """Whose record lacks the settings that came later: those stood at their defaults."""
    hr = picture(tmp_path / "ramp.png")
    args = ("--hr", hr, "--iterations", 2, "--out", "out")
    assert run(*args) == 0
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    for name in ("task", "sigma", "missing", "mask", "blur", "blur_kernel", "degrade_seed"):
        del config[name]
    path.write_text(json.dumps(config))
    assert run(*args, "--sigma", 5) == 2
    assert "`--sigma` (=5.0) differs" in capsys.readouterr().err
    assert run(*args) == 0
    assert "is finished" in capsys.readouterr().out
