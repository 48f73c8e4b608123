"""What a run leaves for its reader: JSON and CSV, each whole, the same bytes every time."""

import contextlib
import csv
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import jaxsr
from jaxsr.errors import InputError
from jaxsr.files import atomic

Path = str | os.PathLike[str]


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


def environment(device: jax.Device) -> dict[str, Any]:
    """What a number depends on besides the code: the versions, and what it was computed on.

    Keys `device` (platform, kind, cpu, cores that this process may use, the environment's
    XLA_FLAGS where it has any, on a GPU or TPU its runtime) and `versions`, cuDNN's on a GPU.
    """
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ["jax", "jaxlib", "flax", "optax", "numpy", "pillow"]
    where = {"platform": device.platform, "kind": device.device_kind, "cpu": cpu, "cores": cores}
    if flags := os.environ.get("XLA_FLAGS"):
        where["xla_flags"] = flags
    if device.platform != "cpu":
        where["runtime"] = device.client.platform_version
        installed = {x.metadata["Name"] or "" for x in importlib.metadata.distributions()}
        packages += sorted(x for x in installed if x.startswith("nvidia-cudnn"))
    versions = {package: importlib.metadata.version(package) for package in packages}
    python = {"python": platform.python_version(), "jaxsr": jaxsr.__version__}
    return {"device": where, "versions": python | versions}
