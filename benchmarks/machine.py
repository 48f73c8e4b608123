"""Where a benchmark runs: the machine and the versions, and the memory that it took there."""

import os
import pathlib
import re
import resource
import sys
from typing import Any

import jax

from jaxsr import reports


def environment(*, alone: bool) -> dict[str, Any]:
    """The machine and the versions, PyTorch's among them."""
    found = reports.environment(jax.devices()[0])
    if not alone:
        import torch

        found["versions"]["torch"] = torch.__version__
        found["torch_threads"] = reports.cores()
    return found


def peak_rss_bytes() -> int:
    """The largest this process has been, all programs so far included."""
    status = pathlib.Path("/proc/self/status")  # Linux: its `ru_maxrss` begins with the parent's
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_bytes() -> int | None:
    """The most that this process has had allocated by JAX so far; None where it does not count.

    On a GPU this includes the memory in which the compiler tried kernels.
    """
    counted = jax.devices()[0].memory_stats()
    return counted["peak_bytes_in_use"] if counted else None


def program_bytes(program: Any) -> int:
    """The memory of a compiled program, as the compiler counts: arguments, results, in between."""
    memory = program.memory_analysis()
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes  # what is donated counts once
    total: int = memory.argument_size_in_bytes + memory.temp_size_in_bytes + own
    return total


def child_environment(cache: str) -> dict[str, str]:
    """A process's environment in which programs are cached in a folder, as the experiments do."""
    own = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    return os.environ | own
