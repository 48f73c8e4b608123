"""Many fits at once: images by seeds, shared out over the processes, each device with one.

A fit's arithmetic keeps a core or a GPU busy by itself, so that fits beside each other gain most on
devices of their own (`python -m benchmarks.fits`): nothing is exchanged between them, and no
array is larger than one fit's. What is finished is a record in its folder, and is not done again.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import queue
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from experiments import command, restoration
from experiments.recipes import Settings
from jaxsr import options
from jaxsr.errors import InputError, within_memory


class Fit(NamedTuple):
    """One fit, of an image by a seed, and the folder of all fits of its image."""

    name: str
    settings: Settings  # resolved; `out` is the fit's own folder
    folder: pathlib.Path


class Outcome(NamedTuple):
    """What became of the fits that were this process's."""

    done: tuple[str, ...]
    left_out: dict[str, str]  # with the reason
    stopped: bool


def share(fits: Sequence[Fit]) -> list[Fit]:
    """Those that are this process's: every n-th of n processes'."""
    return list(fits[jax.process_index() :: jax.process_count()])


def devices(name: command.Device, at_once: int | None) -> list[jax.Device]:
    """A device for each of the fits that this process computes at once.

    Raises:
      InputError: there is none of the name.
    """
    first = command.device(name)
    found = jax.local_devices(backend=first.platform)
    count = at_once or len(found)
    return [found[i % len(found)] for i in range(count)]


def run(
    fits: Sequence[Fit],
    on: Sequence[jax.Device],
    *,
    stop: Callable[[], bool],
    after: Callable[[Fit], None],
) -> Outcome:
    """Computes the fits, one at a time on each device.

    What goes wrong with one is told, and does not keep the others.

    Args:
      fits: in this order.
      on: the devices; one named twice computes two at once.
      stop: asked by all of them between chunks.
      after: called when a fit is finished, from its thread.
    """
    free: queue.SimpleQueue[jax.Device] = queue.SimpleQueue()
    for device in on:
        free.put(device)
    done, left_out = [], {}

    def one(fit: Fit) -> None:
        if stop():
            return
        device = free.get()
        try:
            with within_memory("its fit"):
                code = restoration.run(fit.settings, on=device, stop=stop)
                if code == 0:
                    after(fit)
            if code == 0:
                done.append(fit.name)
            elif code != command.INTERRUPTED:
                left_out[fit.name] = "its fit diverged"
        except InputError as error:
            left_out[fit.name] = str(error)
        except OSError as error:
            left_out[fit.name] = options.refused(error)
        finally:
            free.put(device)

    with concurrent.futures.ThreadPoolExecutor(len(on)) as pool:
        try:
            for future in concurrent.futures.as_completed([pool.submit(one, fit) for fit in fits]):
                future.result()
        except KeyboardInterrupt:  # the second Ctrl-C: nothing else ends threads at work
            print("stopped", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError, RuntimeError):  # a closed pipe; a thread is printing
                sys.stdout.flush()
            os._exit(command.INTERRUPTED)
    for name, reason in left_out.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    return Outcome(tuple(done), left_out, len(done) + len(left_out) < len(fits))
