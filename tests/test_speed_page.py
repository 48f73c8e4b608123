"""The tables of docs/SPEED.md against the records in benchmarks/results."""

import json
import pathlib
import re

import numpy as np
import pytest

from tests.test_results import lines

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "SPEED.md").read_text()
PEERS = ("eager", "eager-channels-last", "compile", "compile-channels-last")
PRECISIONS = ("bfloat16", "float32")
WAYS = ("ours", "winograd", "im2col", "lax outside", "lax in a loop", "PyTorch eager")


def record(name, machine="2026-11-23_epyc-2-cores"):
    path = ROOT / "benchmarks" / "results" / f"{machine}_cpu_{name}.json"
    return json.loads(path.read_text())


NEWER = "2026-11-25_epyc-avx512-2-cores"
NEWEST = "2026-11-26_epyc-avx512-2-cores"
LATEST = "2026-11-27_epyc-avx512-2-cores"
XEON = "2026-11-28_xeon-avx512-2-cores"
XEON_LATER = "2026-11-29_xeon-avx512-2-cores"

OLDER = record("suite")["parts"]
SUITE = record("suite", LATEST)["parts"]
DIP = record("dip", LATEST)["results"]
MEMORY = record("memory", LATEST)["results"]
SIZES = record("sizes", LATEST)["parts"]["sizes"]


def row(part, name, suite=SUITE):
    (found,) = (x for x in suite[part]["results"] if x["name"] == name)
    return found


def over_eager(results):
    return [
        x["peers"]["eager"]["seconds_per_iteration"] / x["ours_seconds_per_iteration"]
        for x in results
    ]


def assert_row(found, ours, megapixel, theirs):
    assert ours == f"{found['ours_seconds_per_iteration']:.4f}"
    assert megapixel == f"{found['seconds_per_megapixel']:.1f}"
    if found["peers"]:
        peers = [f"{found['peers'][x]['seconds_per_iteration']:.3f}" for x in PEERS]
        assert theirs == [*peers, f"{found['ratio']:.2f}"]
    else:
        assert not any(theirs)


AHEAD = json.loads((ROOT / "benchmarks" / "results" / "2026-11-28_h200_ahead.json").read_text())


@pytest.mark.parametrize("line", lines("What a GPU would be given", PAGE), ids=lambda x: x[0])
def test_counts_ahead(line):
    name = line[0].replace("LapSRN's training", "lapsrn training").replace("DIP", "dip")
    name = name.replace(",", "").replace("TF32", "tf32")
    (found,) = (x for x in AHEAD["results"] if x["name"] == f"ahead {name}")
    gbytes = found["gbytes"], found["gbytes_of_convolutions"], found["memory_bytes"] / 1e9
    counts = str(found["kernels"]), str(found["convolutions"])
    assert line[1:] == [*counts, *(f"{number:.2f}" for number in gbytes)]


def test_what_the_counts_ahead_say():
    by_name = {x["name"].removeprefix("ahead "): x for x in AHEAD["results"]}
    assert f"at least {by_name['dip 320x480 tf32']['gbytes'] / 4.8:.1f} ms" in PAGE
    for counted in ("gbytes", "memory_bytes"):
        small, large = (by_name[f"dip {size} tf32"][counted] for size in ("320x480", "2048x2048"))
        assert 0.75 < large / small * (320 * 480 / 2048**2) < 1.25


def test_on_an_intel_xeon():
    made = record("dip", XEON)
    (found,) = made["results"]
    (line,) = lines("On an Intel Xeon", PAGE)
    assert made["environment"]["commit"] == "eab5204+"
    size, ours, megapixel, *theirs = line
    assert size == found["size"]
    assert_row(found, ours, megapixel, theirs)
    text = " ".join(PAGE.split())
    assert "commit eab5204 and what was changed after it, the `+` of the record" in text
    (other,) = (x for x in DIP if x["size"] == size)
    longer = found["ours_seconds_per_iteration"] / other["ours_seconds_per_iteration"]
    assert f"needs {longer:.1f} times as long as the AMD one" in text
    assert f"The ratio's spread is {found['ratio_spread']:.2f}." in text
    (before,) = record("dip-dec4f2d", XEON)["results"]
    said = "ours took {:.4f} s and the peers {:.2f} times as long at their best, {:.2f} as eager"
    seconds, best = before["ours_seconds_per_iteration"], before["ratio"]
    assert said.format(seconds, best, *over_eager([before])) in text
    was, now = (
        np.array([x["peers"][peer]["seconds_per_iteration"] for peer in PEERS])
        for x in (before, found)
    )
    few, many = min(was / now), max(was / now)
    assert f"by factors of {few:.1f} to {many:.1f} between these hours" in text


@pytest.mark.parametrize("line", lines("Deep Image Prior", PAGE), ids=lambda x: x[0])
def test_sizes(line):
    size, ours, megapixel, *theirs = line
    alone = [*SIZES["results"], MEMORY[0] | {"peers": {}}]
    (found,) = (x for x in [*DIP, *alone] if x["size"] == size)
    assert_row(found, ours, megapixel, theirs)


@pytest.mark.parametrize("line", lines("Without AVX-512", PAGE), ids=lambda x: x[0])
def test_sizes_without_avx512(line):
    size, ours, megapixel, *theirs = line
    part = "dip" if theirs[-1] else "sizes"
    assert_row(row(part, f"dip {size} charbonnier float32", OLDER), ours, megapixel, theirs)


def test_readmes_speeds():
    told = [figure for _, figure in lines("Measured", (ROOT / "README.md").read_text())]
    said = "128x128: {:.2f} iterations/s, {:.2f} times PyTorch eager; 320x480: {:.2f}, {:.2f} times"
    rates = [found["iterations_per_second"] for found in DIP]
    (small, large), ratios = rates, over_eager(DIP)
    assert told[0].startswith(said.format(small, ratios[0], large, ratios[1]))
    starts = [x["ours_seconds_per_start"] for x in record("compiling", LATEST)["results"]]
    assert told[1].startswith("{:.1f} s, with the cache of an earlier run {:.1f} s".format(*starts))


def test_text():
    text = " ".join(PAGE.split())
    eager = [f"{x:.2f}" for x in over_eager(DIP)]
    assert "PyTorch eager takes {} and {} times as long".format(*eager) in text
    rates = [round(x["gflop_per_second"]) for x in DIP]
    shares = [round(100 * x["share_of_product_ceiling"]) for x in DIP]
    assert f"at {rates[0]} GFLOP/s at 128x128, {shares[0]} % of" in text
    assert f"and {rates[1]} at 320x480, {shares[1]} %" in text
    for name, said in (
        ("dip-7-rounds", "ours took {} and {} s, eager {} and {} times as long, the best peer {}"),
        ("dip-45cf02c", "at commit 45cf02c, {} and {} s, {} and {}, {}"),
    ):
        results = record(name, LATEST)["results"]
        seconds = [f"{x['ours_seconds_per_iteration']:.4f}" for x in results]
        ratios = [f"{x:.2f}" for x in over_eager(results)]
        best = " and ".join(f"{x['ratio']:.2f}" for x in results)
        assert said.format(*seconds, *ratios, best) in text
    losses = [
        f"{row('losses', f'dip 128x128 {x} float32')['ours_seconds_per_iteration']:.3f}"
        for x in ("mse", "l1", "charbonnier")
    ]
    assert "took {}, {} and {} s at 128x128".format(*losses) in text
    half, single = (
        f"{row('precisions', f'dip 128x128 charbonnier {x}')['ours_seconds_per_iteration']:.3f}"
        for x in ("bfloat16", "float32")
    )
    assert f"takes {half} s instead of {single}" in text
    starts = record("compiling", LATEST)["results"]
    seconds = [f"{x['ours_seconds_per_start']:.1f}" for x in starts]
    assert "first iteration: {} s, and {} s with the cache".format(*seconds) in text


def gains(results):
    """Of fits at once, by way: 2, 4 and 8 of them."""
    found = {x["name"]: f"{x['ratio_to_in_turn']:.2f}" for x in results}
    return [[found[f"fits 128x128 {n} {way}"] for n in (2, 4, 8)] for way in ("devices", "vmap")]


@pytest.mark.parametrize("section", ["Deep Image Prior", "Without AVX-512"])
def test_fits_memory_and_quality(section):
    text = " ".join(PAGE.partition(f"## {section}")[2].partition("\n## ")[0].split())
    newer = section == "Deep Image Prior"
    fits = record("fits", LATEST)["results"] if newer else OLDER["fits"]["results"]
    devices, vmap = gains(fits)
    assert "{} times (2 fits), {} (4) and {} (8)".format(*devices) in text
    assert "under `vmap` {}, {} and {}".format(*vmap) in text
    (quality,) = record("quality", *[LATEST] * newer)["results"]
    assert f"from iteration {quality['iterations_to_quality']} on" in text
    assert f"after {quality['seconds_to_quality']:.0f} s (and" in text
    assert f"{quality['compile_seconds']:.0f} s of compiling" in text
    assert f" {quality['published_seconds']:.0f}: {quality['ratio']:.1f} times as long" in text


def test_memory():
    text = " ".join(PAGE.split())
    plain, remat = MEMORY
    (usual,) = (x for x in DIP if x["size"] == "320x480")
    more = plain["seconds_per_megapixel"] / usual["seconds_per_megapixel"]
    assert f"A megapixel takes {more:.2f} times as long at 1024x1024 as at 320x480" in text
    gib = [x["peak_bytes"] / 2**30 for x in MEMORY]
    cost = remat["ours_seconds_per_iteration"] / plain["ours_seconds_per_iteration"] - 1
    said = "needs {:.1f} GiB at its peak; with `--remat` {:.1f} GiB, and {:.0f} % more time"
    assert said.format(*gib, 100 * cost) in text
    (one,) = record("dip-one-a-call", LATEST)["results"]
    assert f"iterations, one takes {one['ours_seconds_per_iteration']:.1f} s" in text
    (older,) = (x for x in record("memory")["results"] if x["name"] == "memory 1024x1024")
    gib = older["peak_bytes"] / 2**30
    assert f"{older['ours_seconds_per_iteration']:.1f} s an iteration, {gib:.1f} GiB" in text


@pytest.mark.parametrize("line", lines("What each trick is worth", PAGE), ids=lambda x: x[0])
def test_tricks(line):
    trick, *told = line
    work = [[f"dip {size}"] for size in ("128x128", "256x256", "320x480")]
    work.append(["lapsrn training step", "lapsrn training step, barriers"])
    results = {
        result["name"].removeprefix("tricks "): result["without"]
        for result in record("tricks", NEWER)["results"]
    }
    for names, cell in zip(work, told, strict=True):
        found = [results[name][trick] for name in names if trick in results[name]]
        figures = [f"{x['gain']:.2f} ± {x['gain_spread']:.2f}" for x in found]
        assert figures == ([cell] if cell else [])


@pytest.mark.parametrize("line", lines("The same on an Intel Xeon", PAGE), ids=lambda x: x[0])
def test_tricks_on_an_intel_xeon(line):
    trick, told = line
    (result,) = record("tricks", XEON)["results"]
    found = result["without"][trick]
    assert told == f"{found['gain']:.2f} ± {found['gain_spread']:.2f}"


@pytest.mark.parametrize("line", lines("An image of LapSRN", PAGE), ids=lambda x: x[0])
def test_tricks_of_images(line):
    trick, *told = line
    found = [x["without"][trick] for x in record("tricks", LATEST)["results"]]
    assert told == [f"{x['gain']:.2f} ± {x['gain_spread']:.2f}" for x in found]


@pytest.mark.parametrize("line", lines("What makes it fast", PAGE), ids=lambda x: x[0])
def test_lowerings(line):
    size, *told = line
    name = re.compile(f"convolution {size}, ")
    (found,) = (x for x in record("convolution", LATEST)["results"] if name.match(x["name"]))
    assert told == [f"{1e3 * found['ways'][x]['seconds_per_convolution']:.2f}" for x in WAYS]


LAPSRN = record("lapsrn", LATEST)["results"]
SMALL = ("inference", "paper")


def seconds_of(found):
    """Ours, and PyTorch's best, eager and compiled."""
    unit = f"seconds_per_{found['unit']}"
    peers = [
        min(each[unit] for name, each in found["peers"].items() if name.startswith(form))
        for form in ("eager", "compile")
    ]
    return found[f"ours_{unit}"], *peers


def figures_of(results, what, depth):
    """The one of them that a line of a table is of, and its seconds as they are told."""
    network = {"5": "paper", "10": "released"}[depth]
    (found,) = (x for x in results if [x["work"], x["network"]] == [what.split()[0], network])
    return found, [f"{x:.3f}" for x in seconds_of(found)]


@pytest.mark.parametrize("line", lines("LapSRN", PAGE), ids=lambda x: " ".join(x[:3]))
def test_lapsrn(line):
    what, size, depth, *told = line
    found, seconds = figures_of([x for x in LAPSRN if x["size"] == size], what, depth)
    assert told == [*seconds, f"{found['ratio']:.2f}"]


ON_XEON = {scale: record(f"lapsrn-x{scale}", XEON)["results"] for scale in "248"}


@pytest.mark.parametrize(
    "line", lines("LapSRN by scale, on an Intel Xeon", PAGE), ids=lambda x: " ".join(x[:3])
)
def test_lapsrn_by_scale(line):
    what, scale, depth, *told = line
    found, seconds = figures_of(ON_XEON[scale], what, depth)
    assert found["factor"] == int(scale)
    assert told == [*seconds, f"{found['ratio']:.2f} ± {found['ratio_spread']:.2f}"]


def test_lapsrn_by_scale_in_words():
    text = " ".join(PAGE.split())
    steps = [seconds_of(x) for of in ON_XEON.values() for x in of if x["work"] == "training"]
    eager, slower = [b / a for a, b, _ in steps], [a / c for a, _, c in steps]
    assert f"by {min(eager):.2f} to {max(eager):.2f} times at each scale" in text
    assert f"takes {min(slower):.2f} to {max(slower):.2f} times as long as the best comp" in text
    small = {
        scale: x for scale, of in ON_XEON.items() for x in of if (x["work"], x["network"]) == SMALL
    }
    assert small["2"]["ratio"] > 1
    assert all(1 - small[x]["ratio"] < 2 * small[x]["ratio_spread"] for x in "48")
    deep = [x["ratio"] for of in ON_XEON.values() for x in of if x["network"] == "released"]
    assert min(deep) > 1
    again = record("lapsrn", XEON_LATER)
    found = again["results"]
    ratios = (f"{x['ratio']:.2f} ± {x['ratio_spread']:.2f}" for x in found)
    assert "ratios were {}, {} and, in training, {};".format(*ratios) in text
    shares = (f"{100 * x['share_of_product_ceiling']:.0f}" for x in found)
    assert "ours reached {}, {} and {} % of the GFLOP/s".format(*shares) in text
    assert f"a day later, commit {again['environment']['commit']})" in text


def test_lapsrn_in_words():
    text = " ".join(PAGE.split())
    gains = {"image": [], "step": []}
    for x in LAPSRN:
        unit = f"seconds_per_{x['unit']}"
        gains[x["unit"]].append(x["peers"]["eager"][unit] / x[f"ours_{unit}"])
    said = f"{min(gains['image']):.2f} to {max(gains['image']):.2f} times as fast"
    assert f"ours is {said}, and {gains['step'][0]:.2f} times in training" in text
    (step,) = (x for x in LAPSRN if x["work"] == "training")
    best = min(y["seconds_per_step"] for n, y in step["peers"].items() if n.startswith("eager"))
    ahead = f"{best / step['ours_seconds_per_step']:.2f}"
    assert f"the best eager form takes {ahead} times as long" in text
    assert f"Drawing the patches takes another {step['patches_seconds_per_step']:.3f} s a" in text
    before = record("lapsrn", NEWEST)["results"]
    small = [f"{x['ratio']:.2f}" for x in before if (x["work"], x["network"]) == SMALL]
    assert f"the small network's two sizes were at {' and '.join(small)}." in text
    older = [x["ratio"] for x in record("lapsrn")["results"]]
    assert f"eager are {min(older):.2f} to {max(older):.2f}" in text


BY_SCALE = PAGE[PAGE.index("| scale |") :]


@pytest.mark.parametrize("line", lines("it", f"## it\n\n{BY_SCALE}"), ids=lambda x: x[0])
def test_scales(line):
    (found,) = record(f"related-x{line[0]}", "2026-11-28_epyc-avx512-2-cores")["results"]
    told = [f"{found['parameters']:,}", f"{found['ours_seconds_per_image']:.4f}"]
    assert line[1:] == [*told, f"{found['megapixels_per_second']:.3g}"]


LARGE = ("5x5", "5x5-to-32", "5x5-to-8", "9x9")


def test_large_filters():
    records = [record(f"convolution-{name}", NEWEST) for name in LARGE]
    ways = ("ours", "im2col", "lax outside", "lax in a loop", "PyTorch eager")
    found = [
        [f"{1e3 * x['ways'][way]['seconds_per_convolution']:.2f}" for way in ways]
        for each in records
        for x in each["results"]
    ]
    names = [x["name"].removeprefix("convolution ") for each in records for x in each["results"]]
    told = lines("Large filters", PAGE)
    assert [line[3:] for line in told] == found
    for (filters, channels, size, *_), name in zip(told, names, strict=True):
        before, _, after = channels.partition(" to ")
        to = f" to {after}" * (after != before)
        assert name == f"{size}, {before} channels{to}, {filters} filters"


def test_the_quality_of_bfloat16():
    """On Y after the last iteration, from results/dip, beside that of the same fits in float32."""
    made = json.loads((ROOT / "results" / "dip" / "bfloat16_crops96.json").read_text())
    half, single = ({n: x["psnr"] for n, x in made["runs"][p].items()} for p in PRECISIONS)
    ahead = {name: half[name] - single[name] for name in half}
    text = " ".join(PAGE.split())
    told = f"it has {np.mean(list(half.values())):.2f} dB on average of the middle 96x96 pixels of "
    assert f"{told}Set5's images, float32 {np.mean(list(single.values())):.2f}." in text
    *first, last = (f"{gain:.2f} ({name})" for name, gain in ahead.items())
    last = last.replace(" (", " dB (")
    gains = np.array(list(ahead.values()))
    error = gains.std(ddof=1) / len(gains) ** 0.5
    told = (
        f"it is {', '.join(first)} and {last} ahead, {gains.mean():.2f} on average, standard error"
    )
    assert f"{told} {error:.2f}: no loss" in text and -error < gains.mean()
