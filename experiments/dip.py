"""Images restored by Deep Image Prior: enlarged, denoised, inpainted, deblurred.

    python -m experiments.dip --loss charbonnier                    a built-in photograph, 4x
    python -m experiments.dip --hr butterfly.png --protocol dip     a ground truth, degraded here
    python -m experiments.dip --lr small.png --factor 4             upscale your own image
    python -m experiments.dip --task denoise --hr bird.png          noise of sigma 25, removed
    python -m experiments.dip --task inpaint --observed torn.png --mask known.png
    python -m experiments.dip --hr Set5 --protocol dip --seeds 3    all of a folder, three fits each

The method is Ulyanov, Vedaldi and Lempitsky's (CVPR 2018); the question is "Robust Loss with Deep
Image Prior"'s: what does another loss than the mean squared error bring? README has what to expect.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

from experiments import command, ensemble, paths, recipes, restoration, several
from experiments.problem import PHOTOGRAPH
from experiments.record import as_config, claim, prepare
from experiments.several import Fit
from jaxsr.datasets import folders
from jaxsr.errors import InputError, require_integers
from jaxsr.options import Given

MOST_SEEDS = 10_000
# No image of a folder may be called as what lies beside the fits.
RESERVED = {"config.json", "scores.json", "scores.csv", "report.html"}

# What may differ when a folder of fits is taken up again; each fit knows its own image and length.
_FREE = (
    *("hr", "lr", "mask", "blur_kernel", "out", "remat", "device", "iterations"),
    *("at_once", "coordinator", "processes", "process"),
)


@dataclasses.dataclass(frozen=True)
class Settings(recipes.Settings):
    """Restore images by Deep Image Prior. --hr and --lr may name a folder of images."""

    seeds: int = 1
    """Fits of each image, with seeds from --seed on: their mean is the result, their deviation its
    seed spread."""
    at_once: Given[int] = None
    """Fits at once in this process. Default: one on each GPU or TPU; on a CPU one for each core, at
    most 4."""
    coordinator: Given[str] = None
    """HOST:PORT of process 0, for several hosts on one file system (the same command on each, with
    --process); auto asks the cluster's scheduler for all three. Images and seeds are shared out."""
    processes: Given[int] = None
    """Number of processes."""
    process: Given[int] = None
    """This process's number, from 0."""

    def fits(self) -> tuple[pathlib.Path, list[Fit]]:
        """The folder of all results, and each fit with its own below it.

        Raises:
          InputError: the settings do not go together, or a folder holds no image.
        """
        require_integers(seeds=self.seeds, at_once=1 if self.at_once is None else self.at_once)
        if self.seeds > MOST_SEEDS:
            raise InputError(f"`--seeds` (={self.seeds}) must be at most {MOST_SEEDS}")
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(recipes.Settings)}
        each = recipes.Settings(**own).resolved()
        each.config()
        each.loss_function()
        dataclasses.replace(each, seed=self.seed + self.seeds - 1).resolved()
        given = "lr" if self.lr else "hr"
        source: pathlib.Path | None = getattr(self, given)
        many = source is not None and source.is_dir()
        files = folders.files(source) if source is not None and many else [source]
        out = self.out or self._folder(each, source)
        named = paths.named([file for file in files if file], taken=RESERVED)
        fits = []
        for name, file in named.items() or [("", None)]:
            place = out / name if many else out
            for seed in range(self.seed, self.seed + self.seeds):
                to = place / f"seed{seed}" if self.seeds > 1 else place
                label = " ".join(x for x in (name, f"seed {seed}" if self.seeds > 1 else "") if x)
                own = {"seed": seed, "out": to, given: file}
                fits.append(Fit(label, dataclasses.replace(each, **own), place))
        return out, fits

    def _folder(self, each: recipes.Settings, source: pathlib.Path | None) -> pathlib.Path:
        name = source.resolve().name if source and source.is_dir() else None
        folder = restoration.default_folder(each, name or (source.stem if source else PHOTOGRAPH))
        if self.seeds == 1:
            return folder
        how, _, first = folder.name.rpartition("_seed")
        return folder.with_name(f"{how}_seeds{first}")  # without their number, which may grow


def run(settings: Settings) -> int:
    """The fits; the exit code, 1 if one had to be left out."""
    out, fits = settings.fits()
    command.join(settings.coordinator, settings.processes, settings.process)
    if len(fits) == 1 and fits[0].folder == out:  # no folder of one image
        command.device(settings.device)  # before JAX is asked for anything else
        return _alone(fits[0]) if several.share(fits) else _idle(fits)
    parts = sorted({fit.settings.out.relative_to(out).parts[0] for fit in fits if fit.settings.out})
    config, defaults = as_config(settings), as_config(Settings())
    prepare(out, config, free=_FREE, grows="seeds", parts=parts, absent=defaults)
    claim(out, config)
    command.split_cpu(min(settings.at_once or 4, len(fits)))
    on = several.devices(settings.device, settings.at_once)
    mine = several.share(fits)
    if not mine:
        return _idle(fits)
    on = on[: len(mine)]
    combine = functools.partial(ensemble.combine, fits)
    with command.interruptible() as interrupted:
        outcome = several.run(mine, on, stop=interrupted, after=combine)
    ensemble.tabulate(fits, out)
    print(f"{len(outcome.done)} of {len(mine)} fits are finished, files in {out}")
    if outcome.stopped:
        print("the same command goes on from there")
        return command.INTERRUPTED
    return 1 if outcome.left_out else 0


def _alone(fit: Fit) -> int:
    with command.interruptible() as interrupted:
        code = restoration.run(fit.settings, stop=interrupted)
    if code == command.INTERRUPTED:
        print("the same command goes on from there")
    return code


def _idle(fits: Sequence[Fit]) -> int:
    print(f"nothing to do here: the other processes have all of the fits (={len(fits)})")
    return 0


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
