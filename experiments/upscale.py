"""Images of any kind enlarged by a trained network.

    python -m experiments.upscale photo.jpg --checkpoint DIR --out large         one file, 4x
    python -m experiments.upscale photos 'more/*.png' --checkpoint DIR --out large --scale 3
    python -m experiments.upscale photo.png --checkpoint DIR --out large --self-ensemble

A checkpoint is what `experiments.import_lapsrn` or a training run made. As in Lai et al. (CVPR
2017), luma goes through the network, and chroma, like transparency, through MATLAB's bicubic. Files
are written with 8 bits a channel (gray of more with 16), under their names and in their formats, in
one folder. One that cannot be upscaled does not stop the others: it is listed at the end, and the
exit code is 1. A result that is there already, by its name, is left as it is: the same command goes
on. One that upscale.json in the folder knows to be made with other settings counts as failed.
"""

import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import tqdm
import tyro

from experiments import command, paths
from experiments.problem import NARROWED
from jaxsr import files, images, pretrained, reports, upscaling
from jaxsr.errors import InputError, require_integers, within_memory
from jaxsr.models.luma import Network
from jaxsr.options import Given, option

RECORD = "upscale.json"  # what the results beside it were made with, by their names
_RESULT = 1024  # pixels a side of a tile's result: with the released network 0.7 GB of memory


@dataclasses.dataclass(frozen=True)
class Settings:
    """Images of any kind enlarged by a trained network."""

    paths: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Files, folders and globs. Of a folder its image files are taken, not those in its folders."""
    checkpoint: pathlib.Path
    """The network: a folder that experiments.import_lapsrn or a training run wrote."""
    out: pathlib.Path
    """Output folder."""
    scale: Given[int] = None
    """Enlargement: the network's factor, the default, or less. A power of two costs only its own
    levels; another is the next level's image, shrunk."""
    tile: Given[int] = None
    """Pixels of the input, a side, that are upscaled at once; changes memory and time, not the
    result. Default: 1024 over the scale."""
    self_ensemble: bool = False
    """The mean over 8 flips and rotations: about 0.1 dB better, eight times as long."""
    overwrite: bool = False
    """Replace files in --out; otherwise the file whose result is there already is left alone, or,
    if other settings made it, reported as failed."""
    precision: command.Precision = "float32"
    """Precision of matrix products. tf32 is faster on NVIDIA GPUs since Ampere; bfloat16 computes
    the whole network in half precision."""
    device: command.Device = "auto"
    """Where to compute; auto is JAX's choice."""


def plan(
    files: Sequence[pathlib.Path], out: pathlib.Path, *, overwrite: bool
) -> tuple[dict[pathlib.Path, pathlib.Path], dict[pathlib.Path, pathlib.Path], list[str]]:
    """What becomes of each file, and why some cannot be.

    Returns:
      result -> file; the same of results that are there already and may not be replaced; and one
      line for each file that has no place in `out`: one of `files` is there, or goes there.
    """
    inputs = {file.resolve() for file in files}
    jobs: dict[pathlib.Path, pathlib.Path] = {}
    there: dict[pathlib.Path, pathlib.Path] = {}
    refused = []
    # Those that keep their names come before those that take another, a GIF say.
    for file in sorted(files, key=lambda file: images.format_of(file) is None):
        result = out / file.name
        if images.format_of(file) is None:
            result = result.with_suffix(".png")
        if other := jobs.get(result) or there.get(result):
            refused.append(f"`{file}` has its result at `{result}`, as `{other}` has")
        elif result.resolve() in inputs:
            refused.append(f"`{file}` has its result at `{result}`, which is to be upscaled itself")
        elif result.is_file() and not overwrite:
            there[result] = file
        else:
            jobs[result] = file
    return jobs, there, refused


def known(out: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Of the results in a folder, by name, what they were made with, as far as it is on record.

    Raises:
      InputError: the record is damaged.
    """
    record = out / RECORD
    kept = reports.read_json(record) if record.exists() else {}
    if not all(isinstance(made, dict) for made in kept.values()):
        raise InputError(f"`{record}` is damaged: it must be as a run wrote it")
    return kept


def note(out: pathlib.Path, result: str, made: Mapping[str, Any] | None) -> None:
    """Puts on record what a result was made with, or with None that it is no more.

    Beside what other processes put there meanwhile.

    Raises:
      InputError: the record is damaged, or cannot be written.
    """
    descriptor = files.lock(out, wait=True)
    try:
        others = {name: as_made for name, as_made in known(out).items() if name != result}
        reports.write_json(out / RECORD, others | ({} if made is None else {result: made}))
    finally:
        os.close(descriptor)


def differing(there: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """In which setting a result that is there is another than it would be now; empty if in none."""
    for name, value in made.items():
        if there.get(name) != value:
            if name == "weights_sha256":
                return "another `--checkpoint`"
            return f"{option(name)} (={there.get(name)}), not {value}"
    return ""


def upscale(
    file: pathlib.Path,
    result: pathlib.Path,
    model: Network,
    variables: Any,
    *,
    scale: int,
    tile: int | None,
    self_ensemble: bool,
    before: Callable[[], None],
) -> None:
    """From file to file; alpha by bicubic. Calls `before` when there is something to write.

    Raises:
      InputError: `file` cannot be read, or `result` not be written.
    """
    image = images.read(file)
    if image.narrowed:
        tqdm.tqdm.write(f"{file}: its values are {NARROWED}")
    dtype = np.uint16 if image.bits == 16 else np.uint8
    where: dict[str, Any] = {"tile": tile or max(1, _RESULT // scale), "dtype": dtype}
    pixels = upscaling.upscale(
        image.pixels, model, variables, scale=scale, self_ensemble=self_ensemble, **where
    )
    alpha = None if image.alpha is None else upscaling.bicubic(image.alpha, scale, **where)
    before()
    images.write(result, pixels, alpha=alpha)


def run(settings: Settings) -> int:
    """All files, one after another; the exit code."""
    if settings.tile is not None:
        require_integers(tile=settings.tile)
    given = paths.matching(settings.paths)
    on = command.device(settings.device)
    with command.computing(on, settings.precision), command.interruptible() as interrupted:
        model, variables = pretrained.load(settings.checkpoint)
        if settings.precision == "bfloat16":
            model = model.clone(dtype=jnp.bfloat16)
        scale = model.factor if settings.scale is None else settings.scale
        upscaling.margin(model, scale=scale)  # refuses a scale that the network does not make
        command.make(settings.out)
        made: dict[str, Any] = {"scale": scale, "self_ensemble": settings.self_ensemble}
        made |= {"precision": settings.precision, "weights_sha256": pretrained.digest(variables)}
        kept = known(settings.out)
        jobs, there, failures = plan(given, settings.out, overwrite=settings.overwrite)
        for result in [result for result in there if result.name in kept]:
            if why := differing(kept[result.name], made):
                del there[result]
                failures.append(f"`{result}` was made with {why}: see --overwrite")
        for result, file in jobs.items():
            if result.name != file.name:
                print(f"{file} is written as {result.name}: its own format would not hold it")
        done = 0
        with tqdm.tqdm(jobs.items(), unit="image", dynamic_ncols=True, disable=not jobs) as bar:
            for result, file in bar:
                if interrupted():
                    break
                bar.set_postfix_str(file.name)
                try:
                    replaced = functools.partial(note, settings.out, result.name, None)
                    earlier = result.exists() or result.name in kept
                    with within_memory(f"`{file}`"):
                        upscale(
                            file,
                            result,
                            model,
                            variables,
                            scale=scale,
                            tile=settings.tile,
                            self_ensemble=settings.self_ensemble,
                            before=replaced if earlier else lambda: None,
                        )
                    note(settings.out, result.name, made)
                    done += 1
                except InputError as error:
                    failures.append(str(error))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    left = len(given) - done - len(there) - len(failures)
    counts = f"{done} of {len(given)} upscaled {scale}x to {settings.out}"
    if there:
        counts += f", {len(there)} there already (see --overwrite)"
    print(f"{counts}, {len(failures)} failed" if failures else counts)
    if left:
        how = "leaves what is done and goes on"
        if settings.overwrite:
            how = "begins anew; without --overwrite it leaves all results there, also earlier ones"
        print(f"stopped with {left} to go: the same command {how}")
        return command.INTERRUPTED
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
