"""What a run leaves for its reader: JSON and CSV, each whole, the same bytes every time."""

import contextlib
import csv
import functools
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import jaxsr
from jaxsr.errors import InputError
from jaxsr.files import atomic

Path = str | os.PathLike[str]

_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}  # the widest first


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON, keys in their order, two spaces of indentation.

    JSON knows no infinities: they and NaN become the strings "inf", "-inf" and "nan", which `float`
    reads back. A float32 is written with the digits that tell it from its neighbours, what of a
    file's name is no text as an escape.

    Raises:
      InputError: the file cannot be written.
    """
    text = json.dumps(_as_json(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """The record in a JSON file.

    Raises:
      InputError: the file is missing or damaged, or holds no object.
    """
    try:
        record = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"`{path}` is damaged ({reason}): it must be as a run wrote it") from error
    if not isinstance(record, dict):
        raise InputError(f"`{path}` is damaged: it must hold a JSON object")
    return record


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.ndim:
            return [_as_json(item) for item in array]
        value = float(str(array[()])) if array.dtype.kind in "fV" else array.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_csv(path: Path, columns: Mapping[str, Any], *, count: str = "iteration") -> None:
    """Writes 1-D arrays of equal length as columns after one called `count`, from 1.

    Floats have the fewest digits that read back as the same number of their dtype, or nan, inf.

    Raises:
      InputError: the columns are not 1-D and equally long, or the file cannot be written.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(min(shapes)) != 1:
        raise InputError(f"`columns` (of shapes {sorted(shapes)}) must be 1-D and equally long")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([count, *arrays])
    for i, row in enumerate(zip(*arrays.values(), strict=True), start=1):
        writer.writerow([i, *map(str, row)])
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """The columns that `write_csv` wrote, by name, the count first; float64.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        if not names or any(len(row) != len(names) for row in rows):
            raise ValueError("its lines must have one number a column")
        values = np.array(rows, np.float64).reshape(len(rows), len(names))
    except (OSError, ValueError, csv.Error) as error:
        rule = "it must be as `write_csv` left it"
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"`{path}` cannot be read ({reason}): {rule}") from error
    return dict(zip(names, values.T, strict=True))


def environment(device: jax.Device) -> dict[str, Any]:
    """What a number depends on: the code, the versions, and what it was computed on.

    Keys `device` (platform, kind, cpu, cores that this process may use, the widest vectors of an
    x86 CPU, what the environment's XLA_FLAGS hold but paths, on a GPU or TPU its runtime),
    `versions`, cuDNN's on a GPU, and, of a checkout, `commit`, with a + where a file differs from
    it.
    """
    cpu = {"model name": platform.processor() or platform.machine()}
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu |= {key.strip(): x.strip() for key, _, x in (line.partition(":") for line in lines)}
    packages = ["jax", "jaxlib", "flax", "optax", "numpy", "pillow"]
    where = {"platform": device.platform, "kind": device.device_kind, "cpu": cpu["model name"]}
    where["cores"] = cores()
    has = cpu.get("flags", "").split()
    if vectors := [name for flag, name in _VECTORS.items() if flag in has]:
        where["vectors"] = vectors[0]
    flags = " ".join(x for x in os.environ.get("XLA_FLAGS", "").split() if "/" not in x)
    if flags:
        where["xla_flags"] = flags
    if device.platform != "cpu":
        where["runtime"] = device.client.platform_version
        installed = {x.metadata["Name"] or "" for x in importlib.metadata.distributions()}
        packages += sorted(x for x in installed if x.startswith("nvidia-cudnn"))
    versions = {package: importlib.metadata.version(package) for package in packages}
    python = {"python": platform.python_version(), "jaxsr": jaxsr.__version__}
    commit = _commit()
    return {
        "device": where,
        "versions": python | versions,
        **({"commit": commit} if commit else {}),
    }


def cores() -> int:
    """Of the machine, as many as this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _commit() -> str | None:
    root = pathlib.Path(jaxsr.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always"]
    command += ["--exclude=*", "--dirty=+"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
