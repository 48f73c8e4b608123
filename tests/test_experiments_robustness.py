import dataclasses
import functools
import io
import itertools
import json
import types

import jax
import numpy as np
import PIL.Image
import pytest
import skimage.metrics

from experiments import command, corruptions, heat_map, networks, problem, robustness
from jaxsr import images

KEY = jax.random.key(3)
GRAY = np.full((32, 40, 3), 102 / 255, np.float32)

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(("share", "count"), [(0.01, 13), (0.05, 64), (0.1, 128)])
def test_outliers_are_so_many_white_and_black_pixels(share, count):
    struck = corruptions.salt_and_pepper(KEY, GRAY, share=share)
    changed = (struck != GRAY).any(-1)
    assert changed.sum() == count and (struck[~changed] == GRAY[~changed]).all()
    assert (struck[changed] == 1).all(-1).sum() == -(-count // 2)
    assert (struck[changed] == 0).all(-1).sum() == count // 2


def test_noise_has_its_deviation_and_eight_bits():
    image = np.full((128, 128, 3), 0.5, np.float32)
    noisy = corruptions.gaussian(KEY, image, sigma=25)
    assert np.std(noisy.astype(np.float64)) * 255 == pytest.approx(25, rel=0.02)
    assert np.mean(noisy.astype(np.float64)) == pytest.approx(0.5, abs=0.002)
    np.testing.assert_allclose(noisy * 255, np.rint(noisy * 255), atol=1e-4)


def test_jpeg_is_pillows():
    image = images.from_uint8(
        np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    )
    file = io.BytesIO()
    PIL.Image.fromarray(images.to_uint8(image)).save(file, "JPEG", quality=30)
    found = corruptions.jpeg(KEY, image, quality=30)
    np.testing.assert_array_equal(images.to_uint8(found), np.asarray(PIL.Image.open(file)))


@pytest.fixture
def small(monkeypatch, tmp_path):
    network = functools.partial(networks.prior, down=(4, 4), up=(4, 4), skip=(2, 2))
    monkeypatch.setattr(networks, "prior", network)
    return ["--size", "64", "--iterations", "20", "--results", str(tmp_path)]


def test_cells_add_up(small, tmp_path, capsys):
    """What is there is not fitted again; a seed strikes all losses' images alike."""
    one = [*small, "--losses", "mse", "--corruptions", "clean", "outliers-10"]
    assert command.main(robustness.Settings, robustness.run, one) == 0
    record = json.loads((tmp_path / "coffee/outliers-10/mse_seed0.json").read_text())
    history = record["history"]
    assert history["every"] == 10 and len(history["psnr"]) == 2
    assert history["psnr"][-1] == pytest.approx(record["psnr"], rel=1e-5)
    assert record["psnr_peak"] >= max(history["psnr"]) - 1e-4
    assert 1 <= record["psnr_peak_iteration"] <= 20
    clean = json.loads((tmp_path / "coffee/clean/mse_seed0.json").read_text())
    assert clean["history"]["psnr_fit"] != history["psnr_fit"]
    capsys.readouterr()
    both = [*small, "--losses", "mse", "l1", "--corruptions", "outliers-10"]
    assert command.main(robustness.Settings, robustness.run, both) == 0
    out = capsys.readouterr().out
    assert "coffee/outliers-10/l1_seed0 ..." in out and "mse_seed0" not in out
    assert f"{record['psnr']:.2f}" in out
    assert (tmp_path / "coffee/robustness.png").stat().st_size > 5000


def test_the_map_has_all_that_is_on_record(small, tmp_path, monkeypatch):
    maps = {}

    def keep(path, values, **options):
        maps[path.name] = {"values": values, **options}

    monkeypatch.setattr(heat_map.plots, "heat_map", keep)
    one = [*small, "--corruptions", "clean", "jpeg-30", "--losses"]
    assert command.main(robustness.Settings, robustness.run, [*one, "mse"]) == 0
    few = [*small, "--corruptions", "clean", "--losses", "l1"]
    assert command.main(robustness.Settings, robustness.run, few) == 0
    records = [
        json.loads((tmp_path / f"coffee/clean/{x}_seed0.json").read_text()) for x in ("mse", "l1")
    ]
    for name, figure in (("robustness.png", "psnr"), ("robustness_peak.png", "psnr_peak")):
        drawn, psnr = maps[name], [record[figure] for record in records]
        assert list(drawn["values"]) == ["bicubic", "mse", "l1"] and drawn["columns"] == [
            "clean",
            "jpeg-30",
        ]
        assert drawn["values"]["l1"] == [pytest.approx(psnr[1] - psnr[0]), None]
        assert drawn["texts"]["l1"] == [f"{psnr[1]:.2f}", "missing"]
        assert "64x64, 4x, 20 iterations" in drawn["title"] and "paper-dip" in drawn["title"]
    truth, low = robustness.PROTOCOL.degrade(problem.photograph()[32:96, 32:96], 4)
    small_jpeg = corruptions.jpeg(KEY, low, quality=30)
    enlarged = np.asarray(images.to_pillow(small_jpeg).resize((64, 64), PIL.Image.BICUBIC)) / 255
    level = skimage.metrics.peak_signal_noise_ratio(truth, enlarged.astype(np.float32))
    assert drawn["texts"]["bicubic"][1] == f"{level:.2f}"
    assert "oracle" in maps["robustness_peak.png"]["title"]


def test_what_diverged_has_no_mean():
    def record(psnr, finite=True):
        return {"psnr": psnr, "finite": finite}

    records = {("mse", "clean", 0): record(20.0), ("mse", "clean", 1): record(22.0)}
    records |= {("l1", "clean", seed): record(30.0, finite=seed == 0) for seed in (0, 1)}
    records |= {("general-0", "clean", 1): record(31.0)}
    records |= {("general-1.5", "clean", seed): record(np.inf) for seed in (0, 1)}
    assert heat_map.mean(records, "psnr", "mse", "clean") == 21
    assert heat_map.table(
        records, "psnr", ["mse", "l1", "huber", "general-0", "general-1.5"], ["clean"]
    ).split() == [
        *("loss", "clean", "mse", "21.00", "±", f"{np.sqrt(2):.2f}"),
        *("l1", "diverged", "huber", "missing", "general-0", "1", "of", "2", "seeds"),
        *("general-1.5", "inf"),
    ]


def test_a_fit_that_overflows_at_once_leaves_the_others(small, monkeypatch, tmp_path, capsys):
    fit = robustness.dip.fit

    def overflow(*args, loss, config, **options):
        if loss is robustness.LOSSES["l1"]:
            config = dataclasses.replace(config, learning_rate=1e30)
        return fit(*args, loss=loss, config=config, **options)

    monkeypatch.setattr(robustness.dip, "fit", overflow)
    both = [*small, "--losses", "l1", "mse", "--corruptions", "clean"]
    assert command.main(robustness.Settings, robustness.run, both) == 1
    captured = capsys.readouterr()
    assert "left out coffee/clean/l1_seed0: the fit overflowed" in captured.err
    assert (tmp_path / "coffee/clean/mse_seed0.json").exists()


def test_a_fit_that_is_stopped_is_no_record(small, monkeypatch, tmp_path, capsys):
    args = [*small, "--losses", "mse", "--corruptions", "clean"]
    asked = itertools.count(1)
    with monkeypatch.context() as patch:  # before the fit, then after its first chunk
        patch.setattr(robustness.budget, "spent", lambda _: lambda: next(asked) > 1)
        assert command.main(robustness.Settings, robustness.run, args) == command.INTERRUPTED
    assert next(asked) > 2 and not list(tmp_path.rglob("*.json"))
    assert "missing" in capsys.readouterr().out
    assert command.main(robustness.Settings, robustness.run, args) == 0
    record = json.loads((tmp_path / "coffee/clean/mse_seed0.json").read_text())
    assert record["iterations"] == 20


def test_what_is_missing_is_shown_as_missing(small, capsys):
    arguments = [*small, "--losses", "mse", "--corruptions", "clean", "--budget", "1e-9"]
    code = command.main(robustness.Settings, robustness.run, arguments)
    out = capsys.readouterr().out
    assert code == 130 and "missing" in out and "goes on from there" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--losses", "l2"], "`--losses` (=l2) must be among mse, l1,"),
        (["--corruptions", "fog"], "`--corruptions` (=fog) must be among clean,"),
        (["--size", "70"], "`--size` (=70) must be a multiple of 32"),
        (["--size", "256"], "`--size` (=256) must fit into coffee, of 128x128"),
        (["--budget", "0"], "`--budget` (=0.0) must be above 0"),
        (["--iterations", "0"], "`--iterations` (=0) must be at least 1"),
    ],
)
def test_refusals(arguments, said, tmp_path, capsys):
    arguments = ["--results", str(tmp_path), *arguments]
    assert command.main(robustness.Settings, robustness.run, arguments) == 2
    assert said in capsys.readouterr().err


def test_peaks_are_counted_from_1(tmp_path, monkeypatch):
    psnr = np.array([10, 12, 30, 11, 9], np.float32)
    history = {"loss": psnr, "psnr": psnr, "psnr_output": psnr[::-1]}
    done = types.SimpleNamespace(step=5)
    fit = types.SimpleNamespace(finite=True, state=done, seconds=1.0, history=history)
    monkeypatch.setattr(robustness.dip, "fit", lambda *_, **__: fit)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    args = ["--size", "64", "--iterations", "5", "--results", str(tmp_path)]
    args += ["--losses", "mse", "--corruptions", "clean"]
    assert command.main(robustness.Settings, robustness.run, args) == 0
    record = json.loads((tmp_path / "coffee/clean/mse_seed0.json").read_text())
    assert {name: value for name, value in record.items() if name.startswith("psnr")} == {
        **{"psnr": 9, "psnr_peak": 30, "psnr_peak_iteration": 3},
        **{"psnr_output": 10, "psnr_output_peak": 30, "psnr_output_peak_iteration": 3},
    }


def test_each_seed_strikes_anew():
    low = problem.photograph()[:32, :32]
    first, again, other = (robustness.strike(low, "outliers-5", seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
