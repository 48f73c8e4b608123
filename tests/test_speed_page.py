"""The tables of docs/SPEED.md against the records in benchmarks/results."""

import json
import pathlib
import re

import pytest

from tests.test_results import lines

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "SPEED.md").read_text()
PEERS = ("eager", "eager-channels-last", "compile", "compile-channels-last")
WAYS = ("ours", "winograd", "im2col", "lax outside", "lax in a loop", "PyTorch eager")


def record(name, machine="2026-11-23_epyc-2-cores"):
    path = ROOT / "benchmarks" / "results" / f"{machine}_cpu_{name}.json"
    return json.loads(path.read_text())


NEWER = "2026-11-25_epyc-avx512-2-cores"
NEWEST = "2026-11-26_epyc-avx512-2-cores"
LATEST = "2026-11-27_epyc-avx512-2-cores"


PARTS = record("suite")["parts"]


def row(part, name):
    (found,) = (x for x in PARTS[part]["results"] if x["name"] == name)
    return found


@pytest.mark.parametrize("line", lines("Deep Image Prior", PAGE), ids=lambda x: x[0])
def test_sizes(line):
    size, ours, megapixel, *rest = line
    part = "dip" if rest[-1] else "sizes"
    found = row(part, f"dip {size} charbonnier float32")
    assert_row(found, ours, megapixel, rest if part == "dip" else None)


def assert_row(found, ours, megapixel, theirs):
    assert ours == f"{found['ours_seconds_per_iteration']:.4f}"
    assert megapixel == f"{found['seconds_per_megapixel']:.1f}"
    if theirs:
        peers = [f"{found['peers'][x]['seconds_per_iteration']:.3f}" for x in PEERS]
        assert theirs == [*peers, f"{found['ratio']:.2f}"]


@pytest.mark.parametrize("line", lines("The same with AVX-512", PAGE), ids=lambda x: x[0])
def test_sizes_with_avx512(line):
    size, ours, megapixel, *theirs = line
    (found,) = (x for x in record("dip", LATEST)["results"] if x["size"] == size)
    assert_row(found, ours, megapixel, theirs)


def test_readmes_speeds():
    told = [figure for _, figure in lines("Measured", (ROOT / "README.md").read_text())]
    small, large = record("dip", LATEST)["results"]
    said = "128x128: {:.2f} iterations/s, {:.2f} times PyTorch eager; 320x480: {:.2f}, {:.2f} times"
    figures = [
        x
        for found in (small, large)
        for x in (
            found["iterations_per_second"],
            found["peers"]["eager"]["seconds_per_iteration"] / found["ours_seconds_per_iteration"],
        )
    ]
    assert told[0].startswith(said.format(*figures))
    starts = [x["ours_seconds_per_start"] for x in record("compiling", LATEST)["results"]]
    assert told[1].startswith("{:.1f} s, with the cache of an earlier run {:.1f} s".format(*starts))


def test_text():
    text = " ".join(PAGE.split())
    small, large = (row("dip", f"dip {x} charbonnier float32") for x in ("128x128", "320x480"))
    speeds = [round(x["gflop_per_second"]) for x in (small, large)]
    share = round(100 * small["share_of_product_ceiling"])
    assert f"at {speeds[0]} GFLOP/s at 128x128, {share} % of" in text
    assert f"and {speeds[1]} at 320x480" in text
    losses = [
        f"{row('losses', f'dip 128x128 {x} float32')['ours_seconds_per_iteration']:.3f}"
        for x in ("mse", "l1", "charbonnier")
    ]
    assert f"{', '.join(losses)} s at 128x128" in text
    half, single = (
        f"{row('precisions', f'dip 128x128 charbonnier {x}')['ours_seconds_per_iteration']:.3f}"
        for x in ("bfloat16", "float32")
    )
    assert f"takes {half} s instead of {single}" in text
    gains = {
        way: [
            f"{row('fits', f'fits 128x128 {n} {way}')['ratio_to_in_turn']:.2f}" for n in (2, 4, 8)
        ]
        for way in ("devices", "vmap")
    }
    assert "{} times (2 fits), {} (4) and {} (8)".format(*gains["devices"]) in text
    assert "under `vmap` {}, {} and {}".format(*gains["vmap"]) in text
    (memory,) = (x for x in record("memory")["results"] if x["name"] == "memory 1024x1024")
    gib = memory["peak_bytes"] / 2**30
    assert f"{memory['ours_seconds_per_iteration']:.1f} s an iteration, {gib:.1f} GiB" in text
    (quality,) = record("quality")["results"]
    assert f"from iteration {quality['iterations_to_quality']} on" in text
    assert f"after {quality['seconds_to_quality']:.0f} s (and" in text
    assert f"each, takes {quality['published_seconds']:.0f}: {quality['ratio']:.1f} times" in text
    newer = record("dip", LATEST)["results"]
    before = [f"{x['ratio']:.2f}" for x in record("dip", NEWER)["results"]]
    assert "at commit 1c7f1af, {} and {} times as fast as the best peer".format(*before) in text
    eager = [
        f"{x['peers']['eager']['seconds_per_iteration'] / x['ours_seconds_per_iteration']:.2f}"
        for x in newer
    ]
    assert "PyTorch eager takes {} and {} times as long".format(*eager) in text
    rates = [
        f"{x['gflop_per_second']:.0f}{unit}, {100 * x['share_of_product_ceiling']:.0f} %{what}"
        for x, unit, what in zip(newer, (" GFLOP/s", ""), (" of the", ""), strict=True)
    ]
    assert "at {} product ceiling, and {}.".format(*rates) in text
    for machine in ({}, *({"machine": x} for x in (NEWER, NEWEST, LATEST))):
        starts = record("compiling", **machine)["results"]
        seconds = [f"{x['ours_seconds_per_start']:.1f}" for x in starts]
        assert "first iteration: {} s, and {} s with the cache".format(*seconds) in text


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


@pytest.mark.parametrize("line", lines("What makes it fast", PAGE), ids=lambda x: x[0])
def test_lowerings(line):
    size, *told = line
    name = re.compile(f"convolution {size}, ")
    (found,) = (x for x in record("convolution")["results"] if name.match(x["name"]))
    assert told == [f"{1e3 * found['ways'][x]['seconds_per_convolution']:.2f}" for x in WAYS]


LAPSRN = record("lapsrn", LATEST)["results"]
SMALL = ("inference", "paper")


@pytest.mark.parametrize("line", lines("LapSRN", PAGE), ids=lambda x: " ".join(x[:3]))
def test_lapsrn(line):
    what, size, depth, *told = line
    network = {"5": "paper", "10": "released"}[depth]
    (found,) = (
        x
        for x in LAPSRN
        if [x["work"], x["size"], x["network"]] == [what.split()[0], size, network]
    )
    unit = f"seconds_per_{found['unit']}"
    peers = [
        min(each[unit] for name, each in found["peers"].items() if name.startswith(form))
        for form in ("eager", "compile")
    ]
    seconds = [f"{x:.3f}" for x in (found[f"ours_{unit}"], *peers)]
    assert told == [*seconds, f"{found['ratio']:.2f}"]


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
