"""Training of LapSRN or a relative by the recipe of "Robust Loss with Deep Image Prior" (3.2).

    python -m experiments.lapsrn --level-weights 1 1 --data bsds300     4x, as the paper
    python -m experiments.lapsrn --data photos --scale 2 --depth 10     your own images
    python -m experiments.lapsrn --no-residual                          an ablation
    python -m experiments.lapsrn --network srcnn                        related work

50 epochs of 30 steps; docs/RESULTS.md says how long they take and what comes out. The folder it
leaves is what `--checkpoint` of `experiments.upscale` and `experiments.evaluate` takes.
"""

import dataclasses
import functools
import pathlib
import sys
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import budget, command, epochs, networks, training_data
from experiments.training_folder import TrainingFolder
from jaxsr import training
from jaxsr.datasets import patches
from jaxsr.errors import InputError, require_integers
from jaxsr.models.luma import Network
from jaxsr.options import Given, Listed


@dataclasses.dataclass(frozen=True)
class Settings:
    """Training of LapSRN, or another network for luma."""

    data: str = "bsds300"
    """Training images: bsds300 (its 200, downloaded on first use; needs the extra `data`) or a
    folder."""
    test: Given[pathlib.Path] = None
    """Folder of images whose PSNR is printed after every epoch. Default: BSDS300's 100 with
    --data bsds300, else none. Nothing is chosen by it."""
    manual_dir: Given[pathlib.Path] = None
    """Where BSDS300 lies already: its folder or its archive."""
    scale: Literal[2, 4, 8] = 4
    """Enlargement."""
    level_weights: Listed[float] = ()
    """Weight of each level's loss, from the coarsest (the paper's w1, w2). Default: ones; for
    drcn half for the recursions together, half for the result."""
    network: networks.Name = "lapsrn"
    """--depth, --no-pyramid and --no-residual are of lapsrn; the others are as published."""
    loss: Literal["mse", "l1", "charbonnier", "huber"] = "charbonnier"
    """Loss of each level's image, mean over pixels."""
    depth: int = 5
    """3x3 convolutions in a level."""
    pyramid: bool = True
    """Double the size level by level; --no-pyramid makes one jump."""
    residual: bool = True
    """Predict what bilinear enlargement lacks; --no-residual predicts the whole image."""
    epochs: int = 50
    """Number of epochs, of --iterations steps each; PSNR and a checkpoint after each."""
    iterations: int = 30
    """Steps in an epoch."""
    batch: int = 16
    """Patches in a step."""
    parts: Given[int] = None
    """Number of parts that a batch is split into; their gradients are computed one after another.
    Default 1; on a CPU, whose caches are small, 4 where the batch allows."""
    patch: int = 128
    """Side of a patch at high resolution, in pixels."""
    learning_rate: float = 1e-3
    """Adam's, at the start."""
    halve_every: int = 10
    """Epochs after which the learning rate is halved."""
    weight_decay: float = 1e-4
    """As an L2 term, before Adam."""
    seed: int = 0
    """Seed of the weights and of all patches."""
    precision: command.Precision = "float32"
    """Precision of matrix products; bfloat16 computes the whole network in half precision."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""
    devices: Literal["one", "all"] = "one"
    """all spreads each batch over every device of that kind, on all hosts."""
    coordinator: Given[str] = None
    """HOST:PORT of process 0, for training on several hosts (the same command on each, with
    --process); auto asks the cluster's scheduler for all three."""
    processes: Given[int] = None
    """Number of processes."""
    process: Given[int] = None
    """This process's number, from 0."""
    out: Given[pathlib.Path] = None
    """Output folder. Default: named by scale, loss, weights and seed under runs/NETWORK/."""

    def resolved(self) -> "Settings":
        """With the defaults that depend on others filled in.

        Raises:
          InputError: a setting is out of its range.
        """
        require_integers(
            epochs=self.epochs, iterations=self.iterations, halve_every=self.halve_every
        )
        for name in ("epochs", "halve_every"):
            if getattr(self, name) * self.iterations >= training.MOST_STEPS:
                raise InputError(
                    f"`{name}` (={getattr(self, name)}) times `--iterations` (={self.iterations}) "
                    f"must be below {training.MOST_STEPS}"
                )
        if self.patch < 1 or self.patch % self.scale:
            raise InputError(
                f"`--patch` (={self.patch}) must be a multiple of the scale {self.scale}, above 0"
            )
        budget.check_seed(self.seed)
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
    if jax.process_count() > 1:
        # Of several processes JAX lets the first alone write the cache. Next time it would find its
        # program there, while the others, on GPUs, waited for its share of the kernels' tuning.
        jax.config.update("jax_enable_compilation_cache", False)
    everywhere = settings.devices == "all" or jax.process_count() > 1
    mesh = Mesh(jax.devices(on.platform) if everywhere else [on], ("data",))
    model, config = settings.model(), settings.config(mesh.size, on.platform)
    images, tests = training_data.load(
        settings.data,
        settings.test,
        settings.manual_dir,
        patch=settings.patch,
        factor=settings.scale,
    )
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
            return epochs.train(state, bank, stacks, settings, model, config, mesh, folder)


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
