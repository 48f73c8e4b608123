"""What the loss brings to Deep Image Prior's 4x super-resolution: how good, how soon, how fast.

    python -m benchmarks.losses                     a built-in photograph, an hour on two CPU cores
    python -m benchmarks.losses --hr photo.png --size 128x192 --losses mse charbonnier --seeds 0 1 2

All losses fit the same low resolution (protocol `paper-dip`: Pillow's Lanczos filter, PSNR in dB on
unrounded RGB), and a seed gives them the same weights, latent and noise. PSNR is that of the
running average, which is the result; `last output` is the network's own in the end; `to +1 dB` is
the iteration from which on the result is never below bicubic's PSNR + 1 dB. Figures are means over
seeds +- the sample standard deviation; where a seed has none (it ends below that level) there is a
dash, or how many seeds have one. The ground truth is reported on and chooses nothing.

Fits run beside each other, one a device: on a CPU, one a core. Iterations a second are those of one
fit that has the machine to itself, the losses in turns, in the end: median +- spread over rounds.

OUT/cells keeps each finished fit and OUT/speeds.json the speeds: the same command goes on from
there, with more losses or seeds too. `losses.json` has all figures, `losses.csv` a row a fit,
`losses.png` the mean curves.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import pathlib
import sys
import threading
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data

from benchmarks import loss_fits, peers
from benchmarks.loss_fits import FACTOR, LOSSES, PROTOCOL, Key, Record
from benchmarks.psnr_curves import figures_of, over_seeds
from jaxsr import dip, images, operators, plots, reports
from jaxsr.errors import InputError
from jaxsr.options import Given
from jaxsr.reports import cores

GAIN = 1  # dB over bicubic, to be reached
STOPPED = "stopped: the finished fits are kept, the same command goes on from there"


@dataclasses.dataclass(frozen=True)
class Options:
    """Losses for Deep Image Prior's 4x super-resolution: PSNR, iterations needed, and speed."""

    hr: Given[pathlib.Path] = None
    """A ground-truth image, degraded here. By default a built-in photograph."""
    size: Given[str] = None
    """Of the image's middle, which alone is used: HEIGHTxWIDTH in pixels, multiples of 32, at least
    64. By default 96x96 on a CPU and 320x480 on a GPU."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """Losses to compare, among these; general-A is Barron's of shape A and scale 0.05."""
    seeds: tuple[int, ...] = (0, 1)
    """One fit of each loss a seed."""
    iterations: int = 2000
    """Of each fit."""
    out: pathlib.Path = pathlib.Path("runs/benchmarks/losses")
    """Output folder."""


def ground_truth(hr: pathlib.Path | None, text: str) -> np.ndarray:
    """The middle of an image file or of the built-in photograph, (H, W, C) float32.

    Raises:
      InputError: there is no such image, or none of that size.
    """
    size = peers.parse_size(text, multiple=32, least=64, option="size")
    if hr:
        pixels = images.read(hr).pixels
    else:  # that of experiments.dip; where it is too small, all of what it was cut from
        coffee = images.from_uint8(skimage.data.coffee())
        pixels = coffee[60:188, 330:458] if max(size) <= 128 else coffee
    height, width = pixels.shape[:2]
    if height < size[0] or width < size[1]:
        raise InputError(f"`size` (={text}) must fit into the image, of {height}x{width}")
    return np.asarray(operators.crop(*size)(jnp.asarray(pixels)))


def run(options: Options) -> None:
    """Fits what is not there yet, and reports on what was asked for.

    Raises:
      InputError: an option that cannot be used.
    """
    names, seeds = options.losses, options.seeds
    if not names or len({*names} & {*LOSSES}) < len(names):
        raise InputError(f"`losses` (={names}) must be among {', '.join(LOSSES)}, each once")
    if not seeds or len({*seeds}) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(f"`seeds` (={seeds}) must be in [0, 2^32), each once")
    with contextlib.suppress(RuntimeError):  # it is in use already, with the devices that it has
        jax.config.update("jax_num_cpu_devices", min(cores(), len(names) * len(seeds)))
    config = dip.Config(iterations=options.iterations)
    size = options.size or ("96x96" if jax.default_backend() == "cpu" else "320x480")
    truth, low = PROTOCOL.degrade(ground_truth(options.hr, size), FACTOR)
    bicubic = PROTOCOL.score(PROTOCOL.bicubic(low, truth.shape[:2]), truth, FACTOR)["psnr"]
    digest = hashlib.sha256(truth.tobytes()).hexdigest()
    settings: Record = {"size": size, "image_sha256": digest, "protocol": PROTOCOL.name}
    settings |= {"factor": FACTOR, "general_scale": loss_fits.SCALE, "precision": "float32"}
    settings |= dataclasses.asdict(config)
    environment = reports.environment(jax.devices()[0])
    made = settings | environment["device"] | environment["versions"]
    folder = options.out / "cells"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out` (={options.out}) cannot be used: {error.strerror}") from error

    keys = [(loss, seed) for seed in seeds for loss in names]
    cells = loss_fits.kept(folder, made)
    missing = [key for key in keys if key not in cells]
    counted = itertools.count(1)

    def one(key: Key, stopped: threading.Event) -> None:
        loss, seed = key
        print(f"{loss}, seed {seed}: fit {next(counted)} of {len(missing)}", flush=True)
        histories = loss_fits.fit(truth, low, loss, seed, config, stopped)
        if histories:
            record = {"loss": loss, "seed": seed, "made": made} | histories
            reports.write_json(folder / f"{loss}_seed{seed}.json", record)

    loss_fits.fit_all(missing, one)
    cells = loss_fits.kept(folder, made)
    speeds = loss_fits.speeds(options.out / "speeds.json", made, truth, names)
    head = {
        "benchmark": "losses",
        "settings": settings | {"losses": names, "seeds": seeds},
        "environment": environment,
        "bicubic_psnr": bicubic,
        "level": bicubic + GAIN,
    }
    print(f"{FACTOR}x to {size}, bicubic {bicubic:.2f} dB; files in {options.out}")
    print(f"PSNR under protocol {PROTOCOL.name}: {PROTOCOL.description}")
    print(report(options.out, head, {key: cells[key] for key in keys}, speeds))


def report(
    out: pathlib.Path, head: Record, cells: Mapping[Key, Record], speeds: Mapping[str, Record]
) -> str:
    """Writes the JSON, the table and the plot of finished fits; returns what is printed.

    Raises:
      InputError: a file cannot be written.
    """
    level, names = head["level"], list(speeds)
    fits = {
        key: figures_of(cell["psnr"], cell["psnr_output"], level) for key, cell in cells.items()
    }
    rows = [{"loss": loss, "seed": seed, **found} for (loss, seed), found in fits.items()]
    summary: dict[str, Record] = {}
    for loss in names:
        of_loss = [found for (name, _), found in fits.items() if name == loss]
        summary[loss] = {x: over_seeds([found[x] for found in of_loss]) for x in of_loss[0]}
    reports.write_json(
        out / "losses.json", {**head, "summary": summary, "speeds": speeds, "cells": rows}
    )
    blank = {name: ["" if row[name] is None else row[name] for row in rows] for name in rows[0]}
    columns = {name: np.array(column, object) for name, column in blank.items()}
    reports.write_csv(out / "losses.csv", columns, count="fit")
    means = {
        loss: np.mean([cell["psnr"] for (name, _), cell in cells.items() if name == loss], axis=0)
        for loss in names
    }
    plots.curves(
        out / "losses.png",
        {"mean over seeds": means},
        columns={loss: loss for loss in names},
        ylabel="PSNR (dB), mean over seeds",
        baseline={f"bicubic + {GAIN} dB": level},
    )
    return table(summary, speeds)


def table(summary: Mapping[str, Record], speeds: Mapping[str, Record]) -> str:
    """Both in aligned columns, a row a loss."""
    headings = {"psnr_output": "last output", "iterations_to_level": f"to +{GAIN} dB"}

    def text(name: str, mean: float | None, spread: float | None, seeds: int, of: int) -> str:
        if mean is None:
            return f"in {seeds} of {of}" if seeds else "-"
        digits = 0 if name == "iterations_to_level" else 2
        return f"{mean:.{digits}f}" + ("" if spread is None else f" +- {spread:.{digits}f}")

    names = [headings.get(x, x.removeprefix("psnr_")) for x in next(iter(summary.values()))]
    rows = [["dB after", *names, "iterations/s"]]
    for loss, row in summary.items():
        speed = f"{speeds[loss]['iterations_per_second']:.2f} +- {speeds[loss]['spread']:.2f}"
        rows.append([loss, *(text(name, **found) for name, found in row.items()), speed])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


if __name__ == "__main__":
    sys.exit(peers.main(Options, run, stopped=STOPPED))
