"""The rows of Table 1: what each is called, how it restores, and what the paper printed."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from experiments import baselines, command, methods
from experiments.recipes import ProtocolName, Recipe, Settings
from experiments.training_folder import require_finished
from jaxsr import operators
from jaxsr.protocols import PROTOCOLS, Protocol

FACTOR = 4
PUBLISHED = {  # PSNR in dB and SSIM, "Robust Loss with Deep Image Prior", Table 1
    "bicubic": (25.09, 0.8055),
    "lapsrn-1-1": (26.10, 0.7649),
    "dip-mse": (25.45, 0.8036),
    "lapsrn-2-1": (26.03, 0.7600),
    "lapsrn-1-2": (25.99, 0.7605),
    "dip-charbonnier": (26.28, 0.8340),
}
PUBLISHED_SET5 = {"dip-mse": 29.90}  # PSNR in dB on Y, 4x, Ulyanov et al. (2018): mean of the five
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
LAPSRN = ("lapsrn-1-1", "lapsrn-2-1", "lapsrn-1-2")
DIP = ("dip-mse", "dip-charbonnier")
PAPER = {  # a training by its recipe (section 3.2), whatever the level weights
    "network": "lapsrn",
    "data": "bsds300",
    "scale": FACTOR,
    "loss": "charbonnier",
    "depth": 5,
    "pyramid": True,
    "residual": True,
    "epochs": 50,
    "iterations": 30,
    "batch": 16,
    "patch": 128,
    "learning_rate": 1e-3,
    "halve_every": 10,
    "weight_decay": 1e-4,
    "precision": "float32",
}
Restore = Callable[[methods.Case], tuple[np.ndarray, None]]
NAMES = (*INTERPOLATIONS, "tv", *LAPSRN, *DIP)


@dataclasses.dataclass(frozen=True)
class Places:
    """Where rows find and keep what they need.

    lapsrn: folder of the trained networks, each named as `experiments.lapsrn` names it by default.
    fits: folder of the fits of Deep Image Prior.
    device, precision: of the computation. stop: asked by a fit whether it should stop now.
    """

    lapsrn: pathlib.Path
    fits: pathlib.Path
    device: command.Device
    precision: command.Precision
    stop: Callable[[], bool] = lambda: False


def seeded(name: str) -> bool:
    """Whether a row depends on a seed: that of a fit, or of its network's training."""
    return name in (*LAPSRN, *DIP)


def protocol_name(name: str, table: str) -> ProtocolName:
    """The protocol of a row in a table: in `paper` the one that the paper's row was made under."""
    if table == "paper":
        return "paper-lapsrn" if name in LAPSRN else "paper-dip"
    return "dip" if table == "set5" else "standard"


def method(name: str, table: str, recipe: Recipe, seed: int, places: Places) -> methods.Method:
    """How a row restores an image.

    Raises:
      InputError: a trained network is missing, not finished, or not the row's.
    """
    chosen = protocol_name(name, table)
    if name == "bicubic":
        return methods.bicubic()
    if name in INTERPOLATIONS:
        return methods.Method(_interpolate(name), {"resampling": name})
    if name == "tv":
        return methods.Method(_least_squares(PROTOCOLS[chosen]), dict(baselines.TV))
    if name in LAPSRN:
        weights = name.removeprefix("lapsrn-")
        folder = places.lapsrn / f"x{FACTOR}_charbonnier_w{weights}_seed{seed}"
        recipe_of = {k: v for k, v in PAPER.items() if k not in ("data", "precision")}
        own = {"level_weights": [*map(float, weights.split("-"))], "seed": seed}
        require_finished(folder, **recipe_of, **own)
        trained = methods.lapsrn(folder, FACTOR, places.precision, self_ensemble=False)
        return trained._replace(settings=trained.settings | {"seed": seed})
    settings = Settings(
        loss="mse" if name == "dip-mse" else "charbonnier",
        factor=FACTOR,
        recipe=recipe,
        protocol=chosen,
        seed=seed,
        device=places.device,
        precision=places.precision,
    )
    precision = "" if places.precision == "float32" else f"_{places.precision}"
    folder = places.fits / table / f"{name}_{recipe}_seed{seed}{precision}"
    return methods.deep_image_prior(settings, folder, stop=places.stop)


def _interpolate(name: str) -> Restore:
    def restore(case: methods.Case) -> tuple[np.ndarray, None]:
        return baselines.interpolated(case.lr, case.bicubic.shape[:2], name), None

    return restore


def _least_squares(chosen: Protocol) -> Restore:
    operator = operators.downsample(FACTOR, kernel=chosen.kernel)

    def restore(case: methods.Case) -> tuple[np.ndarray, None]:
        result = baselines.tv_least_squares(case.lr, case.bicubic, operator, **baselines.TV)
        return result, None

    return restore
