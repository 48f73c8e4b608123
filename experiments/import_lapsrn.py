"""The released LapSRN, from its authors' MATLAB file to a checkpoint.

    python -m experiments.import_lapsrn LapSRN_x4.mat --out runs/lapsrn_x4

Lai et al. (CVPR 2017) publish weights for 2x, 4x and 8x. The folder is what `--checkpoint` names
everywhere: `model.json` with the network's settings, and the weights for Orbax. Nothing in the file
is executed.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import tyro

from experiments import command
from experiments.record import unusable
from jaxsr import pretrained, weights
from jaxsr.errors import InputError
from jaxsr.models import LapSRN


@dataclasses.dataclass(frozen=True)
class Settings:
    """The released LapSRN, from its authors' MATLAB file to a checkpoint."""

    file: tyro.conf.Positional[pathlib.Path]
    """LapSRN_x2.mat, LapSRN_x4.mat or LapSRN_x8.mat."""
    out: pathlib.Path
    """Output folder: new, empty, or of an earlier import of the same file."""


def run(settings: Settings) -> int:
    """One file to one folder; the exit code."""
    model, variables = weights.lapsrn_from_mat(settings.file)
    out, already = settings.out, ""
    try:
        # Weights alone, or a hidden file, are what a kill left of an unfinished import.
        present = {p.name for p in out.iterdir()} if out.exists() else set()
        taken = any(name != "weights" and not name.startswith(".") for name in present)
    except OSError as error:
        raise unusable(out, error) from error
    if not taken:
        pretrained.save(out, model, variables)
    elif _holds(out, model, variables):
        already = " already"
    else:
        raise InputError(f"`--out` (={out}) must be new, empty, or of an import of the same file")
    count = sum(array.size for array in jax.tree.leaves(variables))
    print(
        f"LapSRN {model.factor}x, {model.depth} convolutions a level, {count:,} parameters, is"
        f"{already} in {out}"
    )
    return 0


def _holds(folder: pathlib.Path, model: LapSRN, variables: Any) -> bool:
    try:
        earlier, theirs = pretrained.load(folder)
    except InputError:
        return False
    return earlier == model and jax.tree.all(jax.tree.map(np.array_equal, variables, theirs))


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
