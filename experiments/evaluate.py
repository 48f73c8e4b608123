"""PSNR and SSIM of a method over a folder of images, beside bicubic.

    python -m experiments.evaluate --checkpoint DIR --data FOLDER --out DIR    a trained LapSRN
    python -m experiments.evaluate --data FOLDER --scale 2 --out DIR           bicubic alone
    python -m experiments.evaluate --data FOLDER --out DIR --method dip        a fit for each image
    python -m experiments.evaluate --data FOLDER --out DIR --restored DIR      made by others

The images are the ground truth: they are degraded here as the protocol says, restored and scored.
Lai et al.'s 4x weights give 31.54 dB and SSIM .885 on Set5 (published: the same), bicubic 28.43 and
.811. `--explain` shows how much of that is the colour space, its range, rounding and shave.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import tqdm

from experiments import command, finished, lumas, methods, pages, paths, problem, recipes, scores
from experiments.evaluation_folder import FITS, PLACES, clear, opened
from experiments.fits import environment as environment_of
from jaxsr import images, protocols, reports
from jaxsr.errors import InputError, require_integers, within_memory
from jaxsr.options import Given, option

DIP = ("iterations", "loss", "recipe", "seed")  # options of that method alone


@dataclasses.dataclass(frozen=True)
class Settings:
    """PSNR and SSIM of a method over a folder of images, beside bicubic."""

    data: pathlib.Path
    """A ground-truth image, or a folder of them."""
    out: pathlib.Path
    """Output folder: report.html, scores.csv, scores.json, and the results in images/."""
    scale: int = 4
    """Enlargement: an integer of at least 2 that the checkpoint's network makes."""
    protocol: recipes.ProtocolName = "standard"
    """How the images are cropped and degraded, and what the figures mean."""
    method: Given[Literal["bicubic", "lapsrn", "dip", "restored"]] = None
    """Default: lapsrn where a checkpoint is given, restored where images are, else bicubic."""
    checkpoint: Given[pathlib.Path] = None
    """For lapsrn: the folder of a trained network."""
    self_ensemble: bool = False
    """For lapsrn: the mean over the eight flips and rotations."""
    restored: Given[pathlib.Path] = None
    """For restored: a folder of images that another program made of the protocol's low resolution,
    by the ground truths' names, of their size as the protocol crops them."""
    iterations: Given[int] = None
    """For dip. Default by scale: 2000 for 4, 4000 for 8, as released; 1150 for 2, 2000 below 6,
    else 4000."""
    loss: Given[recipes.LossName] = None
    """For dip. Default: charbonnier."""
    recipe: Given[recipes.Recipe] = None
    """For dip: reference makes the released code's choices but for the loss. Default: best."""
    seed: Given[int] = None
    """For dip. Default: 0."""
    explain: bool = False
    """Print PSNR on RGB, on Pillow's Y and on MATLAB's Y, and why they differ."""
    precision: command.Precision = "float32"
    """Precision of matrix products; bfloat16 computes the whole network in half precision."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""

    def resolved(self) -> "Settings":
        """With the method filled in.

        Raises:
          InputError: a setting is out of its range or does not go with the others.
        """
        require_integers(scale=self.scale, least=2)
        method = self.method or (
            "lapsrn" if self.checkpoint else "restored" if self.restored else "bicubic"
        )
        if method == "lapsrn" and self.checkpoint is None:
            raise InputError("`--method lapsrn` needs `--checkpoint`, the folder of a network")
        if method == "restored" and self.restored is None:
            raise InputError("`--method restored` needs `--restored`, a folder of images")
        parts = {
            "lapsrn": ("checkpoint", "self_ensemble"),
            "restored": ("restored",),
            "dip": DIP,
        }
        for owner, names in parts.items():
            for name in names:
                value = getattr(self, name)
                if owner != method and value is not None and value is not False:
                    rule = f"goes with `--method {owner}` alone, not {method}"
                    raise InputError(f"{option(name)} (={value}) {rule}")
        return dataclasses.replace(self, method=method)

    def restorer(self, stop: Callable[[], bool]) -> methods.Method:
        """The method by its name; a fit is asked to stop between its chunks."""
        if self.method == "dip":
            given = {
                name: getattr(self, name)
                for name in ("protocol", *DIP, "precision", "device")
                if getattr(self, name) is not None
            }
            each = recipes.Settings(factor=self.scale, **given)
            return methods.deep_image_prior(each, self.out / FITS, stop=stop)
        if self.restored is not None:
            return methods.restored(self.restored)
        if self.checkpoint is None:
            return methods.bicubic()
        ensemble = self.self_ensemble
        return methods.lapsrn(self.checkpoint, self.scale, self.precision, self_ensemble=ensemble)


def run(settings: Settings) -> int:
    """The evaluation of one method; the exit code, 1 if an image had to be left out."""
    settings = settings.resolved()
    files = paths.data(settings.data)
    read = [*files.values(), *(paths.matching([settings.restored]) if settings.restored else [])]
    written = {(settings.out / p / f"{name}.png").resolve() for name in files for p in PLACES}
    for path in read:
        if path.resolve() in written:
            raise InputError(f"`--out` (={settings.out}) would overwrite `{path}`: choose another")
    on = command.device(settings.device)
    with command.computing(on, settings.precision), command.interruptible() as interrupted:
        method = settings.restorer(interrupted)
        with opened(settings.out):
            return _of_all(settings, method, files, on, stop=interrupted)


def _of_all(
    settings: Settings,
    method: methods.Method,
    files: dict[str, pathlib.Path],
    on: jax.Device,
    *,
    stop: Callable[[], bool],
) -> int:
    """All images, one after another, and their scores; the exit code."""
    rows: list[tuple[str, scores.Figures]] = []
    notes, left_out = dict[str, int](), dict[str, str]()
    fits = settings.method == "dip"  # with bars of their own
    try:
        for name, path in tqdm.tqdm(files.items(), unit="image", leave=False, disable=fits):
            if stop():
                raise command.Stopped
            try:
                rows.append((name, evaluate(settings, method, name, path, notes, first=not rows)))
            except InputError as error:
                left_out[name] = str(error)
    except (command.Stopped, KeyboardInterrupt):
        then = "; finished fits are kept, the same command goes on" if fits else ""
        print(f"stopped after {len(rows)} of {len(files)} images, no scores were written{then}")
        return command.INTERRUPTED
    if rows:
        environment = reports.environment(on) | {"precision": settings.precision}
        if method.fits:
            environment = environment_of(method.fits / name for name, _ in rows)
        write_scores(settings, method, files, rows, left_out, environment)
        for note, count in notes.items():
            print(f"{note}: {count} of {len(files)} images")
        pages.beside(finished.read, settings.out)
    for name, reason in left_out.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    return 1 if left_out else 0


def evaluate(
    settings: Settings,
    method: methods.Method,
    name: str,
    path: pathlib.Path,
    notes: dict[str, int],
    *,
    first: bool,
) -> scores.Figures:
    """One image: its files, its figures and, below `bicubic`, the baseline's.

    What is not compared of it is counted in `notes`. Before the first image's files are written,
    those of an earlier evaluation go.

    Raises:
      InputError: the file cannot be read, or the image is too small.
    """
    protocol, scale = protocols.PROTOCOLS[settings.protocol], settings.scale
    with within_memory(f"`{path}`"):
        image = images.read(path)
        hr, lr = protocol.degrade(image.pixels, scale)
        baseline = protocol.bicubic(lr, hr.shape[:2])
        result, figures = method.restore(methods.Case(name, path, lr, baseline))
    left = {
        f"cropped, as protocol {protocol.name} asks": hr.shape != image.pixels.shape,
        "compared without their transparency": image.alpha is not None,
        problem.NARROWED: image.narrowed,
    }
    figures = figures or protocol.score(result, hr, scale)
    row: scores.Figures = {**figures, "bicubic": protocol.score(baseline, hr, scale)}
    if settings.explain:
        pair = {str(settings.method): result, "bicubic": baseline}
        row["explain"] = {k: lumas.compare(_coloured(v, hr), hr, scale) for k, v in pair.items()}
    if first:
        clear(settings.out)
    for place, pixels in zip(PLACES, (result, baseline, hr), strict=True):
        images.write(settings.out / place / f"{name}.png", _coloured(pixels, hr))
    for note in (note for note, holds in left.items() if holds and settings.method != "dip"):
        notes[note] = notes.get(note, 0) + 1  # a fit has told of its own
    return row


def _coloured(result: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """With the chroma of the ground truth where the protocol restores luma alone."""
    return result if result.shape == hr.shape else protocols.with_true_chroma(result, hr)


def write_scores(
    settings: Settings,
    method: methods.Method,
    files: dict[str, pathlib.Path],
    rows: scores.Rows,
    left_out: dict[str, str],
    environment: dict[str, Any],
) -> None:
    """Writes the scores of the images as CSV and as JSON, then prints them."""
    protocol, name = protocols.PROTOCOLS[settings.protocol], str(settings.method)
    mean = scores.mean([figures for _, figures in rows])
    lines = [*rows, ("mean", mean)]
    scores.write_csv(settings.out / "scores.csv", lines)
    record = {
        "protocol": protocol.name,
        "protocol_description": protocol.description,
        "scale": settings.scale,
        "method": name,
        "settings": method.settings,
        "checkpoint": settings.checkpoint,
        "images": [{"name": image, "file": files[image].name, **f} for image, f in rows],
        "mean": mean,
        "count": len(rows),
        "left_out": left_out,
        **environment,
    }
    reports.write_json(settings.out / "scores.json", record)
    print(f"{name} {settings.scale}x, {len(rows)} of {len(files)} images, files in {settings.out}")
    print(f"protocol {protocol.name}: {protocol.description}")
    print(scores.summary(lines, beside="" if name == "bicubic" else "bicubic"))
    if settings.explain:
        print(lumas.explanation([(image, f["explain"]) for image, f in lines], settings.scale))


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
