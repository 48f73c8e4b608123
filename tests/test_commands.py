"""The commands of README and docs: all are understood; README's tasks and the tutorial's run."""

import dataclasses
import functools
import importlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from experiments import command, dip, networks
from jaxsr import images, models, options
from jaxsr.datasets import bsds300
from jaxsr.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:\w+=\S+ )*python -m ((?:experiments|benchmarks)\b.*)")


def commands(path):
    """Module and arguments of every `python -m` line in a page's blocks."""
    found = FENCED.findall(path.read_text())
    lines = "\n".join(block for language, block in found if not language).splitlines()
    matched = filter(None, map(COMMAND.match, lines))
    return [shlex.split(match[1].partition(" #")[0]) for match in matched]


def mentioned(path):
    """Those in a page's sentences, but for bare names of modules."""
    said = " ".join(FENCED.sub("", path.read_text()).split())
    matched = filter(None, map(COMMAND.fullmatch, re.findall(r"`([^`]*)`", said)))
    return [shlex.split(match[1]) for match in matched if " " in match[1]]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = [line for page in PAGES for line in (*commands(page), *mentioned(page))]
ALL = {shlex.join(line): line for line in LINES if "--help" not in line}


@pytest.mark.parametrize("line", ALL.values(), ids=ALL)
def test_command_is_understood(line):
    name, *arguments = line
    module = importlib.import_module("benchmarks.__main__" if name == "benchmarks" else name)
    settings = getattr(module, "Settings", None) or module.Options
    assert isinstance(options.parse(settings, arguments), settings)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A command without settings."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "photo.png"), 2, "error: `photo.png` cannot be"),
        (KeyboardInterrupt(), command.INTERRUPTED, "stopped"),
        (
            MemoryError("72 GiB\nfor an array"),
            2,
            "error: the work is too large for this machine: 72",
        ),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1"), 2, "error: the work is too large"),
        (
            jax.errors.JaxRuntimeError(
                "INTERNAL: Failed to get configs for: 2 out of 73 instructions. See logs for all "
                "failures. Example failure:\nAutotuning failed for HLO: %a = f32[9]{0} add(%b)\n"
                "Failed to profile configs: Out of memory while trying to allocate 16.98GiB.\n"
            ),
            2,
            "error: the work is too large for this machine: Out of memory while trying to allocate",
        ),
        (
            jax.errors.JaxRuntimeError("INTERNAL: no such kernel\nand a dump"),
            2,
            "error: the work failed on this device: INTERNAL: no such kernel\n",
        ),
    ],
)
def test_what_ends_a_command_is_one_line(monkeypatch, capsys, error, code, said):
    def run(_):
        raise error

    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    assert command.main(Nothing, run, []) == code
    told = capsys.readouterr().err
    assert told.startswith(said) and told.count("\n") == 1


@pytest.mark.parametrize("package", ["experiments", "benchmarks"])
def test_ctrl_c_while_a_command_is_imported_is_no_traceback(tmp_path, package):
    """A module of its own, found as the command's first import, which presses the keys."""
    (tmp_path / "jaxsr").mkdir()
    (tmp_path / "jaxsr" / "__init__.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('went on')\n"
    )
    places = os.pathsep.join(map(str, (tmp_path, ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.dip"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": places},
    )
    assert (done.returncode, done.stderr, done.stdout) == (-signal.SIGINT, "", "")


def test_a_package_that_is_imported_leaves_ctrl_c_alone():
    for package in ("experiments", "benchmarks"):
        importlib.reload(importlib.import_module(package))
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
@pytest.mark.parametrize("name", ["dip", "evaluate"])
def test_no_device_at_all_is_one_line(tmp_path, platform, name):
    (tmp_path / "in").mkdir()
    for i in range(2):
        images.write(tmp_path / "in" / f"{i}.png", np.zeros((64, 64, 1)))
    source = {"dip": "--hr", "evaluate": "--data"}[name]
    command = [sys.executable, "-m", f"experiments.{name}", source, "in", "--out", "out"]
    environment = os.environ | {"JAX_PLATFORMS": platform, "PYTHONPATH": str(ROOT)}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # where there are GPUs, too
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert last.startswith(f"error: `JAX_PLATFORMS` (={platform}) must name what JAX can use here")


def test_without_a_home_nothing_is_cached(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    kept = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: kept.append((name, value)))
    command.use_compilation_cache()
    assert kept == []
    with pytest.raises(InputError, match=r"`HOME` \(=none\) must name the home folder, or `XDG_"):
        bsds300.load("train")


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [
        ("XDG_CACHE_HOME", "elsewhere", "elsewhere/jaxsr/3-cores"),
        ("JAX_COMPILATION_CACHE_DIR", "gs://bucket/x", "gs://bucket/x/3-cores"),
        ("JAX_COMPILATION_CACHE_DIR", "", None),  # off
    ],
)
def test_each_number_of_cores_has_its_own_programs(monkeypatch, variable, value, folder):
    """One core's program, taken from the cache, would run on two as it was cut for one."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(command, "cores", lambda: 3)
    kept = {}
    monkeypatch.setattr(jax.config, "update", kept.__setitem__)
    command.use_compilation_cache()
    assert kept.get("jax_compilation_cache_dir") == folder


@pytest.fixture
def desk(monkeypatch, tmp_path, compiled_quickly):
    """A folder with the tutorial's images, and a network that compiles in seconds."""
    prior, tiny = networks.prior, {"down": (8,), "up": (8,), "skip": (2,)}
    monkeypatch.setattr(networks, "prior", lambda *x, **given: prior(*x, **given | tiny))
    small = functools.partial(models.SkipUNet, **tiny)
    monkeypatch.setattr(models, "SkipUNet", small)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    coffee = images.from_uint8(skimage.data.coffee())
    (tmp_path / "Set5").mkdir()
    for name, place in {"small": 16, "photo": 64, "Set5/baby": 64, "Set5/bird": 72}.items():
        images.write(tmp_path / f"{name}.png", coffee[60 : 60 + place, 330 : 330 + place])
    return tmp_path


def run(line):
    """A command as it stands, but for two iterations to a fit."""
    name, *arguments = line
    module = importlib.import_module(name)
    if name == "experiments.dip" or "--method" in arguments:
        if "--iterations" in arguments:
            place = arguments.index("--iterations")
            del arguments[place : place + 2]
        arguments += ["--iterations", "2"]
    assert command.main(module.Settings, module.run, arguments) == 0, line


def is_trained(line):
    return line[0] == "experiments.import_lapsrn" or "--checkpoint" in line


def test_readmes_tasks_run(desk):
    """But for super-resolution, which the tutorial's do."""
    stripes = np.ones((64, 64, 1))
    stripes[::4] = 0
    images.write(desk / "known.png", stripes)
    for name in ("grainy", "torn"):
        (desk / f"{name}.png").symlink_to(desk / "photo.png")
    asked = [line for line in commands(ROOT / "README.md") if "--task" in line]
    assert len(asked) == 3
    for line in asked:
        run(line)
    assert len(list(desk.glob("runs/dip/*/report.html"))) == 3


def test_the_tutorial_runs(desk, capsys):
    lines = commands(ROOT / "docs" / "TUTORIAL.md")
    untrained = [line for line in lines if not is_trained(line)]
    assert len(untrained) == 7
    for line in untrained:
        run(line)
    assert "protocol" in capsys.readouterr().out
    assert (desk / "runs/dip/small_x4_charbonnier_seed0/sr.png").stat().st_size
    assert (desk / "losses.html").stat().st_size > 1000
    assert (desk / "runs/set5-dip/scores.csv").read_text().count("\n") == 4


def test_the_tutorial_of_trained_networks_runs(desk, shared):
    (desk / "LapSRN_x4.mat").symlink_to(shared / "weights" / "LapSRN_x4.mat")
    trained = [line for line in commands(ROOT / "docs" / "TUTORIAL.md") if is_trained(line)]
    assert len(trained) == 2
    for line in trained:
        run(line)
    assert (desk / "runs/set5-lapsrn/scores.json").stat().st_size


def test_the_tutorials_python_runs(desk, capsys):
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/TUTORIAL.md").read_text(), re.DOTALL
    )
    assert "iterations=2000" in block
    names = {}
    exec(block.replace("iterations=2000", "iterations=2"), names)
    ours, bicubic = capsys.readouterr().out.splitlines()
    result = np.asarray(names["result"].image[0])
    assert ours == str(names["protocol"].score(result, names["hr"], 4))
    assert "'psnr'" in bicubic and bicubic != ours


def test_numbers_are_as_wide_as_ever(monkeypatch):
    """Of 64 bits, the noise of a resumed run would be another."""
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    jax.config.update("jax_enable_x64", True)
    try:
        assert command.main(Nothing, lambda _: jnp.ones(()).dtype.itemsize, []) == 4
    finally:
        jax.config.update("jax_enable_x64", False)


def test_a_line_of_a_name_with_two_is_one(monkeypatch, capsys):
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    assert command.main(dip.Settings, dip.run, ["--hr", "no\nsuch.png"]) == 2
    assert capsys.readouterr().err.startswith("error: `no\\nsuch.png` ")
