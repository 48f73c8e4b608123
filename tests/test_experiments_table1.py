"""`python -m experiments.table1` in-process, its ledger and the rows without a network."""

import csv
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from experiments import (
    baselines,
    cells,
    command,
    fits,
    networks,
    restoration,
    rows,
    table1,
    tables,
)
from experiments.ledger import Ledger
from jaxsr import images, models, operators, pretrained, tv, upscaling
from jaxsr.errors import InputError
from jaxsr.protocols import PROTOCOLS, with_true_chroma

IMAGES = ("16077", "37073")
pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.setitem(tables.IMAGES, "bsds300", IMAGES)
    monkeypatch.setattr(tables, "SHOWN", {})
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(IMAGES):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)
        smooth = PIL.Image.fromarray(pixels).resize((12, 8)).resize((96, 64))
        (tmp_path / "data" / "deep").mkdir(parents=True, exist_ok=True)
        smooth.save(tmp_path / "data" / "deep" / f"{name}.png")


def run(*args):
    return command.main(table1.Settings, table1.run, [str(arg) for arg in args])


def records(folder="results/table1"):
    paths = pathlib.Path(folder).rglob("*.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "lanczos"])
def test_interpolation_is_that_of_jax_image(kernel):
    low = np.random.default_rng(0).normal(size=(7, 9, 3)).astype(np.float32)
    names = {"nearest": "nearest", "bilinear": "bilinear", "lanczos": "lanczos3"}
    expected = jax.image.resize(low, (28, 36, 3), names[kernel])
    found = baselines.interpolated(low, (28, 36), kernel)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_total_variation_is_minimised(monkeypatch, capsys):
    """With the record's settings, that is; a minimum not reached is no result."""
    args = ("--bsds300", "data", "--only", "tv", "--images", "16077", "--tables", "standard")
    assert run(*args) == 0
    record = json.loads(records()["standard/tv/16077.json"])
    protocol = PROTOCOLS["standard"]
    hr, low = protocol.degrade(images.read("data/deep/16077.png").pixels, 4)
    found = tv.least_squares(
        jnp.asarray(low),
        operators.downsample(4, kernel=protocol.kernel),
        start=jnp.asarray(protocol.bicubic(low, hr.shape[:2])),
        weight=record["settings"]["tv_weight"],
        tolerance=record["settings"]["tolerance"],
    )
    expected = protocol.score(np.asarray(found.image), hr, 4)
    assert {name: record[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    few = functools.partial(tv.least_squares, iterations=1)
    monkeypatch.setattr(tv, "least_squares", few)
    capsys.readouterr()
    assert run(*args, "--results", "other") == 1
    assert "left out standard/tv/16077: `tolerance` (=" in capsys.readouterr().err
    assert not records("other")


def test_a_cell_is_computed_once(capsys):
    args = ("--bsds300", "data", "--only", "bicubic", "nearest")
    assert run(*args) == 0
    first = records()
    assert set(first) == {
        f"{table}/{row}/{image}.json"
        for table, row, image in itertools.product(
            ("paper", "standard"), ("bicubic", "nearest"), IMAGES
        )
    }
    assert " ..." in capsys.readouterr().out
    assert run(*args) == 0
    assert records() == first
    assert run("--only", "bicubic") == 0  # without the images: what is there
    said = capsys.readouterr().out
    assert " ..." not in said and "2/2" in said


def test_figures_and_means_are_the_protocols(capsys):
    assert run("--bsds300", "data", "--only", "bicubic") == 0
    lines = capsys.readouterr().out.splitlines()
    for table, protocol in (("paper", PROTOCOLS["paper-dip"]), ("standard", PROTOCOLS["standard"])):
        psnr = []
        for name in IMAGES:
            pixels = np.asarray(PIL.Image.open(f"data/deep/{name}.png"), np.float32) / 255
            hr, low = protocol.degrade(pixels, 4)
            expected = protocol.score(protocol.bicubic(low, hr.shape[:2]), hr, 4)
            record = json.loads(records()[f"{table}/bicubic/{name}.json"])
            assert {key: record[key] for key in expected} == pytest.approx(expected, abs=1e-6)
            psnr.append(expected["psnr"])
        row = lines[next(i for i, x in enumerate(lines) if f"table {table}," in x) + 2].split()
        assert row[:2] == ["bicubic", f"{statistics.fmean(psnr):.3f}"]
        assert row[-2:] == ["2/2", protocol.name]
        if table == "paper":
            assert row[3:6] == ["25.09", "0.8055", f"{statistics.fmean(psnr) - 25.09:+.2f}"]


def test_what_is_missing_is_shown_and_no_difference_told(capsys):
    assert run("--bsds300", "data", "--only", "bicubic", "--images", "16077") == 0
    capsys.readouterr()
    assert run("--only", "bicubic", "tv") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[3].split()[-2:] == ["1/2", "paper-dip"] and "25.09" not in said[3]
    assert said[3].split()[1].endswith("*") and said[5].startswith("*: of some images alone")
    assert said[4].split() == ["tv", "missing", "0/2", "paper-dip"]


def test_another_network_is_not_mixed_in(capsys):
    model = models.LapSRN(features=4, depth=1)
    folder = "nets/x4_charbonnier_w1-1_seed0"
    for seed in (0, 1):
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 4, 4, 1)))
        pretrained.save(folder, model, variables)
        args = ("--bsds300", "data", "--only", "lapsrn-1-1", "--lapsrn", "nets")
        code = run(*args, "--tables", "paper", "--images", "16077")
        if seed == 0:
            assert code == 0
            before = records()
            assert list(before) == ["paper/lapsrn-1-1/16077_seed0.json"]
    assert code == 2 and records() == before
    assert "was made with `weights_sha256` (=" in capsys.readouterr().err


def test_trained_networks_are_a_row_by_their_seeds(capsys):
    """Mean and deviation over two trainings; weights may differ between seeds, not within one."""
    model = models.LapSRN(features=4, depth=1)
    start = jnp.zeros((1, 4, 4, 1))
    for seed in (0, 2):
        variables = jax.jit(model.init)(jax.random.key(seed), start)
        pretrained.save(f"nets/x4_charbonnier_w2-1_seed{seed}", model, variables)
    args = ("--only", "lapsrn-2-1", "--lapsrn", "nets", "--tables", "standard", "--seeds", 0, 2)
    assert run("--bsds300", "data", *args) == 0
    found = {name: json.loads(record) for name, record in records().items()}
    cells_of = itertools.product(IMAGES, (0, 2))
    names = {cell: "standard/lapsrn-2-1/{}_seed{}.json".format(*cell) for cell in cells_of}
    assert set(found) == set(names.values())
    means = []
    for seed in (0, 2):
        _, variables = pretrained.load(f"nets/x4_charbonnier_w2-1_seed{seed}")
        psnr = []
        for x in IMAGES:
            record = found[names[x, seed]]
            assert record["settings"]["seed"] == seed
            hr, low = PROTOCOLS["standard"].degrade(images.read(f"data/deep/{x}.png").pixels, 4)
            result = upscaling.upscale(low, model, variables)
            psnr.append(PROTOCOLS["standard"].score(result, hr, 4)["psnr"])
            assert record["psnr"] == pytest.approx(psnr[-1], abs=1e-4)
        means.append(statistics.fmean(psnr))
    *_, line, note, _ = capsys.readouterr().out.splitlines()
    expected = [f"{statistics.fmean(means):.3f}", f"{statistics.stdev(means):.3f}"]
    assert line.split()[:3] == ["lapsrn-2-1", *expected]
    assert line.split()[-2:] == ["4/4", "standard"] and note.startswith("+-: the deviation")
    path = pathlib.Path("results/table1") / names["16077", 2]
    record = found[names["16077", 2]]
    record["settings"]["weights_sha256"] = found[names["16077", 0]]["settings"]["weights_sha256"]
    path.write_text(json.dumps(record))
    assert run(*args) == 0
    line = capsys.readouterr().out.splitlines()[-2].split()
    assert line == ["lapsrn-2-1", "mixed", "weights_sha256", "4/4", "standard"]


@pytest.fixture
def small_fits(monkeypatch, compiled_quickly):
    """Fits of 25 iterations of a small network, compiled once."""
    network = functools.partial(networks.prior, down=(8,), up=(8,), skip=(2,))
    monkeypatch.setattr(networks, "prior", network)
    monkeypatch.setattr(rows, "Settings", functools.partial(rows.Settings, iterations=25))


def test_fits_are_of_their_row_recipe_and_seed(monkeypatch, small_fits, capsys):
    """One is stopped by the budget, and one picture of a cell is lost."""
    monkeypatch.setattr(tables, "SHOWN", {"37073": (8, 16)})
    monkeypatch.setattr(tables, "SIDE", 32)
    asked = []
    fit = restoration.run

    def late(settings, *, stop):
        asked.append(settings)
        return fit(settings, stop=lambda: stop() or len(asked) == 2)

    monkeypatch.setattr(restoration, "run", late)
    args = ["--bsds300", "data", "--tables", "paper", "--only", "dip-mse", "--seeds", "0", "2"]
    args += ["--images", "37073", "--precision", "tf32"]
    assert run(*args) == command.INTERRUPTED
    assert "stopped: what is finished is kept" in capsys.readouterr().out
    assert len(records()) == 1
    assert run(*args) == 0
    assert {(s.loss, s.recipe, s.protocol, s.seed, s.hr.stem) for s in asked} == {
        ("mse", "reference", "paper-dip", seed, "37073") for seed in (0, 2)
    }
    assert len(asked) == 3  # the second was begun twice
    printed = capsys.readouterr().out
    assert "resuming runs/table1/paper/dip-mse_reference_seed2_tf32/37073" in printed

    kept, psnr = records(), []
    for seed in (0, 2):
        record = json.loads(kept[f"paper/dip-mse_reference/37073_seed{seed}.json"])
        folder = pathlib.Path(f"runs/table1/paper/dip-mse_reference_seed{seed}_tf32/37073")
        metrics = json.loads((folder / "metrics.json").read_text())
        for name in ("psnr", "ssim_y", "seconds", "device", "versions"):
            assert record[name] == metrics[name]
        assert {"remat", "checkpoint_every"}.isdisjoint(record["settings"])
        assert record["settings"]["precision"] == metrics["precision"] == "tf32"
        psnr.append(metrics["psnr"])
        with open(folder / "history.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        history = record["history"]
        assert history.pop("every") == 10 and set(history) == set(lines[0]) - {"iteration"}
        for name, column in history.items():
            expected = [float(lines[i][name]) for i in (9, 19)]
            assert column == pytest.approx(expected, rel=5e-6)
            assert all(len(f"{x:.6g}") >= len(str(x)) for x in column)
    line = next(x for x in printed.splitlines() if x.startswith("dip-mse")).split()
    assert line[1:4] == [
        *("(reference)", f"{statistics.fmean(psnr):.3f}*", f"{statistics.stdev(psnr):.3f}*"),
    ]
    assert line[-2:] == ["2/2", "paper-dip"]

    name = "results/table1/paper/dip-mse_reference/37073_seed0"
    record = json.loads(pathlib.Path(f"{name}.json").read_text())
    run_folder = pathlib.Path("runs/table1/paper/dip-mse_reference_seed0_tf32/37073")
    assert record["snapshots"] == [10, 20]
    tiles = [images.read(run_folder / "snapshots" / f"{i:06d}.png").pixels for i in (10, 20)]
    strip = np.concatenate([tile[8:40, 16:48] for tile in tiles], axis=1)
    np.testing.assert_array_equal(images.read(f"{name}_snapshots.png").pixels, strip)
    crop = images.read(run_folder / "sr.png").pixels[8:40, 16:48]
    np.testing.assert_array_equal(images.read(f"{name}.png").pixels, crop)
    assert len(list(pathlib.Path("results").rglob("*_seed*.png"))) == 2  # one seed is enough

    before = pathlib.Path(f"{name}.png").read_bytes()
    pathlib.Path(f"{name}.png").unlink()
    assert run(*args) == 0  # a finished fit is read again, its record stays
    assert records() == kept and pathlib.Path(f"{name}.png").read_bytes() == before


def test_crops_are_of_the_result_the_truth_and_what_was_seen(monkeypatch):
    monkeypatch.setattr(tables, "SHOWN", {"16077": (8, 24)})
    monkeypatch.setattr(tables, "SIDE", 16)
    model = models.LapSRN(features=4, depth=1)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    pretrained.save("nets/x4_charbonnier_w1-1_seed0", model, variables)
    args = ("--bsds300", "data", "--images", "16077", "--lapsrn", "nets", "--only")
    assert run(*args, "bicubic") == 0
    assert run(*args, "lapsrn-1-1", "--tables", "paper") == 0
    hr = images.read("data/deep/16077.png").pixels
    ledger = pathlib.Path("results/table1")
    for table, protocol in (("paper", "paper-dip"), ("standard", "standard")):
        truth, low = PROTOCOLS[protocol].degrade(hr, 4)
        baseline = PROTOCOLS[protocol].bicubic(low, truth.shape[:2])
        for name, expected in (
            ("truth", truth[8:24, 24:40]),
            ("lr", low[2:6, 6:10]),
            ("bicubic", baseline[8:24, 24:40]),
        ):
            found = images.read(ledger / table / name / "16077.png").pixels
            assert np.abs(found - np.clip(expected, 0, 1)).max() < 0.5001 / 255
    truth, low = PROTOCOLS["paper-lapsrn"].degrade(hr, 4)
    result = upscaling.upscale(low, model, variables)
    expected = with_true_chroma(result, truth)[8:24, 24:40]
    found = images.read(ledger / "paper/lapsrn-1-1/16077_seed0.png").pixels
    assert np.abs(found - expected).max() < 1.5 / 255
    # Of another network the record is refused; once it is deleted, the crop goes with it.
    other = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 4, 4, 1)))
    pretrained.save("nets/x4_charbonnier_w1-1_seed0", model, other)
    (ledger / "paper/lapsrn-1-1/16077_seed0.json").unlink()
    assert run(*args, "lapsrn-1-1", "--tables", "paper") == 0
    expected = with_true_chroma(upscaling.upscale(low, model, other), truth)[8:24, 24:40]
    again = images.read(ledger / "paper/lapsrn-1-1/16077_seed0.png").pixels
    assert np.abs(again - expected).max() < 1.5 / 255 < np.abs(again - found).max()
    monkeypatch.setattr(tables, "SHOWN", {})
    assert run("--bsds300", "data", "--only", "nearest") == 0
    assert not list(ledger.rglob("nearest/*.png"))


def test_a_row_of_mixed_settings_has_no_mean(capsys):
    assert run("--bsds300", "data", "--only", "bicubic", "--tables", "standard") == 0
    for image, precision in zip(IMAGES, ("float32", "tf32"), strict=True):
        path = pathlib.Path(f"results/table1/standard/bicubic/{image}.json")
        record = json.loads(path.read_text())
        record["settings"]["precision"] = precision
        path.write_text(json.dumps(record))
    capsys.readouterr()
    assert run("--only", "bicubic", "--tables", "standard") == 0
    line = capsys.readouterr().out.splitlines()[-2].split()
    assert line == ["bicubic", "mixed", "precision", "2/2", "standard"]


def test_a_mean_is_over_images_whatever_their_seeds():
    found = {}
    for image, seed, psnr in (("a", 0, 20.0), ("a", 1, 22.0), ("b", 0, 31.0)):
        cell = tables.Cell("set5", "dip-mse", "best", image, seed)
        found[cell] = {"psnr": psnr, "ssim": 0.5, "settings": {"seed": seed, "image": image}}
    _, [(label, line)] = tables.lines("set5", found)
    assert (label, line[0]) == ("dip-mse (best)", f"{(21 + 31) / 2:.3f}*")
    assert line[-4:] == ["", "", "3/3", "dip"]  # of two images: nothing was published


def test_set5_beside_what_was_published():
    found = {}
    for image, psnr in zip(tables.IMAGES["set5"], (28.0, 29.0, 30.0, 31.0, 32.0), strict=True):
        for row in rows.DIP:
            made = {"psnr": psnr, "ssim": 0.5, "settings": {"seed": 0, "image": image}}
            found[tables.Cell("set5", row, "reference", image, 0)] = made
    heads, lines = tables.lines("set5", found)
    columns = [heads.index(x) - 1 for x in ("published PSNR", "difference")]  # beside the label
    shown = {label: [line[i] for i in columns] for label, line in lines}
    assert shown["dip-mse (reference)"] == ["29.90", "+0.10"]
    assert shown["dip-charbonnier (reference)"] == ["", ""]


def test_budget_ends_between_cells(monkeypatch, capsys):
    begun, clock = [], [0.0]
    compute = cells.compute

    def slow(*args):
        begun.append(args)
        compute(*args)
        clock[0] += 61

    monkeypatch.setattr(cells, "compute", slow)
    own = types.SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr("experiments.budget.time", own)
    assert run("--bsds300", "data", "--only", "bicubic", "--budget", 1) == command.INTERRUPTED
    printed = capsys.readouterr().out
    assert "stopped: what is finished is kept" in printed and "table standard" in printed
    assert len(begun) == len(records()) == 1


def test_interpolations_do_not_depend_on_the_precision():
    args = ("--bsds300", "data", "--only", "nearest", "--tables", "standard")
    assert run(*args) == 0
    first = records()
    assert run(*args, "--precision", "bfloat16") == 0
    assert records() == first


def test_records_of_any_precision_make_one_mean(capsys):
    """Those of interpolations: what was recorded under another version counts with today's."""
    args = ("--bsds300", "data", "--only", "bicubic", "--tables", "standard")
    assert run(*args, "--images", "16077") == 0
    assert run(*args, "--images", "37073", "--precision", "tf32") == 0
    capsys.readouterr()
    made = [json.loads(record)["settings"]["precision"] for record in records().values()]
    assert made == ["float32", "float32"]  # as all committed ones
    assert run("--only", "bicubic", "--tables", "standard") == 0
    line = capsys.readouterr().out.splitlines()[-2].split()
    assert [line[0], *line[-2:]] == ["bicubic", "2/2", "standard"] and float(line[1]) > 0


def test_fits_of_another_precision_have_folders_of_their_own(monkeypatch):
    made = []
    monkeypatch.setattr(rows.methods, "deep_image_prior", lambda *a, **_: made.append(a[1]))
    for precision in ("float32", "tf32"):
        places = rows.Places(pathlib.Path("l"), pathlib.Path("f"), "auto", precision)
        rows.method("dip-mse", "paper", "best", 3, places)
    assert [x.as_posix() for x in made] == [
        "f/paper/dip-mse_best_seed3",
        "f/paper/dip-mse_best_seed3_tf32",
    ]


@pytest.mark.parametrize(
    ("config", "metrics", "said"),
    [
        ({}, {}, r"is not finished: give its command again"),
        ({}, {"epochs": 49}, r"is not finished"),
        ({"loss": "mse"}, {"epochs": 50}, r"was trained with `--loss` \(=mse\)"),
        ({"level_weights": [9.0, 9.0]}, {"epochs": 50}, r"`--level-weights` \(=\[9.0, 9.0\]\)"),
        ({"seed": 1}, {"epochs": 50}, r"`--seed` \(=1\), not 0"),
        ({"epochs": 1}, {"epochs": 1}, r"`--epochs` \(=1\), not 50"),
        ({"residual": False}, {"epochs": 50}, r"`--residual` \(=False\), not True"),
    ],
)
def test_a_training_must_be_finished_and_of_its_row(tmp_path, config, metrics, said):
    """Else the network after some epoch would be on record as the row's for good."""
    folder = tmp_path / "x4_charbonnier_w2-1_seed0"
    folder.mkdir()
    whole = {"epochs": 50, "loss": "charbonnier", "level_weights": [2.0, 1.0], "seed": 0}
    (folder / "config.json").write_text(json.dumps(whole | config))
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    places = rows.Places(tmp_path, tmp_path, "auto", "float32")
    with pytest.raises(InputError, match=said):
        rows.method("lapsrn-2-1", "paper", "reference", 0, places)


def test_a_claim_may_vanish_while_it_is_looked_at(tmp_path, monkeypatch):
    """Its owner takes it away without a lock."""
    read = pathlib.Path.read_bytes

    def vanishing(path):
        if path.suffix == ".claim":
            path.unlink()
        return read(path)

    (tmp_path / "a.claim").write_text("{}")
    monkeypatch.setattr(pathlib.Path, "read_bytes", vanishing)
    with Ledger(tmp_path).claim("a") as owner:
        assert owner is None and (tmp_path / "a.claim").exists()
    assert not (tmp_path / "a.claim").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_at_any_time_is_one_line(monkeypatch, capsys, times):
    def press(*_):
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cells, "compute", press)
    before = signal.getsignal(signal.SIGINT)
    args = ("--bsds300", "data", "--only", "bicubic")
    assert run(*args) == command.INTERRUPTED
    out, err = capsys.readouterr()
    assert out.count("stopped") == 1 and not err
    monkeypatch.setattr(table1, "show", press)
    assert run("--only", "bicubic", "--tables", "paper") == (
        0 if times == 1 else command.INTERRUPTED
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_what_cannot_be_computed_is_left_out(capsys):
    (pathlib.Path("data/deep/37073.png")).unlink()
    args = ("--bsds300", "data", "--only", "bicubic", "lapsrn-1-1")
    assert run(*args) == 1
    out, err = capsys.readouterr()
    image, network = err.splitlines()
    assert image == "left out 37073: `data` must hold 37073.jpg or 37073.png"
    assert network.startswith("left out lapsrn-1-1: `runs/lapsrn/x4_charbonnier_w1-1_seed0` holds")
    lines = [line.split() for line in out.splitlines()]
    assert ["bicubic", "1/2", "paper-dip"] in [[*line[:1], *line[-2:]] for line in lines]
    assert ["lapsrn-1-1", "missing", "0/2", "paper-lapsrn"] in lines
    assert len(records()) == 2


def test_what_is_on_record_needs_no_network(capsys):
    model = models.LapSRN(features=4, depth=1)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    pretrained.save("nets/x4_charbonnier_w1-1_seed0", model, variables)
    args = ("--bsds300", "data", "--only", "lapsrn-1-1", "--tables", "paper")
    assert run(*args, "--lapsrn", "nets", "--images", "16077") == 0
    capsys.readouterr()
    assert run(*args, "--images", "16077") == 0
    assert capsys.readouterr().err == ""
    assert run(*args) == 1  # the other image is not
    assert "left out lapsrn-1-1: " in capsys.readouterr().err


def test_set5_alone(capsys):
    shutil.copytree("data", "five")
    for name in tables.IMAGES["set5"]:
        shutil.copy("data/deep/16077.png", f"five/{name}.png")
    assert run("--set5", "five", "--only", "bicubic") == 0
    out = capsys.readouterr().out
    assert "table set5" in out and "table paper" not in out and "5/5" in out
    assert set(records()) == {f"set5/bicubic/{name}.json" for name in tables.IMAGES["set5"]}


def test_an_image_is_known_by_its_pixels(capsys):
    digest = hashlib.sha256(images.read("data/deep/16077.png").pixels.tobytes()).hexdigest()
    shutil.copytree("data", "data/copies")  # of the same pixels: no matter
    PIL.Image.open("data/deep/16077.png").save("data/copies/deep/16077.png", compress_level=1)
    args = ("--bsds300", "data", "--only", "bicubic", "--tables", "paper")
    assert run(*args) == 0
    record = json.loads(records()["paper/bicubic/16077.json"])
    assert record["settings"]["input_sha256"] == digest
    PIL.Image.open("data/deep/37073.png").save("data/copies/deep/16077.png")
    capsys.readouterr()
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert "`data/copies/deep/16077.png` and `data/deep/16077.png` share a name" in err
    assert err.count("\n") == 1
    shutil.copy("data/copies/deep/16077.png", "data/deep/16077.png")
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert f"was made with `input_sha256` (={digest})" in err and err.count("\n") == 1


def test_gray_and_flat_images(capsys):
    """They have no figures on RGB; and a PSNR without bound."""
    PIL.Image.open("data/deep/16077.png").convert("L").save("data/deep/16077.png")
    PIL.Image.new("RGB", (96, 64), (77, 77, 77)).save("data/deep/37073.png")
    args = ("--bsds300", "data", "--only", "bicubic", "nearest")
    assert run(*args) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("bicubic")]
    assert lines[0][1] == "inf" and lines[1][3:5] == ["gray", "gray"]
    assert "to look at: runs/table1/report.html" in out
    record = json.loads(records()["paper/bicubic/37073.json"], parse_constant=pytest.fail)
    assert record["psnr"] == "inf" and record["ssim"] == 1
    assert "psnr_rgb" not in json.loads(records()["paper/bicubic/16077.json"])
    assert run(*args) == 0
    assert (
        tables.spread_over_seeds(
            {
                tables.Cell("paper", "dip-mse", "best", "a", seed): {"psnr": psnr}
                for seed, psnr in enumerate((math.inf, 20.0))
            }
        )
        is None
    )


def test_two_processes_share_a_ledger(capsys, monkeypatch):
    """A claim is respected while its process lives, or may; the others' cells are computed."""
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host = socket.gethostname()
    args = ("--bsds300", "data", "--tables", "paper", "--only", "bicubic", "nearest")
    ledger = Ledger(pathlib.Path("results/table1"))
    claims = {
        "paper/nearest/16077": {"pid": living.pid, "host": host},
        "paper/nearest/37073": {"pid": living.pid, "host": "elsewhere"},
        "paper/bicubic/16077": {"pid": os.getpid(), "host": host},  # of an earlier process
    }
    for name, owner in claims.items():
        path = ledger.folder / f"{name}.claim"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(owner))
    assert run(*args) == 0
    assert set(records()) == {f"paper/bicubic/{image}.json" for image in IMAGES}
    out = capsys.readouterr().out
    assert out.count("skipped paper/nearest/") == 2 and f'"pid": {living.pid}' in out
    living.communicate(b"\n")
    assert run(*args) == 0
    assert "paper/nearest/16077.json" in records()
    left = [str(path) for path in ledger.folder.rglob("*.claim")]
    assert left == ["results/table1/paper/nearest/37073.claim"]
    (ledger.folder / "a").mkdir()
    huge = json.dumps({"pid": 10**30, "host": host})
    for claim, shown in ((b"\xff", "\\xff"), (huge.encode(), huge)):
        (ledger.folder / "a/b.claim").write_bytes(claim)
        with ledger.claim("a/b") as somebody:
            assert somebody == shown
    (ledger.folder / "a/b.claim").unlink()
    with ledger.claim("a/b") as nobody:
        assert nobody is None and (ledger.folder / "a/b.claim").exists()
    assert not (ledger.folder / "a/b.claim").exists()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(InputError, match="No space left"), ledger.claim("a/b"):
        raise AssertionError("it was not refused")
    assert not (ledger.folder / "a/b.claim").exists()


def test_unfinished_writes_are_no_records(tmp_path):
    """What a SIGKILL may leave beside the records is no record."""
    (tmp_path / "a").mkdir()
    for name in ("b.json", ".b7.tmp.json"):
        (tmp_path / "a" / name).write_text("{")
    assert Ledger(tmp_path).paths("*/*") == [tmp_path / "a" / "b.json"]


def test_spread_is_over_seeds_of_common_images():
    def cell(image, seed):
        return tables.Cell("paper", "dip-mse", "best", image, seed)

    found = {
        cell("a", 0): {"psnr": 20.0},
        cell("b", 0): {"psnr": 22.0},
        cell("a", 1): {"psnr": 21.0},
        cell("b", 1): {"psnr": 25.0},
        cell("c", 1): {"psnr": 99.0},
    }
    spread, images = tables.spread_over_seeds(found)
    assert spread == pytest.approx(np.std([21, 23], ddof=1)) and images == {"a", "b"}
    assert tables.spread_over_seeds({cell("a", 0): {"psnr": 1.0}}) is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--only", "magic"), "`--only` (=magic) must be among nearest, "),
        (("--images", "lena"), "`--images` (=lena) must be among 16077, 37073, baby, bird, "),
        (("--seeds", -1), "`--seeds` (=(-1,)) must be one or more in [0, 2^32)"),
        (("--budget", "inf"), "`--budget` (=inf) must be above 0, and finite"),
        (("--set5", "data", "--tables", "set5"), "`data` must hold baby.jpg or baby.png"),
        (("--bsds300", "nowhere"), "`nowhere` must hold 16077.jpg or 16077.png"),
    ],
)
def test_bad_input_is_one_line(capsys, args, said):
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_ledger_gives_back_what_is_infinite(tmp_path):
    kept = {"psnr": math.inf, "ssim": 1.0, "psnr_y": math.inf}
    one = Ledger(tmp_path / "r")
    one.write("a/b", {}, kept, seconds=1.5, environment={})
    assert one.read("a/b", {}) == one.read("a/b", {}) | kept


def test_cost_of_a_record_without_its_seconds(tmp_path):
    record = {"iterations": 100, "iterations_per_second": 4, "device": {}, "versions": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    assert fits.cost(tmp_path)[0] == 25


def test_rows_have_the_protocols_of_their_records():
    root = pathlib.Path(rows.__file__).parents[1] / "results" / "table1"
    paths = [*root.glob("*/*/*.json")]
    assert {path.parts[-3] for path in paths} == {"paper", "standard", "set5"}
    for path in paths:
        settings = json.loads(path.read_text())["settings"]
        name = rows.protocol_name(settings["row"], path.parts[-3])
        assert name == settings["protocol"], path


def test_ledger_refuses_damaged_records(tmp_path):
    ledger = Ledger(tmp_path / "r")
    settings, figures = {"x": 1, "y": (1, 2)}, {"psnr": math.inf, "ssim": 0.5}
    assert ledger.read("a/b", settings) is None
    ledger.write("a/b", settings, figures, seconds=1.5, environment={"d": 1})
    expected = {"settings": {"x": 1, "y": [1, 2]}, **figures, "seconds": 1.5, "d": 1}
    assert ledger.read("a/b", settings) == expected
    with pytest.raises(InputError, match=r"was made with `x` \(=1\), now it is 2"):
        ledger.read("a/b", {"x": 2})
    for damage in ('{"psnr": 3}', "[1]", "{", '{"settings": [1], "psnr": 1, "ssim": 1}', "\xff"):
        (tmp_path / "r" / "a" / "b.json").write_text(damage, encoding="latin-1")
        with pytest.raises(InputError, match="is damaged"):
            ledger.read("a/b", {"x": 1})


def test_a_damaged_record_is_one_line(capsys):
    args = ("--bsds300", "data", "--only", "bicubic", "--tables", "paper")
    assert run(*args) == 0
    path = pathlib.Path("results/table1/paper/bicubic/16077.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"psnr": "much"}))
    capsys.readouterr()
    for given in (args, args[2:]):
        assert run(*given) == 2
        err = capsys.readouterr().err
        assert f"`{path}` is damaged" in err and err.count("\n") == 1


def test_figures_on_rgb_are_means_of_their_own():
    found = {}
    for image, psnr in (("a", 18.0), ("b", 21.0)):
        cell = tables.Cell("standard", "bicubic", "best", image, 0)
        figures = {"psnr": 30.0, "ssim": 0.9, "psnr_rgb": psnr, "ssim_rgb": psnr / 100}
        found[cell] = {**figures, "settings": {}}
    heads, [(_, line)] = tables.lines("standard", found)
    assert heads[1:6] == ["PSNR", "+-", "SSIM", "RGB PSNR", "RGB SSIM"]
    assert line[:5] == ["30.000*", "", "0.9000*", "19.500*", "0.1950*"]


def test_what_is_published_stands_beside_a_mean_of_all_images():
    """Also where a seed lacks some: its deviation alone is then of fewer images."""

    def cell(image, seed):
        return tables.Cell("paper", "dip-mse", "reference", image, seed)

    records = {cell(image, seed): None for image in tables.names_of("paper") for seed in (0, 1)}
    for image in tables.names_of("paper"):
        records[cell(image, 0)] = {"psnr": 25.0, "ssim": 0.8036, "settings": {}}
    records[cell("16077", 1)] = {"psnr": 27.0, "ssim": 0.8036, "settings": {}}
    heads, [(_, line)] = tables.lines("paper", records)
    count = len(tables.names_of("paper"))
    psnr = 25 + 1 / count
    assert dict(zip(heads[1:], line, strict=True)) == {
        **{"PSNR": f"{psnr:.3f}", "+-": "1.414*", "SSIM": "0.8036"},
        **{"published PSNR": "25.45", "published SSIM": "0.8036"},
        **{"difference": f"{psnr - 25.45:+.2f}", "of SSIM": "+0.0000"},
        **{"cells": f"{count + 1}/{2 * count}", "protocol": "paper-dip"},
    }
