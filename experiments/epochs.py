"""The epochs of a training: its steps, and after each epoch what is measured and kept."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import command
from experiments.training_folder import TrainingFolder
from jaxsr import chunks, losses, training
from jaxsr.datasets import patches
from jaxsr.models.luma import Network
from jaxsr.reports import environment


def train(
    state: training.State,
    bank: patches.Bank,
    stacks: list[np.ndarray],
    settings: Any,
    model: Network,
    config: training.Config,
    mesh: Mesh,
    folder: TrainingFolder,
) -> int:
    """Train until all epochs are done, or Ctrl-C; the exit code."""
    schedule = training.schedule(config)
    total, done = settings.epochs * settings.iterations, int(state.step)
    alone = jax.process_count() == 1
    on_device = [jnp.asarray(stack) for stack in stacks]
    with (
        command.interruptible() as interrupted,
        tqdm.tqdm(total=total, initial=done, unit="step", disable=not folder.leads) as bar,
    ):
        started = time.perf_counter()
        run = training.run.lower(
            state,
            bank,
            0,
            length=min(settings.iterations, chunks.LENGTH),
            model=model,
            config=config,
            loss=losses.LOSSES[settings.loss],
            sharding=NamedSharding(mesh, PartitionSpec("data")),
        ).compile()
        folder.compile_seconds = time.perf_counter() - started
        count = 1
        for epoch in range(done // settings.iterations, settings.epochs):
            started, found, left = time.perf_counter(), [], settings.iterations
            while left:
                count, called = min(count, left), time.perf_counter()
                state, metrics = run(state, bank, count)
                found.append(jax.device_get(metrics["loss"])[:count])
                bar.update(count)
                left -= count
                if left and interrupted() and alone:
                    return _stopped(folder, bar, epoch)
                # Processes have to agree on it, whatever their clocks say.
                elapsed = time.perf_counter() - called
                count = chunks.following(count, elapsed) if alone else chunks.FEW
            loss = float(np.concatenate(found).mean(dtype=np.float64))
            seconds = time.perf_counter() - started
            if not (math.isfinite(loss) and _is_finite(state.variables)):
                folder.say(
                    f"the loss or a weight became NaN or infinite in epoch {epoch + 1}; "
                    f"{_kept(epoch)} in {folder.path}; try a lower --learning-rate "
                    f"(={settings.learning_rate})"
                )
                return 1
            row: dict[str, Any] = {
                "loss": loss,
                "learning_rate": float(schedule(epoch * settings.iterations)),
                "images_per_second": settings.batch * settings.iterations / seconds,
            }
            if stacks:
                row["psnr"] = training.mean_psnr(
                    jax.device_get(state.variables), on_device, model=model
                )
                bar.set_postfix(loss=f"{loss:.5f}", psnr=f"{row['psnr']:.3f} dB")
            folder.keep(epoch + 1, state, model, row)
            if command.anyone(interrupted()) and epoch + 1 < settings.epochs:
                return _stopped(folder, bar, epoch + 1)
    folder.write_report(environment(mesh.local_devices[0]) | {"precision": settings.precision})
    return 0


def _stopped(folder: TrainingFolder, bar: tqdm.tqdm, epochs: int) -> int:
    bar.close()
    folder.say(f"stopped, {_kept(epochs)} in {folder.path}")
    folder.say("the same command goes on from there")
    return command.INTERRUPTED


def _kept(epochs: int) -> str:
    return "1 epoch is kept" if epochs == 1 else f"{epochs} epochs are kept"


def _is_finite(variables: Any) -> bool:
    return all(np.isfinite(array).all() for array in jax.tree.leaves(jax.device_get(variables)))
