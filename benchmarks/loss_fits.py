"""The fits of `benchmarks.losses`, on all devices and kept in files; and how fast each loss is."""

import concurrent.futures
import dataclasses
import json
import pathlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours, timing
from benchmarks.dip import default_iterations
from jaxsr import dip, losses, operators, reports
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from jaxsr.protocols import PROTOCOLS

PROTOCOL, FACTOR, SCALE = PROTOCOLS["paper-dip"], 4, 0.05
OPERATOR = operators.downsample(FACTOR, kernel=PROTOCOL.kernel)
GENERAL = {f"general-{a:g}": losses.general(a, scale=SCALE) for a in (0, 0.5, 1.5)}
LOSSES = {name: losses.LOSSES[name] for name in ("mse", "l1", "charbonnier", "huber")} | GENERAL
HISTORIES = ("psnr", "psnr_output")
ROUNDS = 5
Key = tuple[str, int]  # loss and seed
Record = dict[str, Any]
T = TypeVar("T")


def fit(
    truth: np.ndarray,
    low: np.ndarray,
    loss: str,
    seed: int,
    config: dip.Config,
    stopped: threading.Event,
) -> Record | None:
    """One fit: its histories, dB, one an iteration; None: it was stopped.

    After an overflow, which is printed, they are NaN.
    """
    network = SkipUNet(channels=truth.shape[-1])
    result = dip.fit(
        jax.random.key(seed),
        jnp.asarray(low)[None],
        OPERATOR,
        init_fn=network.init,
        apply_fn=network.apply,
        size=(truth.shape[0], truth.shape[1]),
        loss=LOSSES[loss],
        config=config,
        reference=jnp.asarray(truth)[None],
        on_chunk=lambda _: stopped.is_set(),
    )
    if result.finite and not result.over:
        return None
    if not result.finite:
        print(f"{loss}, seed {seed}: overflowed after iteration {result.iterations}", flush=True)
    rest = (0, config.iterations - result.iterations)
    columns = {name: result.history[name] for name in HISTORIES}
    return {name: np.pad(x, rest, constant_values=np.nan) for name, x in columns.items()}


def fit_all(keys: Sequence[Key], one: Callable[[Key, threading.Event], None]) -> None:
    """Computes fits, one at a time on each device; an exception ends those begun."""
    free: queue.SimpleQueue[jax.Device] = queue.SimpleQueue()
    stopped, devices = threading.Event(), jax.local_devices()
    for device in devices:
        free.put(device)

    def on_one(key: Key) -> None:
        if stopped.is_set():
            return
        device = free.get()
        try:
            with jax.default_device(device), jax.default_matmul_precision("highest"):
                one(key, stopped)
        finally:
            free.put(device)

    with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        try:
            for done in concurrent.futures.as_completed([pool.submit(on_one, key) for key in keys]):
                done.result()
        except BaseException:
            stopped.set()
            raise


def speeds(path: pathlib.Path, made: Record, truth: np.ndarray, names: Sequence[str]) -> Record:
    """Iterations a second of one fit with each loss, timed in turns: median and spread over rounds.

    Those in the file, where it has all of the names; otherwise timed anew, with all that it has,
    and written to it.
    """
    before = read(path, made, lambda record: dict(record["speeds"])) if path.exists() else {}
    if before.keys() >= {*names}:
        return {name: before[name] for name in names}
    timed = dict.fromkeys((*before, *names))
    size, channels = (truth.shape[0], truth.shape[1]), truth.shape[2]
    start = ours.fit_of(size, model=SkipUNet(channels=channels), loss="mse")
    start = dataclasses.replace(start, target=start.target[..., :channels], operator=OPERATOR)
    units, programs = default_iterations(size), {}
    with jax.default_matmul_precision("highest"):
        for name in timed:
            programs[name] = dataclasses.replace(start, loss=LOSSES[name]).compiled(units).call
    times = timing.interleaved(programs, rounds=ROUNDS, units=units)
    found = {
        name: {"iterations_per_second": 1 / time.median, "spread": time.spread / time.median**2}
        for name, time in times.items()
    }
    reports.write_json(path, {"made": made, "speeds": found})
    return {name: found[name] for name in names}


def read(path: pathlib.Path, made: Record, content: Callable[[Record], T]) -> T:
    """What is asked for of a file of an earlier call.

    Raises:
      InputError: it is damaged, or was made under other settings or versions, or elsewhere.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before = {name: record["made"][name] for name in made}
        found = content(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"`{path}` is damaged ({error!r}): delete it to go on") from error
    for name, value in made.items():
        if before[name] != value:
            rule = f"must be that of {path} (={before[name]})"
            raise InputError(f"`{name}` (={value}) {rule}: choose another `--out`")
    return found


def kept(folder: pathlib.Path, made: Record) -> dict[Key, Record]:
    """The finished fits in a folder, by loss and seed.

    Raises:
      InputError: as `read`.
    """

    def histories(cell: Record) -> tuple[Key, Record]:
        columns = {name: np.array(cell[name], np.float64) for name in HISTORIES}
        return (cell["loss"], cell["seed"]), columns

    paths = sorted(folder.glob("[!.]*.json"))  # hidden: what a kill left of an unfinished one
    return dict(read(path, made, histories) for path in paths)
