"""How an image is restored: bicubic, a trained network, a fit; or what others made of it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import command, paths, recipes, restoration
from experiments.record import read_metrics, whole
from jaxsr import images, pretrained, protocols, upscaling
from jaxsr.errors import InputError

Figures = dict[str, float]


class Case(NamedTuple):
    """One image of an evaluation; `lr` and `bicubic` are as the protocol makes them of `hr`."""

    name: str
    path: pathlib.Path
    lr: np.ndarray
    bicubic: np.ndarray


class Method(NamedTuple):
    """A way to restore.

    restore: a case to the result, of the size of its `bicubic`, and to the protocol's figures where
      the method has computed them.
    settings: that it depends on, for the report.
    fits: where it leaves a run's folder for each image, by its name; None where it leaves none.
    """

    restore: Callable[[Case], tuple[np.ndarray, Figures | None]]
    settings: dict[str, Any]
    fits: pathlib.Path | None = None


def bicubic() -> Method:
    """The protocol's bicubic enlargement."""
    return Method(lambda case: (case.bicubic, None), {})


def restored(folder: pathlib.Path) -> Method:
    """Images that another program has restored, each of its case's name, of any kind.

    Luma alone will do where the protocol restores no more; of an RGB image it is then taken.

    Raises:
      InputError: the folder holds no image.
    """
    files = paths.matching([folder])

    def restore(case: Case) -> tuple[np.ndarray, None]:
        same = [path for path in files if path.name == case.name]
        same = same or [path for path in files if path.stem == case.name]
        if len(same) != 1:
            names = (
                " and ".join(path.name for path in same) or f"none (it has {files[0].name}, say)"
            )
            rule = f"must have one image called {case.name}, of any kind, but has {names}"
            raise InputError(f"`--restored` (={folder}) {rule}")
        (path,) = same
        result = images.read(path).pixels
        size, channels = case.bicubic.shape[:2], {case.bicubic.shape[-1]}
        channels.add(images.read(case.path).pixels.shape[-1])
        if result.shape[:2] != size or result.shape[-1] not in channels:
            wanted = (*size, max(channels))
            shapes = ("x".join(map(str, shape)) for shape in (result.shape, wanted))
            rule = "{} (height, width, channels), but the ground truth {} as the protocol crops it"
            raise InputError(f"`{path}` is {rule.format(*shapes)}")
        if case.bicubic.shape[-1] == 1:
            result = protocols.jpeg_luma(result)
        return result, None

    return Method(restore, {"restored": folder})


def lapsrn(
    checkpoint: pathlib.Path, scale: int, precision: command.Precision, *, self_ensemble: bool
) -> Method:
    """The network of a folder.

    Raises:
      InputError: the folder holds none, or one that does not make this scale.
    """
    model, variables = pretrained.load(checkpoint)
    try:
        upscaling.margin(model, scale=scale)
    except InputError as error:
        raise InputError(f"`--checkpoint` (={checkpoint}): {error}") from error
    record = pretrained.settings(model) | {"weights_sha256": pretrained.digest(variables)}
    if precision == "bfloat16":
        model = model.clone(dtype=jnp.bfloat16)

    def restore(case: Case) -> tuple[np.ndarray, None]:
        result = upscaling.upscale(
            case.lr, model, variables, scale=scale, self_ensemble=self_ensemble
        )
        return result, None

    return Method(restore, record | {"self_ensemble": self_ensemble})


def deep_image_prior(
    settings: recipes.Settings, folder: pathlib.Path, *, stop: Callable[[], bool] = lambda: False
) -> Method:
    """A fit of `experiments.dip` for each image, in its own folder below `folder`.

    A finished fit is read and not repeated, a stopped one goes on; once `stop` says so it stops.

    Raises:
      InputError: a setting is out of its range.
    """
    settings = settings.resolved()
    settings.config()
    of_super_resolution = (
        *("loss", "loss_alpha", "loss_scale", "kernel", "iterations", "learning_rate"),
        *("noise_std", "tv_weight", "average", "patience", "seed", "recipe"),
    )
    shown = {name: getattr(settings, name) for name in of_super_resolution}

    def restore(case: Case) -> tuple[np.ndarray, Figures]:
        out = folder / case.name
        code = restoration.run(dataclasses.replace(settings, hr=case.path, out=out), stop=stop)
        if code == command.INTERRUPTED:
            raise command.Stopped
        if code:
            raise InputError(f"its fit diverged, see {out}")
        metrics = read_metrics(out)
        with whole(out):
            figures = {name: float(metrics[name]) for name in metrics["bicubic"]}
        return images.read(out / "sr.png").pixels, figures

    return Method(restore, shown, folder)
