"""Is the robust loss robust? Deep Image Prior by seven losses from corrupted low resolutions.

    python -m experiments.robustness                                a built-in photograph, 4 hours
    python -m experiments.robustness --corruptions outliers-5 --losses mse charbonnier --budget 30

4x, a crop of 128x128 pixels, protocol `paper-dip` (Pillow's Lanczos filter; PSNR on unrounded RGB),
the low resolution then struck by outliers (1, 5 or 10 % of its pixels white or black), by Gaussian
noise (sigma 10 or 25 of 255) or by JPEG (quality 30). A seed gives all losses the same corruption,
weights, latent and noise. PSNR is that of the running average, which is the result: after the last
iteration, and at its peak, which only an oracle knows; beside it stands bicubic's. Each finished
fit is a record under --results, see `experiments.ledger`: what is missing is shown as missing.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import budget, command, fits, heat_map, middle, networks, problem
from experiments.corruptions import CORRUPTIONS
from experiments.heat_map import FIGURES, LOSSES, SCALE, SHOWN
from experiments.ledger import Ledger, Record
from experiments.omissions import Omissions
from jaxsr import dip, operators, reports
from jaxsr.errors import InputError
from jaxsr.options import Given
from jaxsr.protocols import PROTOCOLS

PROTOCOL, FACTOR = PROTOCOLS["paper-dip"], 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Deep Image Prior by several losses from corrupted low resolutions."""

    hr: Given[pathlib.Path] = None
    """A ground-truth image. Default: a built-in photograph."""
    size: int = 128
    """Side of the square that is cut from its middle, in pixels: a multiple of 32, at least 64."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """Which losses; general-A is Barron's of shape A and scale 0.05."""
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    """Which corruptions of the low resolution."""
    seeds: tuple[int, ...] = (0,)
    """One fit of each loss and corruption a seed."""
    iterations: int = 1000
    """Iterations of each fit."""
    budget: Given[float] = None
    """Minutes after which to stop; the fit at hand is begun anew the next time."""
    results: pathlib.Path = pathlib.Path("results/robustness")
    """Folder of the records, and of the heat maps."""
    precision: command.Precision = "float32"
    """Precision of matrix products."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""

    def check(self) -> None:
        """Refuses what names nothing.

        Raises:
          InputError: a name is unknown, or a number out of its range.
        """
        for option, known in (("losses", LOSSES), ("corruptions", CORRUPTIONS)):
            for name in getattr(self, option):
                if name not in known:
                    raise InputError(f"`--{option}` (={name}) must be among {', '.join(known)}")
        budget.check(self.seeds, self.budget)


def run(settings: Settings) -> int:
    """Fits what is missing, then shows the tables and draws the heat maps; the exit code."""
    settings.check()
    config = dip.Config(iterations=settings.iterations)
    name, pixels = middle.square(settings.hr, settings.size)
    truth, low = PROTOCOL.degrade(pixels, FACTOR)
    ledger = Ledger(settings.results, figures=FIGURES)
    made: dict[str, Any] = {
        "image": name,
        "input_sha256": problem.digest(truth),
        "protocol": PROTOCOL.name,
    }
    made |= {"factor": FACTOR, "precision": settings.precision, "general_scale": SCALE}
    made |= dataclasses.asdict(config)

    def place(loss: str, corruption: str, seed: int) -> tuple[str, dict[str, Any]]:
        own = made | {"corruption": corruption, "loss": loss, "seed": seed}
        return f"{name}/{corruption}/{loss}_seed{seed}", own

    over = budget.spent(settings.budget)
    on, omissions = command.device(settings.device), Omissions()
    with command.computing(on, settings.precision), command.interruptible() as pressed:

        def stop() -> bool:
            return pressed() or over()

        order = itertools.product(settings.seeds, settings.corruptions, settings.losses)
        wanted = [(loss, corruption, seed) for seed, corruption, loss in order]
        for key in wanted:
            cell, own = place(*key)
            known = functools.partial(ledger.read, cell, own)
            make = functools.partial(_fill, ledger, cell, own, truth, low, config, on, stop)
            if known() is None and not stop():
                try:
                    ledger.settled(cell, known, make)
                except InputError as error:
                    omissions.add(cell, error)
        stopped = stop()
    records: dict[tuple[str, str, int], Record] = {}
    for key in itertools.product(LOSSES, CORRUPTIONS, settings.seeds):
        try:
            record = ledger.read(*place(*key))
        except InputError:
            if key in wanted:
                raise
            record = None  # of other settings
        if record is not None:
            records[key] = record
    title = (
        f"{name}, {settings.size}x{settings.size}, {FACTOR}x, {settings.iterations} iterations, "
        f"PSNR in dB by protocol {PROTOCOL.name}"
    )
    print(f"{title}: {PROTOCOL.description}")
    # The maps have all losses and corruptions on record, whatever was asked for.
    there, struck = {key[0] for key in records}, {key[1] for key in records}
    rows, columns = [x for x in LOSSES if x in there], [x for x in CORRUPTIONS if x in struck]
    for corruption, seed in itertools.product({*columns, *settings.corruptions}, settings.seeds):
        enlarged = PROTOCOL.bicubic(strike(low, corruption, seed), truth.shape[:2])
        level = PROTOCOL.score(enlarged, truth, FACTOR)["psnr"]
        records["bicubic", corruption, seed] = dict.fromkeys(FIGURES, level) | {"finite": True}
    for figure, (stem, when) in SHOWN.items():
        losses_shown = ["bicubic", *settings.losses]
        shown = heat_map.table(records, figure, losses_shown, settings.corruptions)
        print(f"{when}:\n{shown}")
        if rows:
            path, head = settings.results / name / f"{stem}.png", f"{title}, {when}"
            heat_map.draw(path, records, ["bicubic", *rows], columns, figure=figure, title=head)
    if stopped and not records.keys() >= set(wanted):
        print("stopped: what is finished is kept, the same command goes on from there")
        return command.INTERRUPTED
    return 1 if omissions else 0


def strike(low: np.ndarray, corruption: str, seed: int) -> np.ndarray:
    """The low resolution as a corruption leaves it."""
    key = jax.random.split(jax.random.key(seed))[0]
    index = list(CORRUPTIONS).index(corruption)
    return CORRUPTIONS[corruption](jax.random.fold_in(key, index), low)


def _fill(
    ledger: Ledger,
    cell: str,
    made: Mapping[str, Any],
    truth: np.ndarray,
    low: np.ndarray,
    config: dip.Config,
    on: jax.Device,
    stop: Callable[[], bool],
) -> Record | None:
    """Fits a cell and keeps it; None where it was stopped before its end."""
    struck = strike(low, made["corruption"], made["seed"])
    key = jax.random.split(jax.random.key(made["seed"]))[1]
    network = networks.prior(made["precision"], channels=truth.shape[-1])
    result = dip.fit(
        key,
        jnp.asarray(struck)[None],
        operators.downsample(FACTOR, kernel=PROTOCOL.kernel),
        init_fn=network.init,
        apply_fn=network.apply,
        size=(truth.shape[0], truth.shape[1]),
        loss=LOSSES[made["loss"]],
        config=config,
        reference=jnp.asarray(truth)[None],
        on_chunk=lambda _: stop(),
    )
    if result.finite and int(result.state.step) < config.iterations:
        return None
    history = result.history
    if not len(history["loss"]):
        raise InputError("the fit overflowed in its first iterations")
    kept: dict[str, Any] = {"finite": result.finite, "iterations": len(history["loss"])}
    for name in ("psnr", "psnr_output"):
        peak = int(np.argmax(history[name]))
        kept |= {name: float(history[name][-1]), f"{name}_peak": float(history[name][peak])}
        kept[f"{name}_peak_iteration"] = peak + 1
    kept["history"] = fits.thinned(history)
    return ledger.write(
        cell, made, kept, seconds=result.seconds, environment=reports.environment(on)
    )


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
