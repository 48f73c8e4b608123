"""What docs/RESULTS.md says of curves, computed anew from the records' histories."""

import json
import pathlib
import statistics

import numpy as np
import pytest

from experiments import rows, tables
from experiments.ledger import Ledger

ROOT = pathlib.Path(__file__).parents[1]
TEXT = " ".join((ROOT / "docs" / "RESULTS.md").read_text().split())
LEDGER = Ledger(ROOT / "results" / "table1")
FITS = [("paper", image, 0, "psnr_output") for image in tables.names_of("paper")]
FITS += [("paper", "16077", 1, "psnr_output")]
FITS += [("set5", image, 0, "psnr_y_output") for image in tables.names_of("set5")]
EVERY = 10  # iterations between two numbers of a history


def curves(fit):
    """PSNR of MSE's and of Charbonnier's output, after 10, 20 ... 2000 iterations."""
    table, image, seed, name = fit
    records = [LEDGER.read(f"{table}/{row}_reference/{image}_seed{seed}", {}) for row in rows.DIP]
    assert {record["history"]["every"] for record in records} == {EVERY}
    return [np.array(record["history"][name]) for record in records]


def test_when_charbonnier_is_where_mse_ends():
    reached = []
    for fit in FITS:
        mse, robust = curves(fit)
        level = mse[-200 // EVERY :].mean()
        reached.append(EVERY * next(i for i, x in enumerate(robust, start=1) if x >= level))
    said = f"after {min(reached)} to {max(reached)} iterations, median {np.median(reached):.0f}"
    assert said in TEXT


def test_how_much_both_still_rise():
    rise = {table: [] for table in ("paper", "set5")}
    for fit in (fit for fit in FITS if fit[2] == 0):
        rise[fit[0]].append([x[-10:].mean() - x[145:155].mean() for x in curves(fit)])
    (mse, robust), (mse5, robust5) = (np.mean(x, axis=0) for x in rise.values())
    said = f"iterations MSE by {mse:.2f} dB (the ten) and {mse5:.2f} (Set5), Charbonnier by"
    assert f"{said} {robust:.2f} and {robust5:.2f}." in TEXT


def test_how_much_they_vary_from_image_to_image():
    ten = [[x - x[-1] for x in curves(fit)] for fit in FITS if fit[:3:2] == ("paper", 0)]
    mse, robust = np.std(ten, axis=0, ddof=1)
    after = [(mse[n // EVERY - 1], robust[n // EVERY - 1]) for n in (500, 1000, 1500)]
    said = "deviate by {:.2f} dB (MSE) and {:.2f} (Charbonnier) after 500 iterations, {:.2f} and "
    said += "{:.2f} after 1000, {:.2f} and {:.2f} after 1500"
    assert len(ten) == 10 and said.format(*(x for pair in after for x in pair)) in TEXT


def test_how_much_they_vary_along_a_fit():
    steps = {table: [] for table in ("paper", "set5")}
    for fit in FITS:
        steps[fit[0]].append([np.diff(x[-1000 // EVERY :]).std() for x in curves(fit)])
    calmer = {table: sum(robust < mse for mse, robust in x) for table, x in steps.items()}
    assert calmer == {"paper": 9, "set5": 4}
    (mse, robust), (mse5, robust5) = (np.mean(x, axis=0) for x in steps.values())
    assert f"deviate by {mse:.3f} and {robust:.3f} dB on average of 11 fits" in TEXT
    assert f"with Charbonnier, and by {mse5:.3f} and {robust5:.3f} on Set5 (4 of 5)" in TEXT


@pytest.mark.parametrize(
    "label, cell",
    [
        ("bicubic", "bicubic/16077"),
        ("total variation", "tv/16077"),
        ("LapSRN (1,1), seed 0", "lapsrn-1-1/16077_seed0"),
        ("DIP, MSE", "dip-mse_reference/16077_seed0"),
        ("DIP, Charbonnier", "dip-charbonnier_reference/16077_seed0"),
    ],
)
def test_one_image_under_standard(label, cell):
    record = LEDGER.read(f"standard/{cell}", {})
    names = (("psnr", 3), ("ssim", 4), ("psnr_rgb", 3), ("ssim_rgb", 4))
    told = " | ".join(f"{record[x]:.{digits}f}".removeprefix("0") for x, digits in names)
    assert f"| {label} | {told} |" in TEXT


def test_what_the_fits_cost():
    def hours(pattern):
        paths = (ROOT / "results").glob(pattern)
        return statistics.fsum(json.loads(x.read_text())["seconds"] for x in paths) / 3600

    assert f"{hours('table1/paper/dip-*/*.json'):.1f} hours of a core |" in TEXT
    assert f"{hours('table1/set5/dip-*/*.json'):.1f} hours of a core for ten |" in TEXT
    told = (
        f"{hours('robustness/*/*/*.json'):.1f} hours of a core; {hours('impedance/*/*.json'):.1f}"
    )
    assert told in TEXT
