"""One fit: from the image to a folder of results."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments import command, finished, folder, networks, pages, problem, traces
from experiments.recipes import Settings
from jaxsr import dip
from jaxsr.errors import within_memory
from jaxsr.models import INPAINTING
from jaxsr.reports import environment

SNAPSHOTS = tuple(digit * 10**power for power in range(1, 6) for digit in (1, 2, 5))


def run(
    settings: Settings,
    *,
    on: jax.Device | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """One fit; the exit code.

    Args:
      settings: of the fit.
      on: the device, if not that of the settings.
      stop: asked between chunks; a true answer ends the fit as Ctrl-C does.

    Raises:
      InputError: a setting is out of its range, a file cannot be read, or the folder not be used.
    """
    settings = settings.resolved()
    loss, config = settings.loss_function(), settings.config()
    on = on or command.device(settings.device)
    with command.computing(on, settings.precision):
        with within_memory("the image"):
            task = problem.load(settings)
        out = settings.out or default_folder(settings, task.name)
        with folder.RunFolder(out, settings, task) as results:
            if results.finished(config.iterations):
                print(f"{out} is finished: {results.summary()}")
                pages.beside(finished.read, out)
                return 0
            network = networks.prior(
                settings.precision,
                **(INPAINTING if settings.task == "inpaint" else {}),
                channels=task.observed.shape[-1],
                remat=settings.remat,
            )
            functions: dict[str, Any] = {"init_fn": network.init, "apply_fn": network.apply}
            size = task.canvas(2 ** len(network.down))
            key = jax.random.key(settings.seed)
            start = functools.partial(dip.init, key, size=size, config=config, **functions)
            resume = results.restore(start)
            with (
                within_memory(f"{task.name}, of {size[1]}x{size[0]} pixels,"),
                results.progress(config.iterations) as bar,
            ):

                def on_chunk(progress: dip.Progress) -> bool:
                    bar.show(progress)
                    results.keep(progress, settings.checkpoint_every, SNAPSHOTS)
                    return stop()

                result = dip.fit(
                    key,
                    jnp.asarray(task.observed)[None],
                    task.operator(),
                    size=size,
                    loss=loss,
                    config=config,
                    regulariser=settings.regulariser(),
                    reference=task.reference(),
                    score=task.score,
                    on_chunk=on_chunk,
                    pauses=folder.pauses(config.iterations, settings.checkpoint_every, SNAPSHOTS),
                    resume=resume,
                    traces=traces.folder(settings, task, network, on=on),
                    **functions,
                )
            results.write_images(result)
            done = int(result.state.step)
            if not result.finite:
                kept = f"the state of iteration {done} is kept in {out}; " if done else ""
                print(
                    f"the loss or a weight became NaN or infinite: {kept}"
                    f"try a lower --learning-rate (={settings.learning_rate})"
                )
                return 1
            if not result.over:
                print(
                    f"stopped at iteration {done} of {config.iterations}, image and checkpoint in "
                    f"{out}"
                )
                return command.INTERRUPTED
            results.write_report(result, environment(on) | {"precision": settings.precision})
            print(results.summary())
    pages.beside(finished.read, out)
    return 0


def default_folder(settings: Settings, name: str) -> pathlib.Path:
    """Where the results of an image go, unless the settings say."""
    how = f"x{settings.factor}" if settings.task == "sr" else settings.task
    return pathlib.Path(f"runs/dip/{name}_{how}_{settings.loss}_seed{settings.seed}")
