import importlib.machinery
import json
import pathlib
import subprocess
import sys
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as suite
from benchmarks import (
    ceilings,
    comparison,
    compiling,
    dip,
    machine,
    memory,
    peers,
    plots,
    quality,
    work,
)
from jaxsr import dip as solver
from jaxsr import layers, losses, operators
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from tests.commands import main


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_counted_work_is_the_compilers(monkeypatch, size):
    """Of one step with plain convolutions; it counts the norms, losses and Adam besides: 2 %."""
    monkeypatch.setattr(layers, "conv_general_dilated", jax.lax.conv_general_dilated)
    model, config = SkipUNet(), solver.Config()

    def start(key):
        functions = {"init_fn": model.init, "apply_fn": model.apply}
        return solver.init(key, size=size, config=config, **functions)

    state = jax.eval_shape(start, jax.random.key(0))
    target = jax.ShapeDtypeStruct((1, size[0] // 4, size[1] // 4, 3), jnp.float32)

    def step(state, target):
        return solver.step(
            state,
            target,
            apply_fn=model.apply,
            operator=operators.downsample(4),
            loss=losses.mse,
            config=config,
        )

    flops = jax.jit(step).lower(state, target).cost_analysis()["flops"]
    assert work.dip_iteration(state.params, size).gflop == pytest.approx(flops / 1e9, rel=0.02)


def test_traffic_is_that_of_a_network_counted_by_hand():
    """One scale of 2 channels, 4 of the latent, at 4x4 pixels; in bytes."""
    network = SkipUNet(down=(2,), up=(2,), skip=(0,), channels=1)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 4, 4, 4)))
    size = sum(x.size for x in jax.tree.leaves(params))
    halve = 2 * (16 * 4 + 4 * 2) + 5 * 4 * 2
    down = 3 * (4 * 2 + 4 * 2) + 5 * 4 * 2
    join = 7 * 16 * 2
    up, mix = (3 * (16 * 2 + 16 * 2) + 5 * 16 * 2,) * 2
    image = 3 * (16 * 2 + 16)
    values = halve + down + join + up + mix + image
    found = work.dip_iteration(params, (4, 4), value_bytes=2)
    assert found.gbytes * 1e9 == pytest.approx(2 * values + 28 * size)


@pytest.mark.parametrize(
    ("precision", "products", "dtype"),
    [
        ("float32", "highest", np.float32),
        ("tf32", "tensorfloat32", np.float32),
        ("bfloat16", "highest", jnp.bfloat16),
    ],
)
def test_ceilings_are_of_the_best_round_in_the_precision_asked(
    monkeypatch, precision, products, dtype
):
    compiled = []

    def keep(_, x, *__):
        compiled.append((x.dtype, jax.config.jax_default_matmul_precision))
        return None, 0.0

    def draw(_, shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    seconds = {"product": (2.0, 0.5), "copy": (4.0, 1.0)}
    timings = {name: ceilings.timing.Timing(value) for name, value in seconds.items()}
    monkeypatch.setattr(ceilings.timing, "interleaved", lambda *_, **__: timings)
    monkeypatch.setattr(ceilings.timing, "compiled", keep)
    monkeypatch.setattr(ceilings.jax.random, "normal", draw)
    monkeypatch.setattr(ceilings.jax.random, "uniform", draw)
    found = ceilings.measure(precision)
    product, copy = compiled
    assert product == (dtype, products) and copy[0] == dtype
    assert found.gflop_per_second == pytest.approx(2 * 2048**3 / 0.5e9)
    assert found.gbytes_per_second == pytest.approx(2 * copy[0].itemsize * 2**26 / 1e9)


def test_ceilings_of_a_gpu_are_of_ten_in_a_row(monkeypatch):
    calls, timed = [], {}

    def interleaved(programs, *, units, **_):
        for name, program in programs.items():
            before = len(calls)
            program()
            timed[name] = (len(calls) - before, units)
        return {name: ceilings.timing.Timing((1.0,)) for name in programs}

    monkeypatch.setattr(ceilings.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(ceilings.jax.random, "normal", lambda *_: None)
    monkeypatch.setattr(ceilings.jnp, "zeros", lambda *_: None)
    monkeypatch.setattr(ceilings.timing, "interleaved", interleaved)
    monkeypatch.setattr(ceilings.timing, "compiled", lambda *_: (lambda *x: calls.append(x), 0.0))
    ceilings.measure("tf32")
    assert timed == {"product": (10, 10), "copy": (10, 10)}


def row(name, seconds, spread, **others):
    return {
        "name": name,
        "unit": "iteration",
        "ours_seconds_per_iteration": seconds,
        "ours_spread": spread,
        **others,
    }


def test_changes_are_those_beyond_both_spreads():
    old = {"parts": {"a": {"results": [row("fast", 1.0, 0.04), row("same", 1.0, 0.04)]}}}
    old["parts"]["b"] = {"results": [row("gone", 1.0, 0.0), row("m", 1.0, 0.0, peak_bytes=100)]}
    a = [row("fast", 0.7, 0.04), row("same", 0.77, 0.04), row("new", 9.0, 0.0)]
    b = [row("m", 1.0, 0.0, peak_bytes=103), row("fast", 1.0, 0.1)]  # in another part: another row
    old["parts"]["b"]["results"] += [row("as large", 1.0, 0.0, peak_bytes=100)]
    b += [row("as large", 1.0, 0.0, peak_bytes=101)]
    new = {"parts": {"a": {"results": a}, "b": {"results": b}}}
    found = comparison.changes(old, new)
    assert [(c.name, c.figure, c.ratio) for c in found] == [
        ("a: fast", "ours_seconds_per_iteration", 0.7),
        ("b: m", "peak_bytes", 1.03),
    ]
    assert "1 -> 0.7  (0.70x)" in comparison.table(found, of=3)
    assert comparison.table([], of=3) == "of 3 figures none changed beyond the spread"
    assert comparison.table([], of=0) == "nothing to compare: no figure is in both"
    assert len(comparison.compared(old, new)) == 6  # of m and the last one both figures
    assert comparison.unlike(old, new) == [
        "b: gone: measured -> missing",
        "a: new: missing -> measured",
        "b: fast: missing -> measured",
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), "the work is too large for this"),
        (OSError(28, "No space left on device", "a.json"), "`a.json` cannot be used: No space"),
    ],
)
def test_what_ends_a_benchmark_is_one_line(capsys, error, said):
    def run(_):
        raise error

    assert peers.main(dip.Options, run, []) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}") and told.count("\n") == 1


def test_one_that_fails_does_not_keep_the_others(tmp_path, capsys):
    def fails():
        array = Held()
        held.append(weakref.ref(array))
        raise RuntimeError("out of memory\nand much more" if array else "")

    class Held:
        """Stands in for an array of the device."""

    held, path = [], tmp_path / "a.json"

    def last():
        assert held[0]() is None  # its memory is free again
        return {"name": "last"}

    cases = [lambda: {"name": "first"}, fails, last]
    said = {"say": lambda result: result["name"]}
    with pytest.raises(InputError, match="1 of the measurements failed: out of memory"):
        peers.collect("a", cases, json=path, alone=True, **said)
    told = capsys.readouterr()
    assert told.out == "first\nlast\n" and told.err == "left out: out of memory\n"
    assert [x["name"] for x in json.loads(path.read_text())["results"]] == ["first", "last"]


def test_pytorch_without_a_gpu_is_refused(monkeypatch):
    torch = types.ModuleType("torch")
    torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert not peers.is_alone(False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(InputError, match="PyTorch finds no GPU"):
        peers.is_alone(False)
    assert peers.is_alone(True)
    torch.cuda.is_available = lambda: True
    assert not peers.is_alone(False)


def test_a_gpu_is_measured_in_tf32_too(monkeypatch):
    assert peers.precisions(None) == ("float32",)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert peers.precisions(None) == ("float32", "tf32")
    assert peers.precisions(("tf32",)) == ("tf32",)


def test_a_cpu_has_no_tf32(capsys):
    assert main(dip, ["--precisions", "float32", "tf32", "--alone"]) == 2
    said = "error: `--precisions` (=float32 tf32): a CPU has no tf32\n"
    assert capsys.readouterr().err == said


def test_what_failed_or_is_in_one_record_alone_is_told():
    def record(**parts):
        return {"parts": {name: {"results": rows} for name, rows in parts.items()}}

    old = record(a=[row("m", 1.0, 0.0, peak_bytes=100)], b=[row("x", 1.0, 0.0)])
    new = record(a=[{"name": "m", "failed": "out of memory"}])
    assert comparison.unlike(old, new) == ["a: m: measured -> failed"]  # b was not asked for
    assert comparison.compared(old, new) == comparison.changes(old, new) == []
    zero = record(a=[row("m", 0.0, 0.0, peak_bytes=0)])
    assert comparison.compared(zero, old) == []


def test_another_machine_is_told():
    def record(cores, jax):
        environment = {"device": {"cores": cores}, "versions": {"jax": jax, "numpy": "2"}}
        return {"parts": {"a": {"results": [], "environment": environment}}}

    assert comparison.elsewhere(record(2, "1"), record(2, "1")) == []
    found = comparison.elsewhere(record(2, "1"), record(4, "2"))
    assert found == ["device cores: 2 -> 4", "versions jax: 1 -> 2"]
    both = record(2, "1")
    both["parts"]["b"] = {"results": [], "environment": {"versions": {"torch": "2"}}}
    assert comparison.elsewhere(both, record(2, "1")) == []  # of a part that is in one alone
    flagged = record(2, "1")
    flagged["parts"]["a"]["environment"]["device"]["xla_flags"] = "--x"
    assert comparison.elsewhere(flagged, record(2, "1")) == ["device xla_flags: --x -> None"]


REAL_RUN = subprocess.run


class Command:
    """Stands in for `subprocess.run`: notes the command and writes what it would have."""

    def __init__(self, record, *, code=0, where="--json"):
        self.record, self.code, self.where = record, code, where
        self.commands, self.options = [], []

    def __call__(self, command, **options):
        if command[0] != sys.executable:
            return REAL_RUN(command, **options)
        self.commands.append(command)
        self.options.append(options)
        if self.code == 0:
            path = pathlib.Path(command[command.index(self.where) + 1])
            if self.where == "--out":
                path.mkdir()
                psnr = [20.0, 27.0, 26.0, 26.5, 26.4]
                lines = ["iteration,psnr_y", *(f"{i},{p}" for i, p in enumerate(psnr, 1))]
                (path / "history.csv").write_text("\n".join(lines) + "\n")
                path = path / "metrics.json"
            path.write_text(json.dumps(self.record))
        return subprocess.CompletedProcess(command, self.code, "", "noise\nout of memory\n")


def test_suite_gathers_its_parts(monkeypatch, tmp_path, capsys):
    case = dip.Case((64, 96), "charbonnier", "float32", False)
    record = {"results": [row(case.name, 1.0, 0.1, size="64x96", peers={})]}
    command = Command(record)
    monkeypatch.setattr(subprocess, "run", command)
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert main(suite, ["--json", str(first), "--parts", "sizes", "lapsrn"]) == 0
    assert [c[2] for c in command.commands] == ["benchmarks.dip", "benchmarks.lapsrn"]
    assert json.loads(first.read_text())["parts"] == {"sizes": record, "lapsrn": record}
    record["results"][0]["ours_seconds_per_iteration"] = 0.3
    plot = tmp_path / "a.png"
    args = ["--json", str(second), "--parts", "sizes", "--compare", str(first), "--plot", str(plot)]
    assert main(suite, args) == 0
    assert f"{case.name}  ours_seconds_per_iteration  1 -> 0.3" in capsys.readouterr().out
    assert sorted(tmp_path.glob("*.json*")) == [first, second]
    first.write_text(json.dumps({"benchmark": "dip", **record, "rounds": 3}))  # of a command
    assert (
        main(suite, [*args[:4], "--json", str(tmp_path / "c.json"), "--compare", str(first)]) == 0
    )
    assert "of 1 figures none changed" in capsys.readouterr().out
    assert plot.stat().st_size > 1000


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "{}", '{"parts": {}}', '{"parts": []}', '{"parts": {"a": 1}}', "[" * 100_000),
        '{"parts": {"a": {"results": [{"name": "x"}], "environment": null}}}',
    ],
    ids=len,
)
def test_suite_refuses_what_it_cannot_compare(tmp_path, capsys, text):
    (tmp_path / "old.json").write_text(text)
    args = ["--json", str(tmp_path / "a.json"), "--compare", str(tmp_path / "old.json")]
    assert main(suite, args) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `--compare` (=") and said.count("\n") == 1


def test_suite_does_not_overwrite_what_it_compares_with(tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text('{"parts": {"dip": {"results": []}}}')
    before = path.read_bytes()
    assert main(suite, ["--json", f"{tmp_path}/./old.json", "--compare", str(path)]) == 2
    assert "would overwrite `--compare`: choose another" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_suite_names_the_part_that_fails(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(subprocess, "run", Command({}, code=1))
    path = tmp_path / "a.json"
    assert main(suite, ["--json", str(path), "--parts", "fits", "memory"]) == 2
    assert "`--parts` (=fits memory) failed" in capsys.readouterr().err
    assert json.loads(path.read_text())["parts"] == {}
    assert main(suite, ["--json", str(tmp_path / "none" / "a.json"), "--parts", "fits"]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_suite_keeps_what_was_measured_before_ctrl_c(monkeypatch, tmp_path, capsys):
    command = Command({"results": []})

    def pressed(*args, **options):
        command(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", pressed)
    path = tmp_path / "a.json"
    assert main(suite, ["--json", str(path), "--parts", "fits", "memory"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert json.loads(path.read_text())["parts"] == {"fits": {"results": []}}


def test_suite_refuses_a_plot_of_nothing(tmp_path, capsys):
    args = ["--json", str(tmp_path / "a.json"), "--parts", "lapsrn", "--plot", "a.png"]
    assert main(suite, args) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `--plot` (=a.png) shows the parts dip and sizes")


def test_memory_is_of_a_fresh_process(monkeypatch, tmp_path, capsys):
    result = row("x", 0.5, 0.1, size="64x64", remat=False, compile_seconds=1.0)
    result |= {
        "seconds_per_megapixel": 2.0,
        "program_bytes": 2**30,
        "device_peak_bytes": None,
        "peak_rss_bytes": 2**31,
    }
    command = Command({"results": [result]})
    monkeypatch.setattr(subprocess, "run", command)
    path = tmp_path / "memory.json"
    assert main(memory, ["--sizes", "64x64", "--rounds", "2", "--json", str(path)]) == 0
    plain, remat = json.loads(path.read_text())["results"]
    assert (plain["name"], plain["peak_bytes"]) == ("memory 64x64", 2**31)
    assert remat["name"] == "memory 64x64 remat"
    asked = ["benchmarks.dip", "--alone", "--sizes", "64x64", "--precisions", "float32"]
    for words in command.commands:
        assert words[2:11] == [*asked, "--rounds", "2", "--json"]
    assert ["--remat" in c for c in command.commands] == [False, True]
    assert "memory 64x64: 2.00 GiB at the peak, 0.5000 s" in capsys.readouterr().out
    result["device_peak_bytes"] = 2**28  # of a GPU: the host's memory is no matter
    assert memory.measure("64x64", remat=False, rounds=2)["peak_bytes"] == 2**28
    monkeypatch.setattr(subprocess, "run", Command({}, code=1))
    assert main(memory, ["--sizes", "64x64", "--json", str(path)]) == 2
    said = capsys.readouterr()
    assert said.err == "error: memory 64x64, memory 64x64 remat: failed, the rest is kept\n"
    assert "memory 64x64: failed (out of memory)\n" in said.out
    assert [r["failed"] for r in json.loads(path.read_text())["results"]] == ["out of memory"] * 2


def test_a_program_that_works_in_place_needs_its_input_once():
    program = jax.jit(lambda x: x + 1, donate_argnums=0).lower(jnp.ones(1000)).compile()
    assert 4000 <= machine.program_bytes(program) < 8000


def test_the_plot_shows_seconds_by_megapixels(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots.plots, "lines", lambda _, lines, **__: drawn.append(lines))
    peers = {"eager": {"seconds_per_iteration": 2.0}}
    found = row("dip 64x96 charbonnier float32", 0.5, 0.1, size="64x96", peers=peers)
    plots.seconds_by_size(pathlib.Path("a.png"), {"parts": {"dip": {"results": [found]}}})
    assert drawn == [{"jaxsr": {0.006144: 0.5}, "PyTorch eager": {0.006144: 2.0}}]


BAR = """
import os, pathlib, sys, time
assert os.environ["XDG_CACHE_HOME"] == "the user's"  # with the fonts that matplotlib found
assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.2"
cache = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
sys.stderr.write("coffee:   0%|          | 0/2000 [00:00<?, ?it/s]\\r")
sys.stderr.flush()
time.sleep(0 if cache.exists() else 0.5)
cache.touch()
sys.stderr.write("coffee:   0%|          | 1/2000 [00:01<9:59, 1.00it/s]\\r")
sys.stderr.flush()
time.sleep(60)
"""


def test_first_iteration_is_cold_then_cached(monkeypatch, tmp_path, capsys):
    """Of a program that compiles for half a second, keeps what it compiled, and goes on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "DEMO", ("bar",))
    monkeypatch.setenv("XDG_CACHE_HOME", "the user's")
    (tmp_path / "bar.py").write_text(BAR)
    assert main(compiling, ["--rounds", "2", "--json", "compiling.json"]) == 0
    cold, cached = json.loads(pathlib.Path("compiling.json").read_text())["results"]
    assert cold["name"] == "first iteration, cold" and cached["name"] == "first iteration, cached"
    saved = cold["ours_seconds_per_start"] - cached["ours_seconds_per_start"]
    assert saved == pytest.approx(0.5, abs=0.4)
    assert "first iteration, cached: " in capsys.readouterr().out
    (tmp_path / "bar.py").write_text("raise SystemExit('no disk')")
    assert main(compiling, []) == 2
    assert capsys.readouterr().err == "error: the demo (=bar) ended early: no disk\n"


def test_time_to_quality_counts_what_stays(monkeypatch, tmp_path, capsys):
    """Above after 2, below at 3, above for good from 4: 4 iterations of a quarter second."""
    record = {"seconds": 1.25, "iterations": 5, "compile_seconds": 9.0}
    command = Command(record, where="--out")
    monkeypatch.setattr(subprocess, "run", command)
    monkeypatch.setattr(quality, "published_seconds", lambda _: 8.0)
    monkeypatch.setattr(quality.peers, "is_alone", lambda asked: asked)
    monkeypatch.setattr(machine, "environment", lambda alone: {})
    path = tmp_path / "quality.json"
    assert main(quality, ["--hr", "butterfly.png", "--json", str(path)]) == 0
    (found,) = json.loads(path.read_text())["results"]
    assert (found["iterations_to_quality"], found["seconds_to_quality"]) == (4, 1.0)
    assert found["ratio"] == 8.0
    assert "butterfly to 26.23 dB, seed 0: 1 s (4 iterations" in capsys.readouterr().out
    args = ["--hr", "butterfly.png", "--psnr", "28", "--alone", "--seeds", "0", "1"]
    assert main(quality, [*args, "--iterations", "7"]) == 0
    for words, seed, iterations in zip(command.commands, "001", ("1000", "7", "7"), strict=True):
        given = dict(zip(words[3::2], words[4::2], strict=True))
        fit = {"--hr": "butterfly.png", "--protocol": "dip", "--loss": "charbonnier"}
        fit |= {"--seed": seed, "--iterations": iterations, "--out": given["--out"]}
        assert given == fit
    assert "seed 0: not reached" in capsys.readouterr().out
    caches = {options["env"]["JAX_COMPILATION_CACHE_DIR"] for options in command.options}
    assert len(caches) == 3  # one a fit: each compiles anew


def test_published_seconds_are_of_the_images_size(monkeypatch, tmp_path):
    from jaxsr import images

    images.write(tmp_path / "a.png", np.zeros((70, 100, 3), np.float32))
    asked = []

    def run(options):
        asked.extend(options.sizes)
        return {"results": [{"torch_seconds_per_iteration": 0.5}]}

    monkeypatch.setattr(dip, "run", run)
    assert quality.published_seconds(quality.Options(hr=tmp_path / "a.png")) == 1000.0
    assert asked == ["64x96"]
    assert main(quality, ["--hr", str(tmp_path / "none.png")]) == 2
