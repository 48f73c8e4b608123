"""`python -m experiments.report` on runs that the experiments left, made once and tiny."""

import base64
import csv
import functools
import json
import math
import os
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest
from test_page import Document

from experiments import command, evaluate, networks, pages, report, restoration, table1, tables
from experiments.ledger import Ledger
from experiments.recipes import Settings
from jaxsr import page, reports
from jaxsr.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_quickly):
    """A fit, a fit of a low resolution, and two evaluations, one by fits."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        network = functools.partial(networks.prior, down=(8,), up=(8,), skip=(2,))
        patch.setattr(networks, "prior", network)
        patch.chdir(folder)
        (folder / "data").mkdir()
        for i, name in enumerate(("<b>bold", "plain")):
            noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
            image = PIL.Image.fromarray(noise).resize((64, 64), PIL.Image.Resampling.BICUBIC)
            image.save(folder / "data" / f"{name}.png")
        hr = folder / "data" / "plain.png"
        fit = Settings(hr=hr, out=pathlib.Path("fit"), iterations=2, protocol="dip")
        assert restoration.run(fit) == 0
        low = Settings(lr=folder / "fit" / "lr.png", out=pathlib.Path("low"), iterations=1)
        assert restoration.run(low) == 0
        fits = {"iterations": 2, "seed": 1, "protocol": "dip"}
        for method, given in (("bicubic", {}), ("dip", fits)):
            out = folder / "scores" / method
            assert evaluate.run(evaluate.Settings(hr.parent, out, method=method, **given)) == 0
    columns = {"loss": [0.5, 0.25], "learning_rate": [1e-3, 1e-3], "psnr": [20.0, 21.5]}
    (folder / "training").mkdir()
    columns = {name: np.array(column, np.float32) for name, column in columns.items()}
    reports.write_csv(folder / "training" / "history.csv", columns, count="epoch")
    reports.write_json(folder / "training" / "config.json", {"loss": "charbonnier", "epochs": 2})
    reports.write_json(folder / "training" / "metrics.json", {"epochs": 2, "psnr": 21.5})
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """A copy of them, to work in."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    return tmp_path


def run(*args):
    return command.main(report.Settings, report.run, [str(arg) for arg in args])


def read(path):
    return Document(pathlib.Path(path).read_text(encoding="utf-8"))


def figures(document):
    return [float(a["value"]) for tag, a, _ in document.elements if tag == "data"]


def history(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_fit_as_it_was_recorded(runs):
    metrics = json.loads((runs / "fit/metrics.json").read_text())
    document = read("fit/report.html")  # `experiments.dip` has written it
    assert document.texts("h1") == ["fit"]
    data = document.data()
    (group,) = data["groups"]
    assert (group["name"], group["width"], group["height"]) == ("plain", 64, 64)
    files = {
        "low resolution": "lr",
        "bicubic": "bicubic",
        "DIP": "sr",
        "DIP, last output": "sr_last",
        "ground truth": "hr",
    }
    assert [p["label"] for p in group["pictures"]] == list(files)
    for shown in group["pictures"]:
        kept = (runs / "fit" / f"{files[shown['label']]}.png").read_bytes()
        assert data["images"][shown["image"]].encode().endswith(b"," + base64.b64encode(kept))
    captions = {p["label"]: p["caption"] for p in group["pictures"]}
    for label, own in (
        ("DIP", metrics),
        ("bicubic", metrics["bicubic"]),
        ("DIP, last output", metrics["last"]),
    ):
        assert captions[label] == f"{own['psnr']:.3f} dB, SSIM {own['ssim']:.4f} (protocol dip)"
    other = metrics["bicubic"]
    five = [metrics["psnr"], metrics["ssim"], other["psnr"], other["ssim"]]
    assert figures(document)[:5] == [*five, metrics["psnr"] - other["psnr"]]

    (curve,) = data["curves"]
    assert (curve["name"], curve["scene"], curve["count"]) == ("fit", "plain", "iteration")
    rows = history(runs / "fit")
    assert next(iter(curve["columns"])) == "PSNR on Y (dB)"  # that of the protocol
    for title, column in (("PSNR on Y (dB)", "psnr_y"), ("loss (log)", "loss")):
        assert curve["columns"][title] == [float(row[column]) for row in rows]
    assert "charbonnier" in document.texts("td")
    assert run("fit", "--out", "again.html") == 0
    assert (runs / "again.html").read_bytes() == (runs / "fit/report.html").read_bytes()


def test_a_fit_without_a_ground_truth(runs):
    document = read("low/report.html")
    (group,) = document.data()["groups"]
    assert (group["name"], group["width"]) == ("lr", 64)
    assert {p["caption"] for p in group["pictures"]} == {""}
    labels = [p["label"] for p in group["pictures"]]
    assert labels == ["low resolution", "bicubic", "DIP", "DIP, last output"]
    (curve,) = document.data()["curves"]
    assert list(curve["columns"]) == ["fit to the observation (PSNR, dB)", "loss (log)"]


def test_an_evaluation_by_fits(runs):
    scores = json.loads((runs / "scores/dip/scores.json").read_text())
    document = read("scores/dip/report.html")
    data = document.data()
    assert [group["name"] for group in data["groups"]] == ["<b>bold", "plain"]
    for group, row in zip(data["groups"], scores["images"], strict=True):
        captions = {p["label"]: p["caption"] for p in group["pictures"]}
        assert captions["DIP"].startswith(f"{row['psnr']:.3f} dB, SSIM {row['ssim']:.4f} (")
        assert captions["bicubic"].startswith(f"{row['bicubic']['psnr']:.3f} dB")
        assert captions["ground truth"] == "the reference"
    expected = [
        value
        for row in (*scores["images"], scores["mean"])
        for value in (
            *(row["psnr"], row["ssim"], row["bicubic"]["psnr"], row["bicubic"]["ssim"]),
            row["psnr"] - row["bicubic"]["psnr"],
        )
    ]
    assert figures(document)[:15] == expected
    assert [curve["scene"] for curve in data["curves"]] == ["<b>bold", "plain"]
    assert (runs / "scores/dip/dip/plain/report.html").exists()


def test_runs_side_by_side(runs):
    args = ("fit", "scores/bicubic", "./fit", "training", "scores/dip/dip/plain")
    assert run(*args, "--out", "all.html") == 0
    document = read("all.html")
    assert document.texts("h1") == ["4 runs"]
    data = document.data()
    names = [(curve["name"], curve["count"]) for curve in data["curves"]]
    assert names == [("fit", "iteration"), ("training", "epoch"), ("plain", "iteration")]
    assert data["curves"][1]["columns"] == {
        "PSNR on the test images (dB)": [20.0, 21.5],
        "loss (log)": [0.5, 0.25],
    }
    labels = [
        p["label"] for p in next(g for g in data["groups"] if g["name"] == "plain")["pictures"]
    ]
    assert {"DIP · fit", "DIP · plain"} < set(labels)
    assert labels.count("ground truth") == 1
    shutil.copytree("fit", "more/fit")
    assert run("fit", "more/fit", "--out", "two.html") == 0
    assert read("two.html").texts("h1") == [f"{runs.name}/fit, more/fit"]


def test_images_beyond_the_limit_are_left_out_and_it_says_so(runs, capsys):
    assert run("scores/bicubic", "--out", "small.html", "--megabytes", "0") == 0
    document = read("small.html")
    assert document.data()["groups"] == []
    notes = [text for text in document.texts("p") if "MB" in text]
    assert notes == ["bicubic: the first 0 of 2 images are shown, within 0 MB"]
    assert len(figures(document)) >= 6  # their scores stay
    assert "small.html: open it" in capsys.readouterr().out


def cut(path):
    path.write_bytes(path.read_bytes()[:20])


def change(path, **values):
    record = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def point_elsewhere(folder):
    shutil.copytree("scores/dip", folder, dirs_exist_ok=True)
    change(folder / "scores.json", images=[{"name": "../../hr"}])


def of_fits(folder, *rows):
    shutil.copytree("scores/dip/dip/plain", folder / "plain")
    (folder / "scores.json").write_text(json.dumps({"images": rows, "mean": {"psnr": 1.0}}))


def stale_mean(folder):
    """The first of two fits has grown since, the second not."""
    for seed in range(2):
        shutil.copytree("scores/dip/dip/plain", folder / f"seed{seed}")
    mean = {"seeds": [0, 1], "iterations_asked": 1, "spread_white": 1.0}
    (folder / "metrics.json").write_text(json.dumps(mean))


FIT = pathlib.Path("fit")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda: cut(FIT / "metrics.json"), "`fit/metrics.json` is damaged ("),
        (lambda: cut(FIT / "config.json"), "`fit/config.json` is damaged ("),
        (lambda: cut(FIT / "sr.png"), "fit/sr.png"),
        (lambda: shutil.copy(FIT / "sr.png", FIT / "history.csv"), "`fit/history.csv` cannot be"),
        (
            lambda: os.remove("fit/history.csv"),
            "history.csv` cannot be read (No such file or directory)",
        ),
        (lambda: (FIT / "history.csv").write_text("iteration,loss\n1,x\n"), "could not convert"),
        (lambda: (FIT / "history.csv").write_text("iteration,loss\n1\n"), "its lines must have"),
        (lambda: (FIT / "metrics.json").write_text("[1]"), "must hold a JSON object"),
        (lambda: change(FIT / "metrics.json", bicubic=[1]), "`fit/metrics.json` is damaged"),
        (lambda: change(FIT / "config.json", iterations=None), "KeyError: 'iterations'"),
        (lambda: shutil.rmtree("fit"), "`RUNS` (=fit) must be a folder that is there"),
        (lambda: empty(FIT), "`RUNS` (=fit) must be a folder that experiments.dip, "),
        (lambda: point_elsewhere(FIT), "the name '../../hr' must be that of a file"),
        (lambda: of_fits(empty(FIT), {"name": "."}), "the name '.' must be that of a file"),
        (lambda: of_fits(empty(FIT), {"name": "../low"}), "the name '../low' must be that"),
        (
            lambda: of_fits(empty(FIT), {"name": "plain"}),
            "`fit/scores.json` is damaged (ValueError",
        ),
    ],
)
def test_damage_is_told_in_one_line(runs, capsys, harm, said):
    harm()
    assert run("scores/bicubic", "fit", "--out", "new.html") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (runs / "new.html").exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda: change(FIT / "metrics.json", iterations_asked=3),
        lambda: os.remove("fit/metrics.json"),
        lambda: stale_mean(empty(FIT)),
    ],
)
def test_what_is_not_finished_is_left_out(runs, capsys, harm):
    harm()
    assert run("scores/bicubic", "fit", "--out", "new.html") == 1
    assert capsys.readouterr().err.startswith("left out: `RUNS` (=fit) must be finished")
    assert read("new.html").texts("h1") and "fit" not in read("new.html").texts("th")
    assert run("fit", "--out", "none.html") == 2
    assert capsys.readouterr().err.startswith("error: `RUNS` (=fit) must be finished")
    assert not (runs / "none.html").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fit", "--out", "page.txt"), "`--out` (=page.txt) must end in .html"),
        (("fit", "--out", "none/page.html"), "`none/page.html` cannot be written"),
        (("fit", "--megabytes", "-1"), "`--megabytes` (=-1.0) must be at least 0"),
        (("fit", "--megabytes", "nan"), "`--megabytes` (=nan) must be at least 0"),
        ((), "`RUNS` (=none) must name at least one folder"),
    ],
)
def test_bad_input_is_one_line(runs, capsys, args, said):
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_page_that_fails_costs_nothing_else(runs, capsys, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(page, "render", refuse)
    assert evaluate.run(evaluate.Settings(runs / "data", pathlib.Path("new"))) == 0
    assert (runs / "new/scores.json").exists() and not (runs / "new/report.html").exists()
    err = capsys.readouterr().err.splitlines()[-1]
    assert err == "`new/report.html` was not made (RuntimeError: no luck); all else is there"


def test_results_do_not_overwrite_their_data(runs, capsys):
    settings = evaluate.Settings(runs / "scores/dip/hr", pathlib.Path("scores/dip"))
    with pytest.raises(InputError, match="would overwrite"):
        evaluate.run(settings)


def cell(ledger, name, psnr, history=None, **settings):
    figures = {"psnr": psnr, "ssim": 0.75, "psnr_rgb": psnr - 1, "ssim_rgb": 0.5}
    figures |= {"history": history} if history else {}
    table, _, file = name.split("/")
    made = {"row": "bicubic", "protocol": f"p-{table}", "image": file.partition("_")[0]} | settings
    environment = {"device": {"kind": "cpu"}, "versions": {"jax": "0.0"}}
    ledger.write(name, made, figures, seconds=1.5, environment=environment)


def test_a_ledger_as_table1_shows_it(runs, capsys, monkeypatch):
    monkeypatch.setitem(tables.IMAGES, "bsds300", ("16077", "37073"))
    ledger = Ledger(pathlib.Path("results/table1"))
    for image, psnr in (("16077", 20.125), ("37073", 25.5)):
        cell(ledger, f"paper/bicubic/{image}", psnr)
    for seed, psnr in ((0, 30.0), (1, 32.0)):
        own = {"row": "dip-mse", "recipe": "best", "seed": seed, "loss": "mse"}
        history = {"every": 10, "psnr": [20.0 + seed, 21.0, "nan"], "learning_rate": [1, 1, 1]}
        cell(ledger, f"standard/dip-mse_best/16077_seed{seed}", psnr, history, **own)
    crops = {"paper/bicubic/16077": 0, "paper/bicubic/37073": 90}
    for name, gray in crops.items():
        PIL.Image.new("RGB", (12, 8), (gray,) * 3).save(ledger.folder / f"{name}.png")
    for place, size in (("truth", (12, 8)), ("lr", (3, 2))):
        (ledger.folder / "paper" / place).mkdir()
        PIL.Image.new("RGB", size, (7, 8, 9)).save(ledger.folder / f"paper/{place}/16077.png")
    assert run("results/table1", "--out", "ledger.html") == 0
    document = read("ledger.html")
    capsys.readouterr()
    args = ["--seeds", "0", "1", "--recipes", "best"]
    assert command.main(table1.Settings, table1.run, args) == 0
    printed = capsys.readouterr().out
    assert "to look at: runs/table1/report.html" in printed
    assert (runs / "runs/table1/report.html").read_bytes() == (runs / "ledger.html").read_bytes()

    found = rows_of(document)
    words = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    means = ("22.812", "0.7500", "25.09", "0.8055", "-2.28", "-0.0555")
    assert ["bicubic", *means, "2/2", "paper-dip"] in words
    assert found["table paper, 4x, PSNR in dB"]["bicubic"] == [
        *(means[0], "", *means[1:], "2/2", "paper-dip"),
    ]
    starred = "*: of some images alone, for comparison with figures of the same; "
    deviation = "the deviation over seeds, of the images that all seeds have"
    assert f"{starred}+-: {deviation}" in printed.splitlines()
    standard = found[f"table standard, 4x, PSNR in dB; {starred}±: {deviation}"]
    line = ["31.000*", "1.414*", "0.7500*", "30.000*", "0.5000*", "2/4", "standard"]
    assert ["dip-mse (best)", *line] in words
    assert standard["dip-mse (best)"] == line
    assert standard["tv"] == ["missing", "", "", "", "", "0/2", "standard"]
    by_image = found["table standard, 4x, PSNR in dB, by image"]
    assert by_image["dip-mse (best)"] == ["31.000", "missing"]
    assert found["table1: dip-mse (best)"]["loss"] == ["mse"]
    assert found["table1: bicubic"]["protocol"] == ["p-paper"]
    assert found["experiments.table1: results"]["dip-mse (best) seconds"] == ["3"]

    data = document.data()
    assert [(curve["name"], curve["every"], curve["columns"]) for curve in data["curves"]] == [
        (f"dip-mse (best), seed {seed}", 10, {"PSNR on all channels (dB)": [20.0 + seed, 21, None]})
        for seed in (0, 1)
    ]
    assert {curve["scene"] for curve in data["curves"]} == {"16077, table standard"}
    shown = {group["name"]: group["pictures"] for group in data["groups"]}
    assert list(shown) == [f"{image}, a crop, table paper" for image in ("16077", "37073")]
    labels = [p["label"] for p in shown["16077, a crop, table paper"]]
    assert labels == ["low resolution", "bicubic", "ground truth"]
    (crop,) = shown["37073, a crop, table paper"]
    assert crop["caption"] == "25.500 dB, SSIM 0.7500 (protocol p-paper, whole image)"
    kept = (ledger.folder / "paper/bicubic/37073.png").read_bytes()
    assert data["images"][crop["image"]].endswith(base64.b64encode(kept).decode())


def rows_of(document):
    """Cells by row and table."""
    found, row = {}, []
    for tag, attributes, text in document.elements:
        if tag == "table":
            rows = found.setdefault(attributes["aria-label"], {})
        elif tag == "th" and attributes["scope"] == "row":
            row = rows.setdefault(text, [])
        elif tag == "td":
            row.append(text)
        elif tag == "data":
            row[-1] = text
    return found


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("paper/bicubic/16077", {"psnr": "x"}, "could not convert"),
        ("paper/bicubic/16077", {"ssim": None}, "KeyError('ssim')"),
        ("paper/bicubic/37073", {}, "is of paper/bicubic/16077: rename it"),
        ("paper/bicubic/16077", {"settings": [1]}, "is damaged"),
        ("paper/bicubic/16077", {"history": {"psnr": [1.0]}}, "KeyError('every')"),
        ("paper/bicubic/16077", {"history": {"psnr": [1.0], "every": 0}}, "must be at least 1"),
        ("paper/bicubic/16077", {"history": {"psnr": [1.0], "every": math.inf}}, "OverflowError"),
        ("paper/bicubic/16077", {"psnr": 10**400}, "OverflowError"),
        ("paper/bicubic/16077", {"device": [1]}, "AttributeError"),
        ("paper/bicubic/lena", {"settings": {"row": "bicubic", "image": "lena"}}, "move it out of"),
        ("paper/mine/16077", {"settings": {"row": "mine", "image": "16077"}}, "is of row mine and"),
    ],
)
def test_a_ledger_with_a_damaged_or_foreign_record(runs, capsys, name, change, said):
    ledger = Ledger(runs / "ledger")
    cell(ledger, "paper/bicubic/16077", 20.0)
    path = runs / "ledger" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    record = json.loads((runs / "ledger/paper/bicubic/16077.json").read_text()) | change
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    assert run("ledger", "--out", "page.html") == 2
    err = capsys.readouterr().err
    assert f"`{path.relative_to(runs)}`" in err.replace(f"{runs}/", "") and said in err
    assert err.count("\n") == 1


def fit(ledger, corruption, loss, psnr, *, seed=0, **settings):
    """A record as `experiments.robustness` leaves it."""
    made = {"image": "cup", "factor": 4, "iterations": 20, "protocol": "p"} | settings
    made |= {"corruption": corruption, "loss": loss, "seed": seed}
    kept = {"finite": True, "psnr": psnr, "psnr_peak": psnr + 1, "psnr_peak_iteration": 10}
    kept |= {"psnr_output": psnr, "psnr_output_peak": psnr}
    kept["history"] = {"every": 10, "psnr": [psnr + 1, psnr], "loss": [0.5, 0.25]}
    environment = {"device": {"kind": "cpu"}, "versions": {"jax": "0.0"}}
    name = f"cup/{corruption}/{loss}_seed{seed}"
    ledger.write(name, made, kept, seconds=1.5, environment=environment)


def test_a_ledger_of_corrupted_images(runs):
    ledger = Ledger(pathlib.Path("results/robustness"))
    for loss, corruption, psnr in (
        *(("l1", "clean", 21.0), ("mse", "clean", 20.0)),
        *(("mse", "outliers-5", 12.0), ("l1", "jpeg-30", 15.0)),
    ):
        fit(ledger, corruption, loss, psnr)
    fit(ledger, "clean", "huber", 30.0, iterations=40)
    fit(ledger, "jpeg-30", "mse", 31.0, input_sha256="another")
    PIL.Image.new("RGB", (8, 8)).save(ledger.folder / "cup" / "robustness.png")  # its heat map
    assert run("results/robustness", "--out", "ledger.html") == 0
    document = read("ledger.html")
    found = rows_of(document)
    told, label = "PSNR in dB, after the last iteration", "cup, 4x, 20 iterations, protocol p"
    assert found[f"{label}, {told}"] == {
        "mse": ["20.00", "12.00", "missing"],
        "l1": ["21.00", "missing", "15.00"],
    }
    peaks = found[f"{label}, PSNR in dB, at the peak (oracle)"]
    assert peaks["mse"] == ["21.00", "13.00", "missing"]
    others = label.replace("20", "40"), f"{label} (2)"  # of other settings, on the same page
    assert [found[f"{x}, {told}"] for x in others] == [{"huber": ["30.00"]}, {"mse": ["31.00"]}]
    seconds = found["experiments.robustness: results"][f"{label} seconds"]
    assert seconds == ["6"]
    curves = document.data()["curves"]
    shown = [x for x in curves if x["scene"].endswith(f": {label}")]
    assert [(x["scene"].partition(":")[0], x["name"]) for x in shown] == [
        *(("clean", "mse, seed 0"), ("clean", "l1, seed 0")),
        *(("outliers-5", "mse, seed 0"), ("jpeg-30", "l1, seed 0")),
    ]
    psnr = {"PSNR on all channels (dB)": [13.0, 12.0], "loss (log)": [0.5, 0.25]}
    assert shown[2]["columns"] == psnr
    assert {x["every"] for x in curves} == {10} and len(curves) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"psnr_peak": "x"}, "could not convert"),
        ({"settings": {"image": "cup"}}, "KeyError('loss')"),
        ({"finite": None}, "KeyError('finite')"),
        ({"seed": "0"}, "is damaged"),
        ({"history": {"psnr": [1.0], "every": 0}}, "must be at least 1"),
        ({"loss": "l2"}, "is of cup/clean/l2_seed0, which is not its name or not of this version"),
    ],
)
def test_a_damaged_ledger_of_corrupted_images(runs, capsys, change, said):
    ledger = Ledger(runs / "ledger")
    fit(ledger, "clean", "mse", 20.0)
    path = ledger.folder / "cup/clean/mse_seed0.json"
    record = json.loads(path.read_text())
    if {"loss", "seed"} & {*change}:
        record["settings"] |= change
    left = {k: v for k, v in (record | change).items() if v is not None}
    path.write_text(json.dumps(left))
    assert run("ledger", "--out", "page.html") == 2
    err = capsys.readouterr().err
    assert "mse_seed0.json`" in err and said in err and err.count("\n") == 1


def test_a_name_that_is_no_text(tmp_path):
    """A file name may be any bytes; the page is UTF-8 all the same."""
    name = os.fsdecode(b"caf\xe9")
    run = page.Run(name, "experiments.dip", {}, {"psnr": math.pi})
    pages.write([run], tmp_path / "page.html")
    assert "<h1>caf?</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
