"""Training of LapSRN or a relative by the recipe of "Robust Loss with Deep Image Prior" (3.2).

    python -m experiments.lapsrn --level-weights 1 1 --data bsds300     4x, as the paper
    python -m experiments.lapsrn --data photos --scale 2 --depth 10     your own images
    python -m experiments.lapsrn --no-residual                          an ablation
    python -m experiments.lapsrn --network srcnn                        related work

50 epochs of 30 steps; README says how long they take and what comes out. The folder it leaves is
what `--checkpoint` of `experiments.upscale` and `experiments.evaluate` takes.
"""

import dataclasses
import functools
import math
import pathlib
import sys
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import command, networks, training_data
from experiments.training_folder import TrainingFolder
from jaxsr import losses, training
from jaxsr.datasets import patches
from jaxsr.errors import InputError
from jaxsr.models.luma import Network
from jaxsr.reports import environment


@dataclasses.dataclass(frozen=True)
class Settings:
    """Training of LapSRN, or another network for luma."""

    data: str = "bsds300"
    """Training images: bsds300 (its 200, downloaded on first use; needs the extra `data`) or a
    folder."""
    test: pathlib.Path | None = None
    """Folder of images whose PSNR is told after every epoch. Default: BSDS300's 100 with
    --data bsds300, else none. Nothing is chosen by it."""
    manual_dir: pathlib.Path | None = None
    """Where BSDS300 lies already: its folder or its archive."""
    scale: Literal[2, 4, 8] = 4
    """Of the enlargement."""
    level_weights: tuple[float, ...] = ()
    """Of each level's loss, from the coarsest (the paper's w1, w2). Default: ones; for
    drcn half for the recursions together, half for the result."""
    network: networks.Name = "lapsrn"
    """--depth, --no-pyramid and --no-residual are of lapsrn; the others are as published."""
    loss: Literal["mse", "l1", "charbonnier", "huber"] = "charbonnier"
    """Of each level's image; means over pixels."""
    depth: int = 5
    """3x3 convolutions in a level."""
    pyramid: bool = True
    """Otherwise one jump from the low to the high resolution."""
    residual: bool = True
    """Otherwise the network draws the whole image, not what bilinear enlargement lacks."""
    epochs: int = 50
    """Of --iterations steps; PSNR and a checkpoint after each."""
    iterations: int = 30
    """Steps in an epoch."""
    batch: int = 16
    """Patches in a step."""
    parts: int | None = None
    """In which a batch's gradient is computed, one after another. Default 1; on a CPU, whose caches
    are small, 4 where the batch allows."""
    patch: int = 128
    """Side of a patch at high resolution, in pixels."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    halve_every: int = 10
    """Epochs after which the learning rate is halved."""
    weight_decay: float = 1e-4
    """As an L2 term, before Adam."""
    seed: int = 0
    """Of the weights and of all patches."""
    precision: command.Precision = "float32"
    """Of products of matrices; bfloat16 computes the whole network in half precision."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""
    devices: Literal["one", "all"] = "one"
    """all spreads each batch over every device of that kind, on all hosts."""
    coordinator: str | None = None
    """HOST:PORT of process 0, for training on several hosts (the same command on each, with
    --process); auto asks the cluster's scheduler for all three."""
    processes: int | None = None
    """How many take part."""
    process: int | None = None
    """Which one this is, from 0."""
    out: pathlib.Path | None = None
    """Output folder. Default: named by scale, loss, weights and seed under runs/lapsrn/."""

    def resolved(self) -> "Settings":
        """With the defaults that depend on others filled in.

        Raises:
          InputError: a setting is out of its range.
        """
        for name in ("epochs", "iterations", "halve_every"):
            if getattr(self, name) < 1:
                option = f"`--{name.replace('_', '-')}`"
                raise InputError(f"{option} (={getattr(self, name)}) must be at least 1")
        if self.seed < 0 or self.seed >= 2**32:
            raise InputError(f"`--seed` (={self.seed}) must be in [0, 2^32)")
        weights = self.level_weights or networks.level_weights(self.model())
        named = "-".join(f"{weight:g}" for weight in weights)
        switches = ("" if self.pyramid else "_jump") + ("" if self.residual else "_direct")
        named = f"_w{named}{switches}" if self.network == "lapsrn" else ""
        out = f"runs/{self.network}/x{self.scale}_{self.loss}{named}_seed{self.seed}"
        return dataclasses.replace(self, level_weights=weights, out=self.out or pathlib.Path(out))

    def model(self) -> Network:
        """The network; InputError where a setting does not go with it."""
        own = {"depth": self.depth, "pyramid": self.pyramid, "residual": self.residual}
        dtype = jnp.bfloat16 if self.precision == "bfloat16" else None
        return networks.build(self.network, self.scale, dtype, **own)

    def config(self, devices: int, platform: str) -> training.Config:
        """The training's part, for so many devices.

        Raises:
          InputError: a setting is out of its range, or the batch cannot be shared out.
        """
        possible = [p for p in (4, 2, 1) if self.batch % (p * devices) == 0]
        parts = possible[0] if platform == "cpu" and possible else 1
        parts = parts if self.parts is None else self.parts
        config = training.Config(
            level_weights=self.level_weights,
            batch=self.batch,
            parts=parts,
            size=self.patch,
            learning_rate=self.learning_rate,
            halve_every=self.halve_every * self.iterations,
            weight_decay=self.weight_decay,
        )
        if self.batch % (parts * devices):
            raise InputError(
                f"`--batch` (={self.batch}) must be a multiple of {parts} parts times {devices} "
                "devices"
            )
        return config


def run(settings: Settings) -> int:
    """The training, from the images to the folder; the exit code."""
    settings = settings.resolved()
    command.join(settings.coordinator, settings.processes, settings.process)
    on = command.device(settings.device)
    everywhere = settings.devices == "all" or jax.process_count() > 1
    mesh = Mesh(jax.devices(on.platform) if everywhere else [on], ("data",))
    model, config = settings.model(), settings.config(mesh.size, on.platform)
    images, tests = training_data.load(settings.data, settings.test, settings.manual_dir)
    with command.computing(on, settings.precision):
        bank = patches.bank(images, size=settings.patch)
        stacks = training_data.stacks(tests, settings.scale)
        everyone = NamedSharding(mesh, PartitionSpec())
        start = jax.jit(
            functools.partial(training.init, model=model, config=config), out_shardings=everyone
        )
        key = jax.random.key(settings.seed)
        shapes = jax.eval_shape(start, key)  # refuses what cannot be trained, before any file
        with TrainingFolder(settings, training_data.digests(bank, stacks)) as folder:
            if folder.finished():
                folder.say(f"{folder.path} is finished: {folder.summary()}")
                return 0
            state = folder.restore(shapes, everyone) or start(key)
            bank = training_data.shared(bank, everyone)
            return _epochs(state, bank, stacks, settings, model, config, mesh, folder)


def _epochs(
    state: training.State,
    bank: patches.Bank,
    stacks: list[np.ndarray],
    settings: Settings,
    model: Network,
    config: training.Config,
    mesh: Mesh,
    folder: TrainingFolder,
) -> int:
    """Train until all epochs are done, or Ctrl-C; the exit code."""
    schedule = training.schedule(config)
    total, done = settings.epochs * settings.iterations, int(state.step)
    with (
        command.interruptible() as interrupted,
        tqdm.tqdm(total=total, initial=done, unit="step", disable=not folder.leads) as bar,
    ):
        started = time.perf_counter()
        train_step = training.train_step.lower(
            state,
            bank,
            model=model,
            config=config,
            loss=losses.LOSSES[settings.loss],
            sharding=NamedSharding(mesh, PartitionSpec("data")),
        ).compile()
        folder.compile_seconds = time.perf_counter() - started
        for epoch in range(done // settings.iterations, settings.epochs):
            started, found = time.perf_counter(), []
            for _ in range(settings.iterations):
                state, metrics = train_step(state, bank)
                found.append(metrics["loss"])
                jax.block_until_ready(found[-2:-1])  # the device stays a step ahead of the bar
                bar.update()
                if interrupted() and jax.process_count() == 1:
                    return _stopped(folder, bar, epoch)
            loss = float(np.mean(jax.device_get(found), dtype=np.float64))
            seconds = time.perf_counter() - started
            if not (math.isfinite(loss) and _is_finite(state.variables)):
                folder.say(
                    f"the loss or a weight became NaN or infinite in epoch {epoch + 1}; {epoch} "
                    f"are kept in {folder.path}; try a lower --learning-rate "
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
                    jax.device_get(state.variables), stacks, model=model
                )
                bar.set_postfix(loss=f"{loss:.5f}", psnr=f"{row['psnr']:.3f} dB")
            folder.keep(epoch + 1, state, model, row)
            if command.anyone(interrupted()) and epoch + 1 < settings.epochs:
                return _stopped(folder, bar, epoch + 1)
    folder.write_report(environment(mesh.local_devices[0]) | {"precision": settings.precision})
    return 0


def _stopped(folder: TrainingFolder, bar: tqdm.tqdm, epochs: int) -> int:
    bar.close()
    folder.say(f"stopped, {epochs} epochs are kept in {folder.path}")
    folder.say("the same command goes on from there")
    return command.INTERRUPTED


def _is_finite(variables: Any) -> bool:
    return all(np.isfinite(array).all() for array in jax.tree.leaves(jax.device_get(variables)))


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
