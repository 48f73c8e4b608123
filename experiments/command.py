"""What every experiment's command line does alike: settings, device, precision, errors, Ctrl-C."""

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Literal, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.record import unusable
from jaxsr import files, options
from jaxsr.errors import InputError
from jaxsr.reports import cores

Settings = TypeVar("Settings")
Precision = Literal["float32", "tf32", "bfloat16"]
Device = Literal["auto", "cpu", "gpu", "tpu"]

INTERRUPTED = options.INTERRUPTED
ACKNOWLEDGED = b"\nstopping at the next chance; Ctrl-C again ends at once, and saves nothing more\n"
WEEK = 7 * 24 * 3600  # for which a process waits at its end for the others


class Stopped(Exception):
    """Raised where work of many parts was asked to stop: not by Python at a Ctrl-C, which ends."""


def main(
    settings: type[Settings], run: Callable[[Settings], int], args: Sequence[str] | None = None
) -> int:
    """`options.main` with the compilation cache, in float32."""

    def prepared(parsed: Settings) -> int:
        use_compilation_cache()
        jax.config.update("jax_enable_x64", False)  # else a run would go on with other noise
        return run(parsed)

    return options.main(settings, prepared, args)


def make(out: pathlib.Path, *parts: str) -> None:
    """Makes the folder of `--out`, and folders in it.

    Raises:
      InputError: the operating system refuses.
    """
    try:
        for part in ("", *parts):
            (out / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(out, error) from error


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, where the user has not said otherwise, or no home.

    In a folder for each number of cores: a CPU's program is cut for as many as there were when it
    was compiled, and JAX's cache would give it to a run on others, slower and rounded otherwise.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        try:
            folder = str(files.cache())
        except InputError:
            return
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/{cores()}-cores")


def device(name: Device) -> jax.Device:
    """This process's first device of a platform; `auto` is JAX's own choice.

    Raises:
      InputError: there is none.
    """
    try:
        present = sorted({d.platform for d in jax.devices()})
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        raise InputError(
            f"`JAX_PLATFORMS` (={asked}) must name what JAX can use here, cpu for one: it finds no "
            "device"
        ) from error
    try:
        return jax.local_devices(backend=None if name == "auto" else name)[0]
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"`--device` (={name}) must be one that JAX finds here: {', '.join(present)}"
        ) from error


def split_cpu(most: int) -> None:
    """Before JAX's first use: a CPU device for each core, but not more than `most`.

    Where the environment has said how many there are, or JAX is in use, that stands.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", max(1, min(most, cores())))


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Take part in a computation of several processes, where one is named; before any other use.

    Raises:
      InputError: the three do not go together, or the others cannot be reached.
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise InputError("`--processes` and `--process` go with `--coordinator` HOST:PORT")
        return
    try:
        if coordinator == "auto":
            jax.distributed.initialize(shutdown_timeout_seconds=WEEK)
        else:
            if processes is None or process is None:
                rule = "needs `--processes` and `--process`"
                raise InputError(f"`--coordinator` (={coordinator}) {rule}")
            if not 0 <= process < processes:
                raise InputError(
                    f"`--process` (={process}) must be in [0, `--processes` (={processes}))"
                )
            if not coordinator.rpartition(":")[2].isdigit() or coordinator.startswith(":"):
                raise InputError(f"`--coordinator` (={coordinator}) must be HOST:PORT, or auto")
            jax.distributed.initialize(
                coordinator, processes, process, shutdown_timeout_seconds=WEEK
            )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"`--coordinator` (={coordinator}) cannot be joined: {error}") from error


def anyone(pressed: bool) -> bool:
    """Whether this is so in one of the processes, all of which ask; they may stop together then."""
    if jax.process_count() == 1:
        return pressed
    return bool(multihost_utils.process_allgather(np.array(pressed)).any())


@contextlib.contextmanager
def computing(on: jax.Device, precision: Precision) -> Iterator[None]:
    """Compute on a device; float32 products are exact unless another precision is asked for."""
    products = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}[precision]
    with jax.default_device(on), jax.default_matmul_precision(products):
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C was pressed; a second Ctrl-C ends the program.

    The first is acknowledged at once, for what is at work may take some seconds to end.
    """
    pressed = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed = True
        with contextlib.suppress(OSError):
            os.write(2, ACKNOWLEDGED)  # not by `sys.stderr`, which may be in the middle of a line

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
