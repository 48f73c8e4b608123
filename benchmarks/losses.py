"""What the loss brings to Deep Image Prior's 4x super-resolution: how good, how soon, how fast.

    python -m benchmarks.losses                     a built-in photograph, an hour on two CPU cores
    python -m benchmarks.losses --hr photo.png --size 128x192 --losses mse charbonnier --seeds 0 1 2

All losses fit the same low resolution (protocol `paper-dip`: Pillow's Lanczos filter, PSNR in dB on
unrounded RGB), and a seed gives them the same weights, latent and noise. PSNR is that of the
running average, which is the result; `last output` is the network's own in the end; `to +1 dB` is
the iteration from which on the result is never below bicubic's PSNR + 1 dB. Figures are means over
seeds +- the sample standard deviation; where a seed has none (it ends below that level) there is a
dash, or how many seeds have one. The ground truth is reported on and chooses nothing.

OUT/cells keeps each finished fit, and the same command goes on from there, with more losses or
seeds too. `losses.json` has all figures, `losses.csv` a row a fit, `losses.png` the mean curves.
"""

import dataclasses
import hashlib
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data

from benchmarks import peers
from jaxsr import dip, images, losses, operators, plots, reports
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from jaxsr.protocols import PROTOCOLS

PROTOCOL, FACTOR, SCALE = PROTOCOLS["paper-dip"], 4, 0.05
GENERAL = {f"general-{a:g}": losses.general(a, scale=SCALE) for a in (0, 0.5, 1.5)}
LOSSES = {name: losses.LOSSES[name] for name in ("mse", "l1", "charbonnier", "huber")} | GENERAL
GAIN = 1  # dB over bicubic, to be reached
COUNTS = (250, 500, 1000, 2000)
HISTORIES = ("psnr", "psnr_output")
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """Losses for Deep Image Prior's 4x super-resolution: PSNR, iterations needed, and speed."""

    hr: pathlib.Path | None = None
    """A ground-truth image, degraded here. By default a built-in photograph."""
    size: str | None = None
    """Of the image's middle, which alone is used: HEIGHTxWIDTH in pixels, multiples of 32 from 64.
    By default 96x96 on a CPU and 320x480 on a GPU."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """Losses to compare, among these; general-A is Barron's of shape A and width 0.05."""
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


def fit(truth: np.ndarray, low: np.ndarray, loss: str, seed: int, config: dip.Config) -> Record:
    """One fit: its speed and histories (dB, one an iteration, NaN after an overflow)."""
    network = SkipUNet(channels=truth.shape[-1])
    with jax.default_matmul_precision("highest"):
        result = dip.fit(
            jax.random.key(seed),
            jnp.asarray(low)[None],
            operators.downsample(FACTOR, kernel=PROTOCOL.kernel),
            init_fn=network.init,
            apply_fn=network.apply,
            size=(truth.shape[0], truth.shape[1]),
            loss=LOSSES[loss],
            config=config,
            reference=jnp.asarray(truth)[None],
        )
    rest = (0, config.iterations - result.iterations)
    return {
        "iterations_per_second": result.iterations / result.seconds if result.seconds else None,
        "compile_seconds": result.compile_seconds,
        **{name: np.pad(result.history[name], rest, constant_values=np.nan) for name in HISTORIES},
    }


def kept(folder: pathlib.Path, made: Record) -> dict[tuple[str, int], Record]:
    """The finished fits in a folder, by loss and seed.

    Raises:
      InputError: one is damaged, or was made under other settings or versions, or elsewhere.
    """
    found = {}
    for path in sorted(folder.glob("[!.]*.json")):  # hidden: what a kill left of an unfinished one
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            before, key = dict(cell["made"]), (cell["loss"], cell["seed"])
            found[key] = cell | {name: np.array(cell[name], np.float64) for name in HISTORIES}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"`{path}` is damaged ({error!r}): delete it to go on") from error
        for name, value in made.items():
            if before.get(name) != value:
                rule = f"must be that of the fits in {folder} (={before.get(name)})"
                raise InputError(f"`{name}` (={value}) {rule}: choose another `out`")
    return found


def stays_at(psnr: np.ndarray, level: float) -> int | None:
    """The iteration, from 1, from which on PSNR is never below a level; None: it ends below."""
    below = np.flatnonzero(~(psnr >= level))
    first = int(below[-1]) + 2 if below.size else 1
    return first if first <= len(psnr) else None


def figures_of(cell: Record, level: float) -> Record:
    """What is told of a fit, None where it has no such figure."""
    psnr = cell["psnr"]
    counts = [*(n for n in COUNTS if n < len(psnr)), len(psnr)]
    decibels = {f"psnr_{n}": psnr[n - 1] for n in counts} | {"psnr_output": cell["psnr_output"][-1]}
    return {
        **{name: float(value) if np.isfinite(value) else None for name, value in decibels.items()},
        "iterations_to_level": stays_at(psnr, level),
        **{name: cell[name] for name in ("iterations_per_second", "compile_seconds")},
    }


def over_seeds(values: Sequence[float | None]) -> Record:
    """Mean and sample standard deviation, None where a value or a second one is missing."""
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if len(known) == len(values) else None
    spread = statistics.stdev(known) if mean is not None and len(known) > 1 else None
    return {"mean": mean, "spread": spread, "seeds": len(known), "of": len(values)}


def table(summary: Mapping[str, Record]) -> str:
    """The summary in aligned columns, a row a loss."""
    headings = {"psnr_output": "last output", "iterations_to_level": f"to +{GAIN} dB"}
    headings |= {"iterations_per_second": "iterations/s", "compile_seconds": "compiled in s"}

    def text(name: str, mean: float | None, spread: float | None, seeds: int, of: int) -> str:
        if mean is None:
            return f"in {seeds} of {of}" if seeds else "-"
        digits = 0 if name == "iterations_to_level" else 2
        return f"{mean:.{digits}f}" + ("" if spread is None else f" +- {spread:.{digits}f}")

    names = next(iter(summary.values()))
    rows = [["dB after", *(headings.get(name, name.removeprefix("psnr_")) for name in names)]]
    rows += [[loss, *(text(name, **x) for name, x in row.items())] for loss, row in summary.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


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
    config = dip.Config(iterations=options.iterations)
    size = options.size or ("96x96" if jax.default_backend() == "cpu" else "320x480")
    truth, low = PROTOCOL.degrade(ground_truth(options.hr, size), FACTOR)
    bicubic = PROTOCOL.score(PROTOCOL.bicubic(low, truth.shape[:2]), truth, FACTOR)["psnr"]
    digest = hashlib.sha256(truth.tobytes()).hexdigest()
    settings: Record = {"size": size, "image_sha256": digest, "protocol": PROTOCOL.name}
    settings |= {"factor": FACTOR, "general_scale": SCALE, "precision": "float32"}
    settings |= dataclasses.asdict(config)
    environment = reports.environment(jax.devices()[0])
    made = settings | environment["device"] | environment["versions"]
    folder = options.out / "cells"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out` (={options.out}) cannot be used: {error.strerror}") from error

    keys = [(loss, seed) for seed in seeds for loss in names]
    cells = kept(folder, made)
    missing = [key for key in keys if key not in cells]
    for i, (loss, seed) in enumerate(missing, start=1):
        print(f"{loss}, seed {seed}: fit {i} of {len(missing)}", flush=True)
        record = {"loss": loss, "seed": seed, "made": made} | fit(truth, low, loss, seed, config)
        reports.write_json(folder / f"{loss}_seed{seed}.json", record)
    cells, level = kept(folder, made), bicubic + GAIN
    fits = {key: figures_of(cells[key], level) for key in keys}
    rows = [{"loss": loss, "seed": seed, **found} for (loss, seed), found in fits.items()]
    summary = {
        loss: {x: over_seeds([fits[loss, seed][x] for seed in seeds]) for x in fits[keys[0]]}
        for loss in names
    }
    record = {
        "benchmark": "losses",
        "settings": settings | {"losses": names, "seeds": seeds},
        "environment": environment,
        "bicubic_psnr": bicubic,
        "level": level,
        "summary": summary,
        "cells": rows,
    }
    reports.write_json(options.out / "losses.json", record)
    blank = {name: ["" if row[name] is None else row[name] for row in rows] for name in rows[0]}
    columns = {name: np.array(column, object) for name, column in blank.items()}
    reports.write_csv(options.out / "losses.csv", columns, count="fit")
    means = {x: np.mean([cells[x, seed]["psnr"] for seed in seeds], axis=0) for x in names}
    plots.curves(
        options.out / "losses.png",
        {"mean over seeds": means},
        columns={loss: loss for loss in names},
        ylabel="PSNR (dB), mean over seeds",
        baseline={f"bicubic + {GAIN} dB": level},
    )
    print(f"{size}, bicubic {bicubic:.2f} dB; files in {options.out}")
    print(table(summary))


def main(args: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        return peers.main(Options, run, args)
    except KeyboardInterrupt:
        print("stopped: the finished fits are kept, the same command goes on from there")
        return 130


if __name__ == "__main__":
    sys.exit(main())
