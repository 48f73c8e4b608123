"""docs/FILES.md names each key and column that the commands write."""

import csv
import functools
import json
import pathlib
import re

import numpy as np
import PIL.Image
import pytest

from experiments import command, dip, evaluate, lapsrn, networks
from tests.test_results import lines

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "FILES.md").read_text()
DIP, SEEDS, HISTORY, TRAINING, SCORES = (
    {name for line in lines(title, PAGE) for name in re.findall(r"`([a-z_…]+)`", line[0])}
    for title in (
        "`metrics.json` of `experiments.dip`",
        "Of several seeds",
        "`history.csv` of `experiments.dip`",
        "`metrics.json` and `history.csv` of `experiments.lapsrn`",
        "`scores.json` and `scores.csv`",
    )
)


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    small = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    monkeypatch.setattr(networks, "prior", small)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "data" / f"{i}.png")


def run(module, *args):
    assert command.main(module.Settings, module.run, args) == 0


def read(path):
    return json.loads(pathlib.Path(path).read_text()).keys()


def columns(path):
    with open(path, newline="") as file:
        return set(next(csv.reader(file)))


def test_a_fits_files():
    common = ("--task", "denoise", "--sigma", "25", "--hr", "data/0.png", "--iterations", "1")
    run(dip, *common, "--out", "one")
    keys = {name for name in read("one/metrics.json") if not name.startswith("psnr_y_at")}
    assert keys - {"tv"} == DIP - {"tv", "bicubic", "biharmonic"}
    assert columns("one/history.csv") == HISTORY
    run(dip, *common, "--seeds", "2", "--out", "two")
    assert read("two/metrics.json") - {"tv"} <= DIP | SEEDS
    assert read("two/metrics.json") >= SEEDS


def test_a_trainings_files():
    small = ("--epochs", "1", "--iterations", "1", "--depth", "1", "--patch", "32", "--batch", "1")
    run(lapsrn, "--data", "data", "--test", "data", *small, "--out", "net")
    assert read("net/metrics.json") == TRAINING
    (said,) = re.findall(r"one line per epoch: ([^.]*)\.", " ".join(PAGE.split()))
    assert columns("net/history.csv") == {*re.findall("`([a-z_]+)`", said)}


def test_scores():
    run(evaluate, "--data", "data", "--out", "scores")
    of_one = read("scores/scores.json")
    run(dip, "--hr", "data", "--iterations", "1", "--out", "fits")
    assert of_one | read("fits/scores.json") == SCORES - {"name", "file"}
    assert columns("scores/scores.csv") >= {"image", "psnr", "bicubic_psnr"}
