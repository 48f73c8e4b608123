"""`experiments.dip` over a folder and several seeds: the mean, the spread, who computes what."""

import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
from skimage import metrics
from test_page import Document

from experiments import (
    command,
    dip,
    ensemble,
    networks,
    paths,
    problem,
    record,
    report,
    restoration,
    several,
    stopping,
)
from experiments.several import Fit
from jaxsr import images, options
from jaxsr.dip import programs
from tests import soak

ROOT = pathlib.Path(__file__).parents[1]
FIT = ("--iterations", "6", "--checkpoint-every", "3")


pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    network = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    monkeypatch.setattr(networks, "prior", network)
    monkeypatch.setattr("experiments.folder.APART", 0.0)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        part = problem.photograph()[20 * i : 20 * i + 64, 8:72]
        images.write(tmp_path / "in" / f"{name}.png", part)
    return tmp_path


def run(*args):
    return command.main(dip.Settings, dip.run, [str(arg) for arg in args])


def report_run(*args):
    return command.main(report.Settings, report.run, [str(arg) for arg in args])


def test_mean_and_spread_of_seeds(folder, capsys):
    shared = ("--hr", "in/a.png", "--factor", 2, *FIT)
    assert run(*shared, "--seeds", 3, "--at-once", 2, "--out", "out") == 0
    printed = capsys.readouterr().out
    each = [np.load(folder / f"out/seed{seed}/sr.npy") for seed in range(3)]
    mean = sum(each) / 3
    assert np.abs(images.read("out/sr.png").pixels - mean).max() < 0.51 / 255
    deviation = np.sqrt(sum((x - mean) ** 2 for x in each) / 2)
    record = json.loads((folder / "out/metrics.json").read_text())
    spread = images.read("out/spread.png").pixels[..., 0] * record["spread_white"]
    assert np.abs(spread - deviation.mean(-1)).max() < 0.51 / 255 * record["spread_white"] + 1e-6
    assert record["spread_rms"] == pytest.approx(np.sqrt((deviation**2).mean()), rel=1e-5)
    assert record["spread_rms"] > 1e-4
    hr = images.read("in/a.png").pixels
    of_mean = metrics.peak_signal_noise_ratio(hr, images.read("out/sr.png").pixels)
    assert record["psnr"] == pytest.approx(of_mean, rel=1e-5)
    singles = [
        json.loads((folder / f"out/seed{seed}/metrics.json").read_text())["psnr"]
        for seed in range(3)
    ]
    one = json.loads((folder / "out/seed0/metrics.json").read_text())
    assert all(record[name] == one[name] for name in ("precision", "device", "versions"))
    assert record["psnr_of_one"]["values"] == singles and record["seeds"] == [0, 1, 2]
    assert record["psnr_of_one"]["deviation"] == pytest.approx(np.std(singles, ddof=1))
    assert "a: mean of 3 seeds" in printed
    page = (folder / "out/report.html").read_text()
    assert "mean of 3 seeds" in page and "seed spread" in page
    # A seed among others is what it is alone.
    assert run(*shared, "--seed", 1, "--out", "alone") == 0
    for name in ("sr.png", "history.csv"):
        assert (folder / "alone" / name).read_bytes() == (folder / "out/seed1" / name).read_bytes()


@pytest.mark.parametrize(
    "task", [("--factor", "2"), ("--task", "denoise"), ("--factor", "2", "--loss", "general")]
)
def test_images_of_one_kind_share_a_program(folder, task):
    programs.iterations.cache_clear()
    assert run("--hr", "in", *task, *FIT, "--out", "out") == 0
    found = programs.iterations.cache_info()
    assert (found.misses, found.hits) == (1, 1)


def test_a_folder_goes_on_where_it_was(folder, capsys):
    shared = ("--hr", "in", "--factor", 2, *FIT, "--out", "out")
    (folder / "in" / "b.png").rename(folder / "b.png")
    (folder / "in" / "b.png").write_bytes(b"no image")
    assert run(*shared) == 1
    captured = capsys.readouterr()
    assert "left out b: `in/b.png`" in captured.err and "1 of 2 fits are finished" in captured.out
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "out/a").glob("sr*")}
    (folder / "b.png").rename(folder / "in" / "b.png")
    assert run(*shared) == 0
    assert before == {p.name: p.stat().st_mtime_ns for p in (folder / "out/a").glob("sr*")}
    record = json.loads((folder / "out/scores.json").read_text())
    values = [json.loads((folder / f"out/{x}/metrics.json").read_text())["psnr"] for x in "ab"]
    assert [image["psnr"] for image in record["images"]] == values and record["missing"] == []
    assert record["mean"]["psnr"] == pytest.approx(np.mean(values))
    assert run(*shared, "--loss", "mse") == 2
    assert "`--loss` (=mse) differs" in capsys.readouterr().err


def test_a_table_holds_finished_images_of_one_length(folder, monkeypatch, capsys):
    """Of a run that grew and was stopped, those of the new length; of a flat image, no bound."""
    images.write("in/b.png", np.full((64, 64, 3), 0.5, np.float32))
    shared = ("--hr", "in", "--factor", 2, "--out", "out", "--at-once", 1)
    shared += ("--protocol", "paper-dip")
    assert run(*shared, *FIT) == 0
    record = json.loads((folder / "out/scores.json").read_text())
    assert record["images"][1]["bicubic"]["psnr"] == record["mean"]["bicubic"]["psnr"] == "inf"
    assert "protocol paper-dip: RGB, unrounded" in capsys.readouterr().out
    fit, stops = restoration.run, iter([False] * 2)
    monkeypatch.setattr(
        restoration,
        "run",
        lambda *args, on, stop: fit(*args, on=on, stop=lambda: next(stops, True)),
    )
    assert run(*shared, "--iterations", 8, "--checkpoint-every", 3) == command.INTERRUPTED
    record = json.loads((folder / "out/scores.json").read_text())
    assert [image["name"] for image in record["images"]] == ["a"] and record["missing"] == ["b"]


def test_a_folder_of_one_image_is_a_folder_still(folder, capsys):
    args = ("--hr", "in", "--factor", 2, *FIT, "--out", "out")
    assert run(*args) == 0
    (folder / "in" / "b.png").unlink()
    assert run(*args) == 0
    record = json.loads((folder / "out" / "scores.json").read_text())
    assert [row["name"] for row in record["images"]] == ["a"] and record["missing"] == []
    assert record["mean"]["psnr"] == record["images"][0]["psnr"]
    capsys.readouterr()
    assert report_run("out", "--out", "all.html") == 0


def test_a_folder_of_low_resolutions_has_a_page(folder):
    assert run("--lr", "in", "--factor", 2, *FIT, "--out", "out") == 0
    record = json.loads((folder / "out/scores.json").read_text())
    assert record["images"] == [{"name": "a"}, {"name": "b"}] and "mean" not in record
    page = (folder / "out/report.html").read_text()
    assert command.main(report.Settings, report.run, ["out", "--out", "again.html"]) == 0
    assert (folder / "again.html").read_text() == page
    assert {group["name"] for group in Document(page).data()["groups"]} == {"a", "b"}


def test_seeds_that_patience_ended_are_combined(folder, capsys):
    args = ("--task", "denoise", "--hr", "in/a.png", "--iterations", 60, "--patience", 4)
    args += ("--learning-rate", 0.05, "--seeds", 2, "--out", "out")
    assert run(*args) == 0
    first = json.loads((folder / "out/seed0/metrics.json").read_text())
    assert first["iterations"] < first["iterations_asked"] == 60
    assert (folder / "out/seed0/report.html").exists() and (folder / "out/report.html").exists()
    before = (folder / "out/metrics.json").stat().st_mtime_ns
    assert "mean of 2 seeds" in capsys.readouterr().out
    assert run(*args) == 0  # nothing is done again
    assert (folder / "out/metrics.json").stat().st_mtime_ns == before


def test_a_process_without_a_fit_has_nothing_to_do(folder, monkeypatch, capsys):
    monkeypatch.setattr(several, "share", lambda fits: [])
    assert run("--hr", "in/a.png", "--factor", 2, *FIT, "--out", "one") == 0
    assert run("--hr", "in", "--factor", 2, *FIT, "--out", "two") == 0
    assert capsys.readouterr().out.count("nothing to do here: the other processes") == 2
    assert not (folder / "one").exists()


def test_what_is_too_large_for_memory_is_left_out(folder, monkeypatch, capsys):
    fit = restoration.dip.fit

    def full(key, observation, *args, **options):
        if observation.sum() < 8600:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a dump")
        return fit(key, observation, *args, **options)

    sums = [float(images.read(f"in/{x}.png").pixels.sum()) for x in "ab"]
    monkeypatch.setattr(restoration.dip, "fit", full)
    assert min(sums) < 8600 < max(sums), sums
    assert run("--lr", "in", "--factor", 2, *FIT, "--out", "out") == 1
    captured = capsys.readouterr()
    assert "of 128x128 pixels, is too large for this machine: RESOURCE_EXH" in captured.err
    assert "1 of 2 fits are finished" in captured.out and "a dump" not in captured.err


def test_ctrl_c_stops_all(folder, monkeypatch, capsys):
    stops = iter([False])  # asked before the first fit, then after its first chunk
    fits = dip.Settings(hr=folder / "in", factor=2, iterations=6, out=folder / "out").fits()[1]
    outcome = several.run(
        fits,
        several.devices("cpu", 1),
        stop=lambda: next(stops, True),
        after=functools.partial(ensemble.combine, fits),
    )
    assert outcome.stopped and outcome.done == () and not outcome.left_out
    assert (folder / "out/a/sr.png").exists() and not (folder / "out/b").exists()
    assert [path.name for path in (folder / "out/a/checkpoints").iterdir()] == ["1"]


def test_fits_take_devices_in_turns(monkeypatch):
    two = [types.SimpleNamespace(platform="cpu", id=i) for i in range(2)]
    monkeypatch.setattr(jax, "local_devices", lambda **_: two)
    assert several.devices("cpu", 3) == [*two, two[0]] and several.devices("cpu", None) == two


def test_a_page_is_newer_than_its_fits(tmp_path):
    (tmp_path / "seed0").mkdir()
    page, fits = tmp_path / "report.html", [tmp_path / "seed0"]
    for path, at in ((page, 5), (fits[0] / "metrics.json", 6)):
        path.touch()
        os.utime(path, ns=(at, at))
    assert not ensemble._is_newer(page, fits)
    os.utime(page, ns=(6, 6))
    assert ensemble._is_newer(page, fits)


def test_each_device_has_one_fit_at_a_time(folder, monkeypatch):
    together, used = threading.Barrier(3, timeout=30), []

    def fit(settings, *, on, stop):
        together.wait()  # passes when three are here at once
        used.append(on)
        together.wait()
        return 0

    monkeypatch.setattr(restoration, "run", fit)
    fits = dip.Settings(hr=folder / "in", seeds=3, out=folder / "out").fits()[1]
    devices = ["first", "second", "third"]
    after = []
    outcome = several.run(fits, devices, stop=lambda: False, after=after.append)
    assert sorted(used[:3]) == sorted(used[3:]) == sorted(devices)
    assert sorted(outcome.done) == sorted(fit.name for fit in fits) and not outcome.stopped
    assert sorted(f.name for f in after) == sorted(f.name for f in fits)


def test_one_fit_and_several_have_folders_of_their_own(folder, capsys):
    common = ("--hr", "in/a.png", "--factor", 2, *FIT)
    one, two = (*common, "--out", "one"), (*common, "--seeds", 2, "--out", "two")
    assert run(*one) == 0 and run(*two) == 0
    capsys.readouterr()
    for args, said in (
        ((*two[:-1], "one"), "of this kind: it holds one fit, not several fits"),
        ((*one[:-1], "two"), "of this kind: it holds several fits, not one fit"),
    ):
        assert run(*args) == 2
        assert said in capsys.readouterr().err


def test_a_folder_of_one_seed_does_not_become_one_of_several(folder, capsys):
    """Its fits lie where the means would go."""
    one = ("--hr", "in", "--factor", 2, *FIT, "--out", "out")
    assert run(*one) == 0
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*.*") if path.is_file()}
    capsys.readouterr()
    assert run(*one, "--seeds", 2) == 2
    said = "of this kind: it holds one fit of each image, not several fits"
    assert said in capsys.readouterr().err
    after = {path: path.read_bytes() for path in (folder / "out").rglob("*.*") if path.is_file()}
    assert after == before


def test_seeds_that_end_together_are_combined_in_turn(folder, monkeypatch):
    """Else one would delete the record that the other is about to read."""
    inside, most, original = [], [], ensemble._combine
    together = threading.Barrier(2)

    def combined(*args):
        inside.append(args)
        most.append(len(inside))
        time.sleep(0.1)
        original(*args)
        inside.pop()

    def after(fit):
        together.wait()
        ensemble.combine(fits, fit)

    monkeypatch.setattr(ensemble, "_combine", combined)
    fits = []
    for seed in range(2):
        out = folder / "out" / f"seed{seed}"
        args = ["--hr=in/a.png", f"--seed={seed}", f"--out={out}", "--iterations=2"]
        assert run(*args) == 0
        fits.append(Fit("a", options.parse(dip.Settings, args).resolved(), folder / "out"))
    threads = [threading.Thread(target=after, args=(fit,)) for fit in fits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1]
    assert json.loads((folder / "out/metrics.json").read_text())["seeds"] == [0, 1]


def test_seeds_records_that_lack_something_are_one_line(folder, capsys):
    args = ("--hr", "in/a.png", "--factor", 2, *FIT, "--seeds", 2, "--out", "out")
    assert run(*args) == 0
    assert (folder / "out/sr.npy").exists()
    for lost in ("precision", "psnr"):
        path = folder / "out/seed0/metrics.json"
        whole = json.loads(path.read_text())
        path.write_text(json.dumps({key: x for key, x in whole.items() if key != lost}))
        (folder / "out/metrics.json").unlink(missing_ok=True)
        capsys.readouterr()
        assert run(*args) == 1
        said = capsys.readouterr().err
        assert f"`out/seed0/metrics.json` is damaged (KeyError('{lost}'))" in said
        path.write_text(json.dumps(whole))
    (folder / "out/seed1/sr.npy").write_bytes(b"PK\x03\x04")
    assert run(*args) == 1
    assert "`out/seed1/sr.npy` is damaged" in capsys.readouterr().err


def test_a_baseline_is_computed_once_a_fit(folder, monkeypatch):
    """Neither where the fit is finished nor for the mean of several."""
    computed, real = [], problem.baselines.chambolle

    def count(*args):
        computed.append(args)
        return real(*args)

    monkeypatch.setattr(problem.baselines, "chambolle", count)
    args = ("--hr", "in/a.png", "--task", "denoise", *FIT, "--seeds", 2, "--out", "out")
    assert run(*args) == 0 and len(computed) == 2
    assert run(*args) == 0 and len(computed) == 2


def test_two_processes_may_claim_a_folder_at_once(tmp_path, monkeypatch):
    config, seen = {"seeds": 2, "iterations": 1}, pathlib.Path.iterdir

    def written_meanwhile(path):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return seen(path)

    monkeypatch.setattr(pathlib.Path, "iterdir", written_meanwhile)
    record.prepare(tmp_path, config, free=(), grows="iterations")
    record.claim(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_no_image_takes_the_name_of_a_record(folder):
    (folder / "in" / "a.png").rename(folder / "in" / "scores.json.png")
    fits = dip.Settings(hr=folder / "in", out=folder / "out").fits()[1]
    assert [fit.folder.name for fit in fits] == ["b", "scores.json.png"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),  # b stays what it was
        (["a.jpg", "a.png", "a.png.jpg"], ["a.jpg", "a.png", "a.png.jpg"]),
        (["page.png"], ["page.png"]),
    ],
)
def test_names_keep_the_suffix_where_they_must(files, names):
    found = paths.named([pathlib.Path("in") / file for file in files], taken={"page"})
    assert list(found) == names and [path.name for path in found.values()] == files


def test_more_seeds_are_added(folder, monkeypatch):
    shared = ("--hr", "in/a.png", "--factor", 2, *FIT)
    assert run(*shared, "--seeds", 2) == 0
    out = folder / "runs/dip/a_x2_charbonnier_seeds0"
    before = {p: p.stat().st_mtime_ns for p in out.glob("seed*/*.*") if p.suffix != ".html"}
    assert json.loads((out / "metrics.json").read_text())["seeds"] == [0, 1] and before
    assert run(*shared, "--seeds", 3) == 0
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())
    mean = np.mean([np.load(out / f"seed{seed}/sr.npy") for seed in range(3)], axis=0)
    np.testing.assert_allclose(np.load(out / "sr.npy"), mean, atol=1e-6)
    assert json.loads((out / "metrics.json").read_text())["seeds"] == [0, 1, 2]
    # Longer ones that are stopped have no mean of the shorter beside them.
    fit = restoration.run
    monkeypatch.setattr(
        restoration, "run", lambda *args, on, stop: fit(*args, on=on, stop=lambda: True)
    )
    assert run(*shared, "--seeds", 3, "--iterations", 8) == command.INTERRUPTED
    assert not {"metrics.json", "report.html"} & {*os.listdir(out)}


def test_scores_name_where_the_fits_were_computed(folder):
    """Not where they were put together."""
    shared = ("--hr", "in", "--factor", 2, *FIT, "--out", "out")
    assert run(*shared) == 0
    path = folder / "out/a/metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"commit": "elsewhere", "device": {"kind": "another"}}))
    assert run(*shared) == 0
    scores = json.loads((folder / "out/scores.json").read_text())
    other = json.loads((folder / "out/b/metrics.json").read_text())
    assert scores["device"] == [{"kind": "another"}, other["device"]]
    assert scores["commit"] == ["elsewhere", other.get("commit")]  # None: it does not tell
    assert scores["versions"] == other["versions"] and scores["precision"] == "float32"


def test_scores_of_shorter_fits_go(folder, monkeypatch):
    shared = ("--hr", "in", "--factor", 2, "--out", "out")
    assert run(*shared, *FIT) == 0
    fit = restoration.run
    monkeypatch.setattr(
        restoration, "run", lambda *args, on, stop: fit(*args, on=on, stop=lambda: True)
    )
    assert run(*shared, "--iterations", 8, "--checkpoint-every", 3) == command.INTERRUPTED
    assert not {"scores.json", "scores.csv", "report.html"} & {*os.listdir("out")}


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError(), "is too large for this machine"), (OSError(28, "disk", "f"), "`f` cannot be")],
)
def test_one_fit_that_fails_leaves_the_others(folder, monkeypatch, capsys, error, said):
    fit = restoration.run

    def failing(settings, **options):
        if settings.hr.stem == "a":
            raise error
        return fit(settings, **options)

    monkeypatch.setattr(restoration, "run", failing)
    assert run("--hr", "in", "--factor", 2, *FIT, "--out", "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [said in line for line in lines if line.startswith("left out a: ")] == [True]
    scores = json.loads((folder / "out/scores.json").read_text())
    assert scores["missing"] == ["a"] and [x["name"] for x in scores["images"]] == ["b"]


def test_a_second_ctrl_c_ends_fits_at_work(folder, monkeypatch, capsys):
    """Threads cannot be ended; waiting for them is what the first one does."""
    first, ended = threading.Lock(), threading.Event()

    def at_work(*_, on, stop):
        main = threading.main_thread().ident
        if first.acquire(blocking=False):
            signal.pthread_kill(main, signal.SIGINT)
            while not stop():
                time.sleep(0.01)
            signal.pthread_kill(main, signal.SIGINT)
        assert ended.wait(60)
        return command.INTERRUPTED

    def leave(code):
        ended.set()
        raise SystemExit(code)

    monkeypatch.setattr(restoration, "run", at_work)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit) as error:
        run("--hr", "in", "--factor", 2, *FIT, "--out", "out")
    assert error.value.code == command.INTERRUPTED
    assert capsys.readouterr().err == "stopped\n"


def test_goes_on_in_a_folder_of_an_earlier_version(folder):
    shared = ("--hr", "in", "--factor", 2, *FIT, "--out", "out")
    assert run(*shared) == 0
    config = json.loads((folder / "out/config.json").read_text())
    for name in ("task", "patience", "loss_alpha"):
        del config[name]
    (folder / "out/config.json").write_text(json.dumps(config))
    assert run(*shared) == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--seeds", 0), "`--seeds` (=0) must be at least 1"),
        (("--at-once", 0), "`--at-once` (=0) must be at least 1"),
        (("--seed", 2**32 - 1, "--seeds", 2), "`--seed` (=4294967296) must be in [0, 2^32)"),
        (("--hr", "empty"), "`empty` holds no image file"),
        (("--processes", 2, "--hr", "in/a.png"), "go with `--coordinator`"),
        (("--hr", "in", "--out", "theirs"), "must be new, empty, or of an earlier run"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, args, said):
    (folder / "empty").mkdir()
    (folder / "theirs").mkdir()
    (folder / "theirs" / "sr.png").write_text("precious")
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


def test_two_processes_of_two_devices_share_the_fits(folder):
    """Four virtual devices: each computes one of four fits, as a single process would have."""
    port = 20000 + os.getpid() % 20000
    shared = ("--hr", "in", "--factor", "2", "--seeds", "2", *FIT)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(*args):
        return subprocess.Popen(
            [sys.executable, "-m", "tests.small_dip", *shared, *args],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    join = ("--out", "two", "--coordinator", f"localhost:{port}", "--processes", "2", "--process")
    both = [start(*join, str(i)) for i in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(printed)
    for i, text in enumerate(printed):
        assert "2 of 2 fits are finished" in text
        mine = {f"two/{name}/seed{i}" for name in "ab"}
        assert {line.rpartition(" ")[2] for line in text.splitlines() if "PSNR" in line} >= mine
    one = start("--out", "one", "--at-once", "2")
    text = one.communicate(timeout=300)[0]
    assert one.returncode == 0, text
    for path in (folder / "one").rglob("sr*.png"):
        other = folder / "two" / path.relative_to(folder / "one")
        assert other.read_bytes() == path.read_bytes()
    rows = [(folder / name / "scores.csv").read_text() for name in ("one", "two")]
    assert rows[0] == rows[1] and rows[0].count("\n") == 4


def test_what_a_patience_would_have_found(folder, capsys):
    """Of a run that went on: where fits of that patience stop, and their PSNR there."""
    common = ("--hr", "in/a.png", "--factor", 2, "--learning-rate", 0.05, "--iterations", 60)
    assert run(*common, "--patience", 60, "--out", "long") == 0
    assert run(*common, "--patience", 4, "--out", "short") == 0
    short = json.loads((folder / "short/metrics.json").read_text())
    stop, record = stopping.read(folder / "long", 4)
    assert record["iterations"] == 60 > stop.ended == short["iterations"]
    assert stop.found == short["stopped_at"]
    assert stop.psnr == pytest.approx(short["psnr_at_the_stop"], abs=1e-4)
    found = stopping.detect([np.inf, 3, 2, 2.5, 2.4, 1], [10, 11, 12, 14, 13, 9], 2)
    assert found == (3, 5, 12, 9, 14)
    args = ["long", "short", "in/a.png", "--patience", "4", "--json", "es.json"]
    assert command.main(stopping.Settings, stopping.run, args) == 2
    assert "must have done all its iterations" in capsys.readouterr().err
    for bad, said in (
        (["in/a.png"], "`RUNS` (=in/a.png) must name at least one folder"),
        (["long", "nowhere"], "`RUNS` (=nowhere) must be folders of finished runs"),
    ):
        assert command.main(stopping.Settings, stopping.run, bad) == 2
        assert said in capsys.readouterr().err
    assert command.main(stopping.Settings, stopping.run, ["long", *args[2:]]) == 0
    figures = json.loads((folder / "es.json").read_text())
    assert figures["runs"]["long"]["iterations"] == 60
    assert figures["runs"]["long"]["versions"]["jax"] == jax.__version__
    # Runs of one name stay two.
    (folder / "other").mkdir()
    shutil.copytree("long", "other/long")
    names = ["long", "other/long", *args[2:]]
    assert command.main(stopping.Settings, stopping.run, names) == 0
    runs = json.loads((folder / "es.json").read_text())["runs"]
    assert list(runs) == [f"{folder.name}/long", "other/long"]
    history = folder / "other" / "long" / "history.csv"
    for cut in (50, 1):
        history.write_text("".join(history.read_text().splitlines(keepends=True)[:cut]))
        assert command.main(stopping.Settings, stopping.run, ["other/long", *args[3:]]) == 2
        assert "must have done all its iterations" in capsys.readouterr().err
    mean = figures["mean"]
    assert mean["off"] == pytest.approx(stop.psnr_peak - stop.psnr)
    assert mean["saved"] == pytest.approx(1 - stop.ended / 60)


def test_soak(folder, monkeypatch):
    """A sample of `make soak`."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    (folder / "soak").mkdir()
    counts = soak.soak(3, 0, folder / "soak", names="a", iterations=100)
    assert counts["kills"] == 3
    assert counts["kills within a fit"] + counts["kills after a fit was finished"] > 0


def test_stops_are_averaged_over_runs(folder):
    runs = {
        "a": ([3, 1, 2, 2], [10, 20, 24, 21]),
        "b": ([1, 2, 3, 4], [10, 11, 12, 13]),
        "c": ([4, 3, 2, 1], [10, 11, 12, 18]),
    }
    for name, columns in runs.items():
        (folder / name).mkdir()
        counts = {"iterations": 4, "iterations_asked": 4}
        (folder / name / "metrics.json").write_text(json.dumps(counts))
        lines = [f"{i},{v},{p}" for i, (v, p) in enumerate(zip(*columns, strict=True), start=1)]
        text = "\n".join(["iteration,variance,psnr", *lines])
        (folder / name / "history.csv").write_text(text)
    args = [*runs, "--patience", "1", "--json", "es.json"]
    assert command.main(stopping.Settings, stopping.run, args) == 0
    mean = json.loads((folder / "es.json").read_text())["mean"]
    psnr = {"psnr": 48 / 3, "psnr_end": 52 / 3, "psnr_peak": 55 / 3, "off": 7 / 3}
    saved = (1 / 4 + 2 / 4 + 0) / 3
    assert mean == pytest.approx({"found": 7 / 3, "ended": 9 / 3, **psnr, "saved": saved})
