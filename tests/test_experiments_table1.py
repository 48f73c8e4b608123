"""`python -m experiments.table1` in-process, its ledger and the rows without a network."""

import dataclasses
import itertools
import json
import pathlib
import signal
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.optimize

from experiments import baselines, command, dip, rows, table1, tables
from experiments.ledger import Ledger
from jaxsr import models, operators, pretrained
from jaxsr.errors import InputError
from jaxsr.protocols import PROTOCOLS

IMAGES = ("16077", "37073")


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.setitem(tables.IMAGES, "bsds300", IMAGES)
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


def test_least_squares_finds_the_minimum():
    """Of the same objective by SciPy's L-BFGS, TV smoothed, on 8x8 pixels."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0.2, 0.8, (4, 4, 1)).astype(np.float32)
    start = rng.uniform(0.2, 0.8, (8, 8, 1))
    operator = operators.downsample(2, kernel="area")
    weight = 0.05

    def objective(x):
        x = x.reshape(4, 2, 4, 2)
        fit = ((x.mean((1, 3)) - low[..., 0]) ** 2).mean()
        x = x.reshape(8, 8)
        smooth = [np.sqrt(np.diff(x, axis=a) ** 2 + 1e-10).mean() for a in (0, 1)]
        return fit + weight * sum(smooth)

    best = scipy.optimize.minimize(
        objective, start.ravel(), method="L-BFGS-B", options={"maxfun": 10**5}
    ).fun
    config = dataclasses.replace(baselines.TV, tv_weight=weight, learning_rate=0.001)
    found = baselines.tv_least_squares(low, start.astype(np.float32), operator, config)
    assert objective(start.ravel()) > 1.3 * best
    assert best < objective(found.ravel().astype(float)) < 1.03 * best


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
        row = lines[next(i for i, x in enumerate(lines) if f"`{table}`" in x) + 2].split()
        assert row[:3] == ["bicubic", "2/2", f"{statistics.fmean(psnr):.3f}"]
        if table == "paper":
            assert row[4:] == ["25.09", "0.8055", f"{statistics.fmean(psnr) - 25.09:+.2f}"]


def test_what_is_missing_is_shown_and_no_difference_told(capsys):
    assert run("--bsds300", "data", "--only", "bicubic", "--images", "16077") == 0
    capsys.readouterr()
    assert run("--only", "bicubic", "tv") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[3].split()[:2] == ["bicubic", "1/2"] and "25.09" not in said[3]
    assert said[4].split() == ["tv", "0/2", "missing"]


def test_another_network_is_not_mixed_in(capsys):
    model = models.LapSRN(features=4, depth=1)
    folder = "nets/x4_charbonnier_w1-1_seed0"
    for seed in (0, 1):
        variables = model.init(jax.random.key(seed), jnp.zeros((1, 4, 4, 1)))
        pretrained.save(folder, model, variables)
        args = ("--bsds300", "data", "--only", "lapsrn-1-1", "--lapsrn", "nets")
        code = run(*args)
        if seed == 0:
            assert code == 0
            before = records()
            assert "paper/lapsrn-1-1/16077.json" in before
    assert code == 2 and records() == before
    assert "was made with `weights_sha256` (=" in capsys.readouterr().err


def test_fits_are_of_their_row_recipe_and_seed(monkeypatch, capsys):
    asked = []

    def fit(settings):
        asked.append(settings)
        if len(asked) == 3:  # the budget is over
            return command.INTERRUPTED
        settings.out.mkdir(parents=True)
        figures = dict.fromkeys(("psnr", "ssim", "psnr_rgb", "ssim_rgb"), 20.0 + settings.seed)
        (settings.out / "metrics.json").write_text(json.dumps(figures | {"bicubic": figures}))
        PIL.Image.new("RGB", (96, 64)).save(settings.out / "sr.png")
        return 0

    monkeypatch.setattr(dip, "run", fit)
    args = ["--bsds300", "data", "--tables", "paper", "--only", "dip-mse", "--seeds", "0", "2"]
    assert run(*args) == command.INTERRUPTED
    assert "stopped: what is finished is kept" in capsys.readouterr().out
    assert len(records()) == 2
    assert run(*args) == 0
    assert {(s.loss, s.recipe, s.protocol, s.seed, s.hr.stem) for s in asked} == {
        ("mse", "reference", "paper-dip", seed, image) for seed in (0, 2) for image in IMAGES
    }
    assert len(asked) == 5  # the third was begun twice
    line = capsys.readouterr().out.splitlines()[-2].split()
    assert line[:5] == ["dip-mse", "(reference)", "4/4", "21.000", "1.414"]


def test_budget_ends_like_ctrl_c(monkeypatch, capsys):
    monkeypatch.setattr(rows, "method", lambda *_: signal.pause())
    assert run("--bsds300", "data", "--budget", 0.001) == command.INTERRUPTED
    assert "stopped" in capsys.readouterr().out


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
    assert tables.spread_over_seeds(found) == pytest.approx(np.std([21, 23], ddof=1))
    assert tables.spread_over_seeds({cell("a", 0): {"psnr": 1.0}}) is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--only", "magic"), "`--only` (=magic) must be among nearest, "),
        (("--images", "lena"), "`--images` (=lena) must be among 16077, "),
        (("--seeds", -1), "`--seeds` (=(-1,)) must be one or more in [0, 2^32)"),
        (("--budget", 0), "`--budget` (=0.0) must be above 0"),
        (("--set5", "data", "--tables", "set5"), "`data` must hold baby.jpg or baby.png"),
        (("--bsds300", "data", "--only", "lapsrn-1-1"), "holds no trained network"),
    ],
)
def test_bad_input_is_one_line(capsys, args, said):
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_ledger_refuses_damaged_records(tmp_path):
    ledger = Ledger(tmp_path / "r")
    assert ledger.read("a/b", {"x": 1}) is None
    ledger.write("a/b", {"x": 1, "y": (1, 2)}, {"psnr": 3.0}, seconds=1.5, environment={"d": 1})
    expected = {"settings": {"x": 1, "y": [1, 2]}, "psnr": 3.0, "seconds": 1.5, "d": 1}
    assert ledger.read("a/b", {"x": 1, "y": (1, 2)}) == expected
    with pytest.raises(InputError, match=r"was made with `x` \(=1\), now it is 2"):
        ledger.read("a/b", {"x": 2})
    (tmp_path / "r" / "a" / "b.json").write_text('{"psnr": 3}')
    with pytest.raises(InputError, match="is damaged"):
        ledger.read("a/b", {})
