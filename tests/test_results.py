import json
import pathlib
import statistics

import pytest

from experiments import rows, tables
from experiments.ledger import Ledger

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIGURES = (("psnr", 3), ("ssim", 4))
TEXT = "\n".join((ROOT / "docs" / page).read_text() for page in ("RESULTS.md", "BEYOND.md"))
NAMES = {
    "Lanczos": "lanczos",
    "total variation, no network": "tv",
    "total variation": "tv",
    "DIP, MSE": "dip-mse",
    "DIP, Charbonnier": "dip-charbonnier",
    "DIP, MSE, seed 0": "dip-mse",
    "DIP, Charbonnier, seed 0": "dip-charbonnier",
    **{f"LapSRN, weights ({a},{b})": f"lapsrn-{a}-{b}" for a, b in ((1, 1), (2, 1), (1, 2))},
    **{f"LapSRN ({a},{b})": f"lapsrn-{a}-{b}" for a, b in ((1, 1), (2, 1), (1, 2))},
}


def lines(title, text=TEXT):
    """The lines of the first table below a title, as cells."""
    paragraphs = text.split(f"## {title}\n\n")[1].split("\n\n")
    table = next(part for part in paragraphs if part.startswith("|"))
    return [[x.strip() for x in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def mean(table, row, figure):
    """Over the images of a table, each the mean of its seeds."""
    images = [found for found in of_images(table, row) if found]
    return statistics.fmean(statistics.fmean(r[figure] for r in found) for found in images)


def of_images(table, row):
    """The records of each image of a table, by seed; of fits seed 0, which all images have."""
    ledger = Ledger(ROOT / "results" / "table1")
    seeds = "_seed0" if row in rows.DIP else "_seed[0-9]" if rows.seeded(row) else ""
    folder = f"{table}/{row}_reference" if row in rows.DIP else f"{table}/{row}"
    for image in tables.names_of(table):
        paths = ledger.paths(f"{folder}/{image}{seeds}")
        yield [ledger.read(f"{folder}/{path.stem}", {}) for path in paths]


@pytest.mark.parametrize("line", lines("As the paper computed each row"), ids=lambda x: x[0])
def test_the_papers_table_is_that_of_the_records(line):
    label, _, psnr, spread, ssim, *published = line
    row = NAMES.get(label, label)
    assert all(of_images("paper", row))
    assert psnr == f"{mean('paper', row, 'psnr'):.3f}"
    if row in rows.LAPSRN:
        seeds = zip(*of_images("paper", row), strict=True)
        means = [statistics.fmean(record["psnr"] for record in found) for found in seeds]
        assert spread == f"{statistics.stdev(means):.3f}"
    else:
        assert spread == ""
    assert ssim == f"{mean('paper', row, 'ssim'):.4f}".lstrip("0")
    if row in rows.PUBLISHED:
        theirs = rows.PUBLISHED[row]
        assert published[:2] == [f"{theirs[0]:.2f}", f"{theirs[1]:.4f}".lstrip("0")]
        beyond = [mean("paper", row, x) - y for x, y in zip(("psnr", "ssim"), theirs, strict=True)]
        assert published[2:] == [
            f"{beyond[0]:+.2f}",
            f"{beyond[1]:+.4f}".replace("0.", ".").replace("-.0000", ".0000"),
        ]


@pytest.mark.parametrize("line", lines("All rows under one protocol"), ids=lambda x: x[0])
def test_the_table_under_one_protocol_is_that_of_the_records(line):
    label, *told = line
    row = NAMES.get(label, label)
    of = [("standard", x) for x in ("psnr", "ssim", "psnr_rgb", "ssim_rgb")]
    of += [("set5", x) for x in ("psnr", "ssim")]
    if row in rows.DIP:
        assert told[:4] == ["missing", "", "", ""]
        found = [set5(row, image) for image in SET5]
        psnr, ssim = (statistics.fmean(record[x] for record in found) for x in ("psnr", "ssim"))
        assert told[4:] == [f"{psnr:.3f}", f"{ssim:.4f}".lstrip("0")]
        return
    for text, (table, figure) in zip(told, of, strict=True):
        digits = 3 if "psnr" in figure else 4
        assert text == f"{mean(table, row, figure):.{digits}f}".lstrip("0")


@pytest.mark.parametrize("line", lines("Results", README), ids=lambda x: x[0])
def test_readmes_table_is_that_of_the_records(line):
    label, *told = line
    row = NAMES.get(label, label)
    if label.startswith("LapSRN"):
        psnr, ssim = (under_paper_dip(label)["mean"][x] for x in ("psnr", "ssim_rgb"))
        row = None
    else:
        psnr, ssim = (mean("paper", row, x) for x in ("psnr", "ssim_rgb"))
    printed = f"{rows.PUBLISHED[row][0]:.2f}" if row in rows.PUBLISHED else ""
    assert told == [f"{psnr:.2f}", f"{ssim:.4f}".lstrip("0"), printed]


def under_paper_dip(label, seed=0):
    """A LapSRN on the paper's ten images."""
    path = "official/x4"
    if label != "LapSRN, original":
        path = f"lapsrn/again/x4_charbonnier_w{NAMES[label].removeprefix('lapsrn-')}_seed{seed}"
    record = json.loads((ROOT / "results" / f"{path}.json").read_text())
    return record["evaluation"]["the paper's ten images, paper-dip"]


def test_readmes_figures_are_those_of_the_pages():
    """Each of its rows on quality and on LapSRN's step, beside the tables that the records hold."""
    told = dict(lines("Measured", README))

    def of(start):
        (figure,) = (figure for what, figure in told.items() if what.startswith(start))
        return figure

    def column(title, number):
        return [line[number] for line in lines(title)]

    assert of("LapSRN, original").startswith(
        "{} dB, {};".format(*lines("LapSRN on other images")[-1][1:3])
    )
    set5 = {line[0]: line[5] for line in lines("All rows under one protocol")}
    mse, robust = set5["DIP, MSE"], set5["DIP, Charbonnier"]
    assert of("DIP, Set5, 4x").startswith(f"MSE {float(mse):.2f} dB, published 29.90")
    assert f"; Charbonnier {float(robust):.2f}" in of("DIP, Set5, 4x")
    ours, tv = (
        [f"{float(x):.2f}" for x in column("Noise on whole images", number)] for number in (3, 1)
    )
    said = f"{', '.join(ours)} dB; total variation {', '.join(tv)}"
    assert of("noise of sigma 25").startswith(said)
    biharmonic, average, _ = (float(x) for x in column("Missing pixels", 1))
    assert of("half of").startswith(f"{average:.2f} dB; biharmonic equation {biharmonic:.2f}")
    _, one, four = (float(x) for x in column("The mean of several seeds", 1))
    assert of("the mean of four").startswith(f"{four:.2f} dB; one seed {one:.2f} ±")
    path = ROOT / "benchmarks" / "results" / "2026-11-27_epyc-avx512-2-cores_cpu_lapsrn.json"
    (step,) = (x for x in json.loads(path.read_text())["results"] if x["work"] == "training")
    said = f"{step['images_per_second']:.1f} images/s, {step['ratio']:.2f} times PyTorch"
    assert of("LapSRN, one training step").startswith(said)


@pytest.mark.parametrize(
    "line", lines("Deep Image Prior, the cells on record"), ids=lambda x: f"{x[1]} {x[2]}"
)
def test_the_cells_of_deep_image_prior_are_those_of_the_records(line):
    image, label, seed, *told = line
    row = label.lower().replace(", ", "-")
    cell = f"paper/{row}_reference/{image}_seed{seed}"
    record = Ledger(ROOT / "results" / "table1").read(cell, {})
    history = record["history"]
    psnr = [history["psnr"][n // history["every"] - 1] for n in (500, 1000)]
    psnr.append(record["psnr"])
    fit = history["psnr_fit"][-1]
    assert history["every"] * len(history["psnr"]) == 2000
    expected = [f"{x:.3f}" for x in psnr] + [f"{record['ssim']:.4f}".lstrip("0")]
    assert told == [*expected, f"{record['psnr_y']:.3f}", f"{fit:.2f}"]


DIP_CELLS = lines("Deep Image Prior, the cells on record")
TEN = tables.names_of("paper")
OF_MSE = ("DIP, MSE", "total variation")


def test_all_cells_on_record_are_told():
    ledger = Ledger(ROOT / "results" / "table1")
    of_fits = [path for row in rows.DIP for path in ledger.paths(f"paper/{row}_reference/*")]
    assert len(of_fits) == len(DIP_CELLS) == len({tuple(line[:3]) for line in DIP_CELLS})
    assert tuple(dict.fromkeys(line[0] for line in DIP_CELLS)) == TEN


def after_title(title, table):
    """The lines of a table by its head, below a title."""
    text = TEXT.split(f"## {title}\n\n")[1]
    return lines("it", f"## it\n\n{text[text.index(f'| {table} |') :]}")


def of_one(row, image):
    return Ledger(ROOT / "results" / "table1").read(f"paper/{row}/{image}", {})


def test_what_stands_beside_the_cells():
    title = "Deep Image Prior, the cells on record"
    told = after_title(title, "image | bicubic: PSNR")
    assert tuple(line[0] for line in told) == TEN
    for image, *figures in told:
        assert figures == [*figures_of(of_one("bicubic", image)), *figures_of(of_one("tv", image))]
    found = {
        label: [of_one(cell.format(row), image + seed) for image in TEN]
        for label, row, cell, seed in (
            ("bicubic", "bicubic", "{}", ""),
            ("total variation", "tv", "{}", ""),
            ("DIP, MSE", "dip-mse", "{}_reference", "_seed0"),
            ("DIP, Charbonnier", "dip-charbonnier", "{}_reference", "_seed0"),
        )
    }
    names = ("psnr", "ssim", "ssim_rgb", "psnr_y")
    means = {
        label: {name: statistics.fmean(r[name] for r in records) for name in names}
        for label, records in found.items()
    }
    trained = [label for label in NAMES if label.startswith("LapSRN (")]
    means |= {label: under_paper_dip(label)["mean"] for label in (*trained, "LapSRN, original")}
    theirs, ours = (under_paper_dip(x) for x in ("LapSRN, original", "LapSRN (1,1)"))
    expected = [
        [label, *figures_of(x), f"{x['ssim_rgb']:.4f}".removeprefix("0")]
        for label, x in means.items()
    ]
    assert after_title(title, "of the ten, seed 0") == expected
    _, tv, mse, robust, *of_lapsrn, _ = (figures["psnr"] for figures in means.values())
    text = " ".join((README + TEXT).split())
    both = [(mean("paper", row, "psnr"), rows.PUBLISHED[row][0]) for row in rows.DIP]
    (low, printed), (high, theirs_high) = both
    told = f"MSE has {low:.2f} dB, {low - printed:.2f} more than printed, Charbonnier {high:.2f},"
    assert f"{told} {theirs_high - high:.2f} less" in text
    assert f"on average {robust:.2f} against {mse:.2f} dB on RGB; the paper prints 26.28" in text
    lapsrn = theirs["mean"]["psnr"]
    assert f"has {tv:.2f} dB and .8172 under" in text
    behind = [x["psnr"] < y["psnr"] for x, y in zip(*(found[z] for z in OF_MSE), strict=True)]
    on_y = [means[label]["psnr_y"] for label in OF_MSE]
    by = sorted(y["psnr"] - x["psnr"] for x, y in zip(*(found[z] for z in OF_MSE), strict=True))
    cells = (("dip-mse_reference", "16077_seed1"), ("tv", "16077"))
    other, flat = (of_one(*cell)["psnr"] for cell in cells)
    level = [mse_16077 := found["DIP, MSE"][TEN.index("16077")]["psnr"] - flat, other - flat]
    said = f"MSE ({mse:.2f} dB) is behind it on four of the ten images, by {by[-4]:.2f} to "
    said += (
        "{:.2f} dB, level with it on 16077 ({:.2f} and {:+.2f} dB with two seeds), and behind on"
    )
    assert sum(behind) == 5 and mse_16077 < 0 and by[-5] < 0.05
    assert said.format(by[-1], *level) in text
    assert "average on Y ({:.2f} against {:.2f} dB)".format(*on_y) in text
    lost = [
        x
        for x, a, b in zip(TEN, found["DIP, MSE"], found["bicubic"], strict=True)
        if a["psnr"] < b["psnr"]
    ]
    assert lost == ["16077", "106024"] and "on 16077 and 106024 it is behind bicubic, too" in text
    for baseline in ("bicubic", "total variation"):
        pairs = zip(found["DIP, Charbonnier"], found[baseline], strict=True)
        least = min(x["psnr"] - y["psnr"] for x, y in pairs)
        assert least > 0
    assert f"of total variation by {least:.2f} dB at least" in text
    names = ("DIP, Charbonnier", "LapSRN (1,1)", "DIP, MSE", "bicubic")
    at_1 = [f"{means[x]['ssim_rgb']:.4f}".lstrip("0") for x in names]
    said = "At range 1 Charbonnier has {} on the ten images, less than LapSRN's {} under the same "
    said += "protocol, and MSE {}, less than bicubic's {}."
    assert at_1[0] < at_1[1] and at_1[2] < at_1[3]
    assert said.format(*at_1) in text
    assert f"by {robust - mse:.2f} dB on average of the ten" in text
    said = "LapSRN has {:.2f} dB with weights (1,1), {:.2f} with (2,1) and {:.2f} with (1,2):"
    fits = dict(zip(TEN, found["DIP, Charbonnier"], strict=True))
    lead = [image["psnr"] - fits[image["name"]]["psnr"] for image in ours["images"]]
    ahead = f"(1,1) is {of_lapsrn[0] - robust:.2f} dB ahead of Charbonnier on average and"
    told = f"{said.format(*of_lapsrn)} {ahead} {min(lead):.2f} to {max(lead):.2f} image by image; "
    again = under_paper_dip("LapSRN (1,1)", seed=1)
    by = {image["name"]: image["psnr"] - fits[image["name"]]["psnr"] for image in again["images"]}
    least, next_, *_, most = sorted(by.values())
    told += f"with seed 1 by {again['mean']['psnr'] - robust:.2f} and {abs(least):.2f} to "
    told += f"{most:.2f}: on 86000 and 253027 ({abs(by['86000']):.2f} and {by['253027']:.2f}) the"
    told += " two are level. (1,2) is ahead on each with either seed (seed 1: {} dB, {} to {}), "
    told += "and so is (2,1) ({}, {} to {})."
    seed_1 = []
    for label in ("LapSRN (1,2)", "LapSRN (2,1)"):
        for seed in (0, 1):
            record = under_paper_dip(label, seed=seed)
            by_image = [x["psnr"] - fits[x["name"]]["psnr"] for x in record["images"]]
            assert min(by_image) > 0
        seed_1 += [f"{x:.2f}" for x in (record["mean"]["psnr"], min(by_image), max(by_image))]
    told = told.format(*seed_1)
    assert told in text and least > -0.005 and (least, next_) == (by["86000"], by["253027"])
    assert min(lead) > 0 and f"trained by the paper's recipe ({of_lapsrn[0]:.2f} dB) and" in text
    said = (
        f"it has {robust:.2f}, LapSRN {min(of_lapsrn):.2f} to {max(of_lapsrn):.2f}; on Set5 (`dip`"
    )
    of_recipe = [mean("set5", row, "psnr") for row in rows.LAPSRN]
    trained = f"{min(of_recipe):.2f} to {max(of_recipe):.2f}"
    robust_5 = mean("set5", "dip-charbonnier", "psnr")
    assert said in text and f"level on average: {robust_5:.2f}, and {trained}" in text
    assert f"has {robust_5:.2f} dB, LapSRN by the recipe {trained} (means of two" in text
    both = (of_images("set5", row) for row in ("dip-charbonnier", "lapsrn-1-1"))
    lead = [x[0]["psnr"] - y[0]["psnr"] for x, y in zip(*both, strict=True)]
    told = f"from {-min(lead):.2f} dB less to {max(lead):.2f} more than (1,1)"
    assert min(lead) < 0 and told in text
    lead = {image["name"]: image["psnr"] for image in theirs["images"]}
    lead = [lead[x] - fit["psnr"] for x, fit in zip(TEN, found["DIP, Charbonnier"], strict=True)]
    said = "has {:.2f} dB, {:.2f} more than Charbonnier on average and {:.2f} to {:.2f} image by"
    assert min(lead) > 0
    assert said.format(lapsrn, lapsrn - robust, min(lead), max(lead)) in text


def gains(image, seed):
    """Charbonnier's PSNR less MSE's after 500 iterations and at the end, and of the fit."""
    table, name = ("set5", "psnr_y") if image in SET5 else ("paper", "psnr")
    ledger, cell = Ledger(ROOT / "results" / "table1"), f"{image}_seed{seed}"
    mse, robust = (ledger.read(f"{table}/{row}_reference/{cell}", {}) for row in rows.DIP)
    after, before = robust["history"], mse["history"]
    early = after[name][500 // after["every"] - 1] - before[name][500 // before["every"] - 1]
    fit = after["psnr_fit"][-1] - before["psnr_fit"][-1]
    return early, robust["psnr"] - mse["psnr"], fit


def test_charbonnier_against_mse_image_by_image():
    told = lines("Charbonnier against MSE")
    both = [(line[0], line[2]) for line in DIP_CELLS if line[1] == "DIP, Charbonnier"]
    assert [(image, seed) for image, seed, *_ in told] == both + [(image, "0") for image in SET5]
    found = [gains(image, seed) for image, seed, *_ in told]
    assert [line[2:] for line in told] == [[f"{x:+.2f}" for x in values] for values in found]
    text = " ".join(TEXT.split())
    assert all(early > end > 0 for early, end, _ in found)  # "larger than at the end", "so far"
    least, most = (f"{pick(fit for *_, fit in found):.1f}" for pick in (min, max))
    assert f"it ends {least} to {most} dB closer to the low resolution" in text
    small = {line[0]: end for line, (_, end, _) in zip(told, found, strict=True) if end < 0.2}
    said = "On 253027 ({:.2f} dB), butterfly ({:.2f}) and 37073 ({:.2f}) that is less than the lead"
    assert said.format(*(small.pop(x) for x in ("253027", "butterfly", "37073"))) in text
    assert not small
    ends = {line[:2]: end for line, (_, end, _) in zip(map(tuple, told), found, strict=True)}
    leads = [ends["16077", seed] for seed in "01"]
    assert "two machines, give {:.2f} and {:.2f} dB.".format(*leads) in text
    assert leads[0] - leads[1] > 0.18
    for images, said in (
        (TEN, "{:.2f} dB on average of the ten (standard error {:.2f})"),
        (SET5, "{:.2f} of Set5 ({:.2f})"),
    ):
        gain = [ends[image, "0"] for image in images]
        assert (
            said.format(statistics.fmean(gain), statistics.stdev(gain) / len(gain) ** 0.5) in text
        )


@pytest.mark.parametrize("line", lines("Set5, the cells on record"), ids=lambda x: f"{x[0]} {x[1]}")
def test_the_cells_of_set5_are_those_of_the_records(line):
    image, label, seed, *told = line
    row = NAMES.get(label, label.lower().replace(", ", "-"))
    ledger = Ledger(ROOT / "results" / "table1")
    if row not in rows.DIP:
        cell = f"{image}_seed{seed}" if seed else image
        assert told == ["", "", *figures_of(ledger.read(f"set5/{row}/{cell}", {})), ""]
        return
    record = ledger.read(f"set5/{row}_reference/{image}_seed{seed}", {})
    history = record["history"]
    psnr = [history["psnr_y"][n // history["every"] - 1] for n in (500, 1000)]
    fit = history["psnr_fit"][-1]
    assert told == [*(f"{x:.3f}" for x in psnr), *figures_of(record), f"{fit:.2f}"]


SET5 = {"baby": 31.49, "bird": 31.80, "butterfly": 26.23, "head": 31.04, "woman": 28.93}  # of DIP


def set5(row, image):
    """A record of Set5, seed 0."""
    name = f"set5/{row}{'_reference' if row in rows.DIP else ''}/{image}_seed0"
    return Ledger(ROOT / "results" / "table1").read(name, {})


def listed(values):
    *most, last = (f"{x:.2f}" for x in values)
    return f"{', '.join(most)} and {last}"


def test_what_set5_says_of_losses():
    text = " ".join(TEXT.split())
    mse = {image: set5("dip-mse", image) for image in SET5}
    robust = {image: set5("dip-charbonnier", image) for image in SET5}
    gain = [x["psnr"] - mse[image]["psnr"] for image, x in robust.items()]
    assert f"and {statistics.fmean(gain):.2f} of Set5" in text
    means = (statistics.fmean(x["psnr"] for x in found.values()) for found in (robust, mse))
    assert "and of Set5 ({:.2f} against {:.2f} on Y)".format(*means) in " ".join(README.split())
    ours = statistics.fmean(record["psnr"] for record in mse.values())
    published = statistics.fmean(SET5.values())
    assert f"the mean of Set5 is {ours:.2f} dB where {published:.2f} is published" in text
    *most, last = (f"{SET5[image] - mse[image]['psnr']:.2f} ({image})" for image in SET5)
    assert f"published: {', '.join(most)} and {last} dB less." in text


def test_what_set5_says_of_lapsrn():
    text = " ".join(TEXT.split())
    over = {
        row: {image: set5(row, image)["psnr"] - set5("lapsrn-1-1", image)["psnr"] for image in SET5}
        for row in rows.DIP
    }
    means = [
        statistics.fmean(set5(row, image)["psnr"] for image in SET5)
        for row in ("lapsrn-1-1", "dip-charbonnier", "dip-mse")
    ]
    said = "LapSRN (1,1), seed 0, has {:.2f} dB, Charbonnier {:.2f}, MSE {:.2f}."
    assert said.format(*means) in text
    mse, robust = (over[row].pop("butterfly") for row in rows.DIP)
    assert f"by {mse:.2f} (MSE) and {robust:.2f} dB (Charbonnier) over LapSRN (1,1)" in text
    mse, robust = (
        ", ".join(f"{x:+.2f} ({image})" for image, x in over[row].items()) for row in rows.DIP
    )
    assert f"Charbonnier against LapSRN (1,1): {robust}; MSE: {mse}." in text


OF_LAPSRN = ("Set5, standard", "BSDS300 test, standard", "the paper's ten images, paper-lapsrn")
ABLATIONS = {
    "LapSRN (1,1), MSE": "lapsrn/x4_mse_w1-1_seed0",
    "LapSRN (1,1), no residual": "lapsrn/x4_charbonnier_w1-1_direct_seed0",
    "LapSRN (1), no pyramid": "lapsrn/x4_charbonnier_w1_jump_seed0",
}


@pytest.mark.parametrize("line", lines("LapSRN on other images"), ids=lambda x: x[0])
def test_lapsrn_is_that_of_the_records(line):
    """Trained here and by its authors; bicubic stands in each record."""
    label, *told = line
    paths = {
        "bicubic": "lapsrn/x4_charbonnier_w1-1_seed0",
        "the original": "official/x4",
        **ABLATIONS,
        **{
            f"LapSRN ({a},{b}){label}": f"lapsrn/x4_charbonnier_w{a}-{b}_seed{seed}"
            for a, b in ((1, 1), (2, 1), (1, 2))
            for seed, label in enumerate(("", ", seed 1"))
        },
    }
    record = json.loads((ROOT / "results" / f"{paths[label]}.json").read_text())
    for i, name in enumerate(OF_LAPSRN):
        mean = record["evaluation"].get(name, {"mean": None})["mean"]
        if mean is None:
            assert (label, told[2 * i : 2 * i + 2]) == ("the original", ["", ""])
            continue
        mean = mean["bicubic"] if label == "bicubic" else mean
        assert told[2 * i : 2 * i + 2] == figures_of(mean)


@pytest.mark.parametrize("label", ABLATIONS)
def test_what_a_part_brings_to_lapsrn_is_that_of_the_records(label):
    whole, without = (
        json.loads((ROOT / "results" / f"{path}.json").read_text())["evaluation"]
        for path in ("lapsrn/x4_charbonnier_w1-1_seed0", ABLATIONS[label])
    )
    lost = [whole[name]["mean"]["psnr"] - without[name]["mean"]["psnr"] for name in OF_LAPSRN]
    said = ", ".join(f"{x:+.2f}".replace("-0.00", "0.00").replace("+0.00", "0.00") for x in lost)
    assert said in " ".join(TEXT.split())


def test_level_weights_differ_as_told():
    first, second, finer = (mean("paper", row, "psnr") for row in rows.LAPSRN)
    text = " ".join(TEXT.split())
    assert f"gives {finer - first:.2f} dB more than (1,1) and {finer - second:.2f} more" in text
    for name in OF_LAPSRN:
        found = {}
        for weights in ("1-1", "2-1", "1-2"):
            paths = (ROOT / "results" / "lapsrn").glob(f"x4_charbonnier_w{weights}_seed?.json")
            means = [json.loads(path.read_text())["evaluation"][name]["mean"] for path in paths]
            found[weights] = [figures["psnr"] for figures in means]
            assert len(means) == 2
        assert min(found["1-2"]) > max(found["1-1"] + found["2-1"])


def test_the_original_lapsrn_is_that_of_the_records():
    found = {
        x: json.loads((ROOT / "results" / "official" / f"{x}.json").read_text())["evaluation"]
        for x in ("x4", "x2")
    }
    of_eight = figures_of(found["x4"]["Set5, standard, self-ensemble"]["mean"])
    twice = found["x2"]["Set5, standard"]["mean"]
    text = " ".join(TEXT.split())
    assert "`--self-ensemble` the original has {} and {} on Set5".format(*of_eight) in text
    said = "for 2x the original has {} and {} (bicubic {}, {})"
    assert said.format(*figures_of(twice), *figures_of(twice["bicubic"])) in text


def figures_of(record):
    """PSNR and SSIM as the pages have them."""
    return [f"{record[name]:.{digits}f}".removeprefix("0") for name, digits in FIGURES]


def test_butterflies_are_those_of_the_records():
    paths = sorted((ROOT / "results" / "dip").glob("butterfly_x4_charbonnier_seed?.json"))
    records = [json.loads(path.read_text()) for path in paths]
    *told, mean = [line[1:] for line in lines("Set5's butterfly under the published protocol")]
    expected = [[f"{x['psnr']:.2f}", f"{x['ssim']:.4f}".removeprefix("0")] for x in records]
    assert told == expected
    average = {x: statistics.fmean(record[x] for record in records) for x in ("psnr", "ssim")}
    assert mean == [f"{average['psnr']:.2f}", f"{average['ssim']:.4f}".removeprefix("0")]
    bicubic = records[0]["bicubic"]
    said = f"Bicubic has {bicubic['psnr']:.2f} dB and {bicubic['ssim']:.4f}".replace(" 0.", " .")
    assert said in TEXT


def test_missing_pixels_are_those_of_the_record():
    record = json.loads((ROOT / "results/dip/butterfly_inpaint_missing0.5_seed0.json").read_text())
    told = [line[1:] for line in lines("Missing pixels")]
    found = [record["biharmonic"], record, record["last"]]
    assert told == [[f"{x['psnr']:.3f}", f"{x['ssim']:.4f}".lstrip("0")] for x in found]
    assert record["iterations"] == 1500


@pytest.mark.parametrize(
    ("name", "columns", "stages"),
    [
        ("butterfly128_deblur_sigma5_seed0", slice(1, 3), "blur 1.6; sigma 5"),
        ("butterfly128_deblur_disk_sigma5_seed0", slice(3, 5), "sigma 5; blur kernel disk.npy"),
    ],
)
def test_blur_and_noise_are_those_of_the_records(name, columns, stages):
    record = json.loads((ROOT / "results" / "dip" / f"{name}.json").read_text())
    found = [figures_of(x) for x in (record["tv"], record)]
    assert [line[columns] for line in lines("Blur and noise")] == found
    under = record["psnr_at_the_peak_oracle"] - record["psnr_at_the_stop"]
    stop = f"at iteration {record['stopped_at']} of {record['iterations']}, {under:.2f} dB under"
    said = " ".join(TEXT.split())
    assert stop in said and record["commit"] in said
    assert record["protocol_description"].endswith(stages)


@pytest.mark.parametrize("line", lines("Seven losses on one image"), ids=lambda x: x[0])
def test_losses_are_those_of_the_record(line):
    path = ROOT / "benchmarks" / "results" / "2026-11-24_epyc-avx512-2-cores_cpu_losses.json"
    record = json.loads(path.read_text())
    loss, *told = line
    figures, speed = record["summary"][loss], record["speeds"][loss]
    decibels = [figures[f"psnr_{x}"] for x in (250, 500, 1000, 2000, "output")]
    expected = [f"{x['mean']:.2f} ± {x['spread']:.2f}" for x in decibels]
    reached = figures["iterations_to_level"]
    expected += [f"{reached['mean']:.0f} ± {reached['spread']:.0f}"]
    expected += [f"{speed['iterations_per_second']:.2f} ± {speed['spread']:.2f}"]
    assert told == expected


def corrupted(corruption):
    """Of each loss: PSNR and iteration at the peak, PSNR after the last iteration."""
    figures = ("psnr", "psnr_peak", "psnr_peak_iteration")
    ledger = Ledger(ROOT / "results" / "robustness", figures=figures)
    alike = {"iterations": 1000, "seed": 0}
    names = ("mse", "l1", "charbonnier", "huber", "general-1.5", "general-0.5", "general-0")
    return [ledger.read(f"coffee/{corruption}/{loss}_seed0", alike) for loss in names]


@pytest.mark.parametrize("line", lines("Is the robust loss robust?"), ids=lambda x: x[0])
def test_peaks_of_corrupted_fits_are_those_of_the_ledger(line):
    corruption, *told = line
    found = corrupted(corruption)
    assert told == [f"{x['psnr_peak']:.2f} ({x['psnr_peak_iteration']:.0f})" for x in found]


@pytest.mark.parametrize("line", lines("After the last iteration"), ids=lambda x: x[0])
def test_ends_of_corrupted_fits_are_those_of_the_ledger(line):
    corruption, *told = line
    assert told == [f"{x['psnr']:.2f}" for x in corrupted(corruption)]


def test_whole_images_are_those_of_the_records():
    told = {line[0]: line[1:] for line in lines("Noise on whole images")}
    records = {
        path.name.partition("_")[0]: json.loads(path.read_text())
        for path in (ROOT / "results" / "dip").glob("*_denoise_sigma25_seed0.json")
        if "128" not in path.name
    }
    assert told.keys() == records.keys()
    text = " ".join(TEXT.split())
    for image, record in records.items():
        figures = [f"{x[y]:.{d}f}" for x in (record["tv"], record) for y, d in FIGURES]
        under = record["psnr_at_the_peak_oracle"] - record["psnr_at_the_stop"]
        fit = [record["stopped_at"], record["iterations"], f"{under:.2f}"]
        fit.append(f"{record['psnr_at_the_end']:.2f}")
        assert told[image] == [*(x.removeprefix("0") for x in figures), *map(str, fit)]
        assert f"{record['psnr'] - record['tv']['psnr']:.1f} dB ahead for {image}" in text


def test_the_demo_is_that_of_the_record():
    record = json.loads((ROOT / "results/dip/coffee_x4_charbonnier_seed0.json").read_text())
    text = " ".join((ROOT / "README.md").read_text().split())
    psnr, base = record["psnr"], record["bicubic"]["psnr"]
    assert f"Expect {psnr:.2f} dB, {psnr - base:.2f} over bicubic's {base:.2f} (RGB;" in text
    assert f"at {record['iterations_per_second']:.1f} iterations a second" in text
    assert record["device"]["vectors"] == "AVX-512" and f"commit {record['commit']};" in text
    assert 2.5 < record["seconds"] / 60 < 3.5 and "after three minutes" in text


@pytest.mark.parametrize("line", lines("Related work, by the same recipe"), ids=lambda x: x[0])
def test_related_networks_are_those_of_the_records(line):
    name, parameters, speed, *told = line
    path = ROOT / "benchmarks" / "results" / "2026-11-27_epyc-avx512-2-cores_cpu_related.json"
    results = {x["network"]: x for x in json.loads(path.read_text())["results"]}
    assert parameters == f"{results[name.lower()]['parameters']:,}"
    assert speed == f"{results[name.lower()]['megapixels_per_second']:.3g}"
    trained = {
        "LapSRN": "lapsrn/x4_charbonnier_w1-1_seed0",
        "SRCNN": "srcnn/x4_charbonnier_seed0",
        "FSRCNN": "fsrcnn/x4_charbonnier_seed0",
        "VDSR": "vdsr/x4_charbonnier_seed0",
    }
    if name not in trained:
        assert told == ["missing", "", "", ""]
        return
    record = json.loads((ROOT / "results" / f"{trained[name]}.json").read_text())
    means = [record["evaluation"][f"{x}, standard"]["mean"] for x in ("Set5", "BSDS300 test")]
    assert told == [f"{x[y]:.{d}f}".removeprefix("0") for x in means for y, d in FIGURES]


@pytest.mark.parametrize("line", lines("The prior's impedance"), ids=lambda x: x[0])
def test_impedance_is_that_of_the_records(line):
    what, *told = line
    ledger = Ledger(ROOT / "results" / "impedance", figures=("loss",))
    record = ledger.read(f"coffee/{what.replace(' ', '-')}_seed0", {"iterations": 2000})
    every, losses = (record["history"][name] for name in ("every", "loss"))
    expected = [f"{losses[n // every - 1]:.5f}" for n in (100, 500, 1000, 2000)]
    below = next(i for i, loss in enumerate(losses, start=1) if loss < 0.001)
    assert told == [*expected, str(every * below)]


def test_the_mean_of_seeds_is_that_of_the_record():
    path = ROOT / "results" / "dip" / "butterfly128_denoise_sigma25_seeds4.json"
    record = json.loads(path.read_text())
    one = {name: record[f"{name}_of_one"]["mean"] for name in ("psnr", "ssim")}
    told = [line[1:] for line in lines("The mean of several seeds")]
    assert told == [
        [f"{x['psnr']:.3f}", f"{x['ssim']:.4f}".lstrip("0")] for x in (record["tv"], one, record)
    ]
    text = " ".join(TEXT.split())
    stops = "{}, {}, {} and {} iterations".format(*record["stopped_at"])
    gain, spread = record["psnr"] - one["psnr"], record["psnr_of_one"]["deviation"]
    assert stops in text and f"gains {gain:.2f} dB over one (whose deviation over seeds is" in text
    assert f"over seeds is {spread:.2f})" in text and f"is {record['spread_rms']:.3f} (" in text


def test_the_mean_of_seeds_of_a_low_resolution_is_that_of_the_record():
    path = ROOT / "results" / "dip" / "coffee_x4_charbonnier_seeds4.json"
    record = json.loads(path.read_text())
    one = {name: record[f"{name}_of_one"]["mean"] for name in ("psnr", "ssim")}
    told = [line[1:] for line in after_title("The mean of several seeds", "super-resolution, 4x")]
    assert told == [figures_of(x) for x in (record["bicubic"], one, record)]
    gain = record["psnr"] - one["psnr"]
    assert f"For super-resolution it gains less, {gain:.2f} dB:" in " ".join(TEXT.split())


@pytest.mark.parametrize("line", lines("Noise, and where to stop"), ids=lambda x: x[0])
def test_stops_are_those_of_the_record(line):
    folder = ROOT / "results" / "dip"
    figures = json.loads((folder / "stopping_sigma25.json").read_text())
    runs = {
        crop: json.loads((folder / f"{crop}128_denoise_sigma25_seed0.json").read_text())
        for crop in figures["runs"]
    }
    if line[0] == "mean":
        stop = figures["mean"] | {"iterations": 5000}
        tv = statistics.fmean(run["tv"]["psnr"] for run in runs.values())
    else:
        stop, tv = figures["runs"][line[0]], runs[line[0]]["tv"]["psnr"]
        peak = runs[line[0]]["psnr_at_the_peak_oracle"]
        assert stop["psnr_peak"] == pytest.approx(peak, abs=1e-4)
    saved = f"{100 * (1 - stop['ended'] / stop['iterations']):.0f} %"
    decibels = [f"{stop[x]:.2f}" for x in ("psnr", "psnr_end", "psnr_peak")] + [f"{tv:.2f}"]
    assert line[1:] == [f"{stop['found']:.0f}", f"{stop['ended']:.0f}", saved, *decibels]
