import csv
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import reports
from jaxsr.errors import InputError


def test_json_keeps_order_and_numbers(tmp_path):
    record = {
        "psnr_rgb": np.float32(22.4),
        "perfect": math.inf,
        "bad": jnp.float32(jnp.nan),
        "bicubic": {"ssim": 0.1 + 0.2, "list": [np.int64(3), -np.inf, True, None]},
        "array": np.array([0.1, 0.2], np.float32),
        "bf16": jnp.bfloat16(0.1),
        "image": tmp_path / "é.png",
    }
    reports.write_json(tmp_path / "a.json", record)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "psnr_rgb": 22.4,\n  "perfect": "inf",\n  "bad": "nan",\n')
    assert text.endswith("}\n")
    back = json.loads(text, parse_constant=pytest.fail)
    assert list(back) == list(record)
    assert back["bicubic"] == {"ssim": 0.1 + 0.2, "list": [3, "-inf", True, None]}
    assert back["array"] == [0.1, 0.2]
    assert jnp.bfloat16(back["bf16"]) == record["bf16"]
    assert back["image"] == str(record["image"])
    assert float(back["perfect"]) == math.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_reads_back_bit_for_bit(tmp_path, dtype):
    rng = np.random.default_rng(0)
    integers = np.uint32 if dtype is np.float32 else np.uint64
    random_bits = rng.integers(0, np.iinfo(integers).max, 2000, integers).view(dtype)
    values = np.concatenate([random_bits, np.array([0.1, -0.0, 1e-42, np.inf, np.nan], dtype)])
    values = np.where(np.isnan(values), dtype(np.nan), values)
    counts = np.arange(len(values))
    reports.write_csv(tmp_path / "a.csv", {"loss": values, "a, b": counts})
    with open(tmp_path / "a.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["iteration", "loss", "a, b"]
    assert [int(row[0]) for row in rows] == list(range(1, len(values) + 1))
    back = np.array([dtype(row[1]) for row in rows])
    np.testing.assert_array_equal(back.view(integers), values.view(integers))
    assert [int(row[2]) for row in rows] == counts.tolist()
    found = reports.read_csv(tmp_path / "a.csv")
    assert list(found) == ["iteration", "loss", "a, b"]
    np.testing.assert_array_equal(found["iteration"], counts + 1)
    np.testing.assert_array_equal(found["loss"].astype(dtype), values)
    first = (tmp_path / "a.csv").read_bytes()
    reports.write_csv(tmp_path / "a.csv", {"loss": values, "a, b": counts})
    assert (tmp_path / "a.csv").read_bytes() == first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "iteration,loss\n1,0.5\n2\n",
        "iteration,loss\n1,x\n",
        "a,b\n1,2,3\n1,2,3\n",
    ],
)
def test_a_damaged_csv_is_told(tmp_path, text):
    path = tmp_path / "a.csv"
    for _ in range(2):  # damaged, then missing
        path.write_text(text) if text is not None else path.unlink()
        with pytest.raises(InputError, match=r"a.csv` cannot be read .*: it must be as"):
            reports.read_csv(path)
        text = None


def test_a_csv_of_no_lines_has_its_columns(tmp_path):
    reports.write_csv(tmp_path / "a.csv", {"loss": []})
    assert {k: len(x) for k, x in reports.read_csv(tmp_path / "a.csv").items()} == {
        "iteration": 0,
        "loss": 0,
    }


def test_csv_writes_short_numbers(tmp_path):
    reports.write_csv(tmp_path / "a.csv", {"psnr": jnp.array([22.4, 0.1, 1e-8], jnp.float32)})
    assert (tmp_path / "a.csv").read_text() == "iteration,psnr\n1,22.4\n2,0.1\n3,1e-08\n"
    reports.write_csv(tmp_path / "a.csv", {"loss": [0.5]}, count="epoch")
    assert (tmp_path / "a.csv").read_text() == "epoch,loss\n1,0.5\n"


@pytest.mark.parametrize(
    "columns", [{}, {"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros((2, 2))}]
)
def test_csv_refuses_ragged_columns(tmp_path, columns):
    with pytest.raises(InputError, match=r"`columns` \(of shapes .* must be 1-D and equally long"):
        reports.write_csv(tmp_path / "a.csv", columns)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_told(tmp_path):
    path = tmp_path / "missing" / "file.json"
    for write in (
        lambda: reports.write_json(path, {}),
        lambda: reports.write_csv(path, {"a": np.zeros(2)}),
    ):
        with pytest.raises(InputError, match=r"file.json` cannot be written: No such file"):
            write()


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"a": NaN', "[]", "1", b"\xff", ""], ids=len)
def test_a_damaged_json_is_told(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"a.json` is damaged") as told:
        reports.read_json(tmp_path / "a.json")
    assert "\n" not in str(told.value)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process has cores of its own")
def test_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert reports.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert reports.cores() == 64


def test_environment_names_versions_and_hardware():
    record = reports.environment(jax.devices("cpu")[0])
    assert record["versions"]["jax"] == jax.__version__
    assert record["versions"]["numpy"] == np.__version__
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["device"]["platform"] == "cpu"
    assert record["device"]["cpu"] and record["device"]["cores"] >= 1
    assert json.loads(json.dumps(record)) == record


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_environment_names_the_widest_vectors_and_the_commit(monkeypatch, tmp_path):
    cpuinfo = "processor : 0\nmodel name : Some CPU\nflags : sse avx avx2 {}\n\nprocessor : 1\n"
    real = pathlib.Path.read_text
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]

    def commit(message):
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", message], check=True)

    def found():
        reports._commit.cache_clear()
        return reports.environment(jax.devices("cpu")[0])

    (tmp_path / "jaxsr").mkdir()
    monkeypatch.setattr(reports.jaxsr, "__file__", str(tmp_path / "jaxsr" / "__init__.py"))
    for more, vectors in (("avx512f", "AVX-512"), ("", "AVX2")):
        with monkeypatch.context() as patched:
            text = cpuinfo.format(more)
            patched.setattr(
                pathlib.Path,
                "read_text",
                lambda p, **o: text if str(p) == "/proc/cpuinfo" else real(p, **o),  # noqa: B023
            )
            record = found()
        assert record["device"]["vectors"] == vectors
        assert record["device"]["cpu"] == "Some CPU" and "commit" not in record

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "a.py").write_text("1")
    commit("one")
    command = [*git, "rev-parse", "HEAD"]
    head = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert len(found()["commit"]) >= 7 and head.startswith(found()["commit"])
    (tmp_path / "a.py").write_text("2")
    assert found()["commit"][-1] == "+" and head.startswith(found()["commit"][:-1])
    monkeypatch.setenv("PATH", "")
    assert "commit" not in found()
    reports._commit.cache_clear()


def test_environment_of_a_gpu_names_its_runtime_and_cudnn(monkeypatch):
    class Named(dict):
        metadata = property(lambda self: self)

    installed = [Named(Name=x) for x in ("nvidia-cudnn-cu12", "numpy", "nvidia-cublas-cu12", None)]
    metadata = reports.importlib.metadata
    real = metadata.version
    monkeypatch.setattr(metadata, "distributions", lambda: installed)
    monkeypatch.setattr(metadata, "version", lambda x: "9.10" if "cudnn" in x else real(x))
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0 --xla_dump_to=dumps/mine")
    client = types.SimpleNamespace(platform_version="PJRT, cuda 12090")
    device = types.SimpleNamespace(platform="gpu", device_kind="H100", client=client)
    record = reports.environment(device)
    assert record["device"]["runtime"] == "PJRT, cuda 12090"
    assert record["device"]["xla_flags"] == "--xla_gpu_autotune_level=0"
    assert record["versions"]["nvidia-cudnn-cu12"] == "9.10"
    assert "nvidia-cublas-cu12" not in record["versions"]
    assert "runtime" not in reports.environment(jax.devices("cpu")[0])["device"]
