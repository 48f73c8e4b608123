"""What docs/RESULTS.md says of curves, computed anew from the records' histories."""

import json
import pathlib
import statistics

import numpy as np

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
    reached, shares = [], []
    for fit in FITS:
        both = curves(fit)
        level = both[0][-200 // EVERY :].mean()
        mse, robust = (EVERY * next(i for i, x in enumerate(y, 1) if x >= level) for y in both)
        reached.append(robust)
        shares.append(robust / mse)
    said = f"after {min(reached)} to {max(reached)} iterations, median {np.median(reached):.0f} "
    said += f"({len(FITS)} fits): {min(shares):.2f} to {max(shares):.2f}, in the median "
    assert f"{said}{np.median(shares):.2f}, of what MSE itself needs" in TEXT


def test_how_much_both_still_rise():
    rise = {table: [] for table in ("paper", "set5")}
    for fit in (fit for fit in FITS if fit[2] == 0):
        ends = [x[-500 // EVERY :] for x in curves(fit)]
        lines = [np.polynomial.Polynomial.fit(range(0, 500, EVERY), end, 1) for end in ends]
        rise[fit[0]].append([line(500) - line(0) for line in lines])
    (mse, robust), (mse5, robust5) = (np.mean(x, axis=0) for x in rise.values())
    said = f"through them, MSE by {mse:.2f} dB (the ten) and {mse5:.2f} (Set5), Charbonnier by"
    assert f"{said} {robust:.2f} and {robust5:.2f}." in TEXT


def test_how_much_they_vary_from_image_to_image():
    ten = [[x - x[-1] for x in curves(fit)] for fit in FITS if fit[:3:2] == ("paper", 0)]
    mse, robust = np.std(ten, axis=0, ddof=1)
    after = [(mse[n // EVERY - 1], robust[n // EVERY - 1]) for n in (500, 1000, 1500)]
    said = "deviate by {:.2f} dB (MSE) and {:.2f} (Charbonnier) after 500 iterations, {:.2f} and "
    said += "{:.2f} after 1000, {:.2f} and {:.2f} after 1500"
    assert len(ten) == 10 and said.format(*(x for pair in after for x in pair)) in TEXT
    left, left_robust = np.mean(ten, axis=0)
    alike = [np.argmax(left_robust >= left[n // EVERY - 1]) for n in (500, 1000, 1500)]
    said = "to go as MSE then (at {}, {} and {}) it is {:.2f}, {:.2f} and {:.2f}."
    assert said.format(*(EVERY * (i + 1) for i in alike), *robust[alike]) in TEXT


def test_two_weights_paired_by_seed():
    """(2,1) against (1,1), from the same first weights and patches."""
    gains, ahead, others, ten_images = [], [], [], tables.names_of("paper")
    for seed in (0, 1):
        cells = [[f"paper/lapsrn-{w}/{x}_seed{seed}" for x in ten_images] for w in ("2-1", "1-1")]
        ten = [[LEDGER.read(cell, {})["psnr"] for cell in row] for row in cells]
        gains.append(np.subtract(*ten).mean())
        paths = [f"lapsrn/x4_charbonnier_w{w}_seed{seed}.json" for w in ("2-1", "1-1")]
        texts = [(ROOT / "results" / path).read_text() for path in paths]
        found = [json.loads(text)["evaluation"]["BSDS300 test, standard"] for text in texts]
        test = np.subtract(*([image["psnr"] for image in x["images"]] for x in found))
        others.append(test.mean())
        ahead.append(int((test > 0).sum()))
    said = (
        "by {:.2f} and {:.2f} dB on the ten and {:.2f} and {:.2f} on the test images, on {} and {}"
    )
    assert len(test) == 100 and said.format(*gains, *others, *ahead) in TEXT


def test_when_losses_are_above_bicubic_by_seed():
    """Each loss's iterations over MSE's; the one that does not end ahead."""
    path = ROOT / "benchmarks/results/2026-11-24_epyc-avx512-2-cores_cpu_losses.json"
    cells = json.loads(path.read_text())["cells"]
    said = []
    for seed in (0, 1):
        needed = {
            cell["loss"]: cell["iterations_to_level"] for cell in cells if cell["seed"] == seed
        }
        shares = [n / needed["mse"] for loss, n in needed.items() if loss != "mse"]
        said += [min(shares), max(shares)]
    told = (
        "needs {:.2f} to {:.2f} of MSE's iterations to be 1 dB over bicubic with seed 0, {:.2f} to "
    )
    assert (told + "{:.2f} with seed 1").format(*said) in TEXT
    other = ROOT / "benchmarks/results/2026-11-24_epyc-2-cores_cpu_losses.json"
    ends = {k: v["psnr_2000"]["mean"] for k, v in json.loads(other.read_text())["summary"].items()}
    behind = {loss: ends["mse"] - end for loss, end in ends.items() if end < ends["mse"]}
    assert behind.keys() == {"general-0.5"}
    assert f"general-0.5 ends {behind['general-0.5']:.2f} dB behind" in TEXT


def test_how_much_they_vary_along_a_fit():
    steps = {table: [] for table in ("paper", "set5")}
    for fit in FITS:
        steps[fit[0]].append([np.diff(x[-1000 // EVERY :]).std() for x in curves(fit)])
    calmer = {table: sum(robust < mse for mse, robust in x) for table, x in steps.items()}
    assert calmer == {"paper": 9, "set5": 4}
    (mse, robust), (mse5, robust5) = (np.mean(x, axis=0) for x in steps.values())
    assert f"deviate by {mse:.3f} and {robust:.3f} dB on average of 11 fits" in TEXT
    assert f"with Charbonnier, and by {mse5:.3f} and {robust5:.3f} on Set5 (4 of 5)" in TEXT


UNDER_STANDARD = (
    *("bicubic/{}", "tv/{}", "lapsrn-1-1/{}_seed0"),
    *("dip-mse_reference/{}_seed0", "dip-charbonnier_reference/{}_seed0"),
)


def test_the_images_under_standard():
    table = TEXT.split("| `standard`: PSNR (Y), SSIM |")[1].split("## LapSRN")[0]
    images = [path.stem.removesuffix("_seed0") for path in LEDGER.paths("standard/dip-mse*/*")]
    assert [path.stem for path in LEDGER.paths("standard/dip-charbonnier_reference/*")] == [
        f"{image}_seed0" for image in images
    ]
    told, psnr = [], {}
    for image in images:
        found = [LEDGER.read(f"standard/{cell.format(image)}", {}) for cell in UNDER_STANDARD]
        psnr[image] = [record["psnr"] for record in found]
        cells = (f"{x['psnr']:.3f}, {x['ssim']:.4f}".replace(" 0.", " .") for x in found)
        told.append(f"| {image} | {' | '.join(cells)} |")
    assert all(line in table for line in told)
    lead = {image: np.subtract(x[4], x) for image, x in psnr.items()}
    _, tv, lapsrn, mse, _ = zip(*lead.values(), strict=True)
    said = "Charbonnier beats MSE, by {:.2f} to {:.2f} dB of luma, and total variation, by {:.2f}"
    assert said.format(min(mse), max(mse), min(tv)) + f" to {max(tv):.2f}." in TEXT
    behind = [image for image, x in lead.items() if x[2] > 0]
    ahead = [-x for x in lapsrn if x < 0]
    said = "is {:.2f} to {:.2f} dB ahead of it on three, and {:.2f} behind on 37073."
    assert said.format(min(ahead), max(ahead), lead["37073"][2]) in TEXT
    assert behind == ["37073"] and len(ahead) == 3


def test_what_the_fits_cost():
    def hours(pattern):
        paths = (ROOT / "results").glob(pattern)
        return statistics.fsum(json.loads(x.read_text())["seconds"] for x in paths) / 3600

    assert f"{hours('table1/paper/dip-*/*.json'):.1f} hours of a core |" in TEXT
    assert f"{hours('table1/set5/dip-*/*.json'):.1f} hours for ten |" in TEXT
    told = (
        f"{hours('robustness/*/*/*.json'):.1f} hours of a core; {hours('impedance/*/*.json'):.1f}"
    )
    assert told in TEXT
