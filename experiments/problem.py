"""A restoration problem from an image file: what was observed, what is known of the truth."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import skimage.data
from jax import Array

from experiments import baselines, degradation
from experiments.degradation import Degradation
from experiments.recipes import Settings
from jaxsr import images, operators
from jaxsr.errors import InputError
from jaxsr.metrics import psnr
from jaxsr.protocols import PROTOCOLS, Protocol, jpeg_luma
from jaxsr.resample import imresize

PHOTOGRAPH = "coffee"
NARROWED = "read as 8 of their 16 bits a channel"


class Words(NamedTuple):
    """What a task calls its images: file names, and as a person reads them."""

    observed: str
    result: str
    title: str  # of the observation


WORDS = {
    "sr": Words("lr", "sr", "low resolution"),
    "denoise": Words("noisy", "restored", "noisy"),
    "inpaint": Words("masked", "restored", "masked"),
    "deblur": Words("blurred", "restored", "blurred"),
}
TITLES = {"bicubic": "bicubic", "tv": "total variation", "biharmonic": "biharmonic"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """Restore the image of which `observed` was seen; images are (H, W, C) float32.

    size: height and width of the result.
    baseline_name: of the restoration without a network beside it; one of TITLES.
    make_baseline: computes that, (H, W, C) of the result's size.
    hr: the ground truth, where known, of the result's size.
    alpha: (H, W, 1) of the result, upscaled already, or None.
    stages: the operator from the result's size to `observed`.
    description: what the figures mean, and how `observed` was made.
    digest: of the input's pixels, to know the problem by.
    """

    name: str
    words: Words
    factor: int
    observed: np.ndarray
    size: tuple[int, int]
    baseline_name: str
    make_baseline: Callable[[], np.ndarray]
    hr: np.ndarray | None
    alpha: np.ndarray | None
    stages: operators.Operator
    protocol: Protocol
    description: str
    digest: str

    @functools.cached_property
    def baseline(self) -> np.ndarray:
        """The restoration without a network, computed when it is first asked for."""
        return self.make_baseline()

    def canvas(self, multiple: int) -> tuple[int, int]:
        """The size that the network draws: the next multiple, at least twice it."""
        height, width = (max(2 * multiple, -(-side // multiple) * multiple) for side in self.size)
        return height, width

    def operator(self) -> operators.Operator:
        """What made `observed` of an image on the network's canvas: of its middle, the stages."""
        return operators.compose(operators.crop(*self.size), self.stages)

    def reference(self) -> Array | None:
        """The ground truth with the channels of `observed`, (1, H, W, C)."""
        if self.hr is None:
            return None
        gray = self.observed.shape[-1] == 1
        return jnp.asarray(jpeg_luma(self.hr) if gray else self.hr)[None]

    @property
    def score(self) -> "Score":
        """What the curves show; of enlarged images Y is shaved by the factor."""
        return Score(self.size, self.factor if self.factor > 1 else 0)


@dataclasses.dataclass(frozen=True)
class Score:
    """PSNR (dB) on the stored channels and on studio-range Y, of the middle of a canvas.

    Equal ones are one to `jax.jit`: problems of one kind share a program.
    """

    size: tuple[int, int]
    shave: int

    def __call__(self, image: Array, reference: Array) -> dict[str, Array]:
        image = operators.crop(*self.size)(image)
        luma = images.rgb_to_y(image), images.rgb_to_y(reference)
        return {"psnr": psnr(image, reference), "psnr_y": psnr(*luma, shave=self.shave)}


def load(settings: Settings) -> Problem:
    """The problem of a ground truth, degraded here; of an observation; or of the photograph.

    Args:
      settings: resolved.

    Raises:
      InputError: a file is no image, too small, or does not fit the others.
    """
    if settings.lr:
        return _observed(settings.lr, settings)
    if settings.hr:
        image = images.read(settings.hr)
        name, pixels = settings.hr.stem, image.pixels
        if image.alpha is not None:
            print(f"{name}: its transparency is left out, --hr compares all of the colours")
        if image.narrowed:
            print(f"{name}: its values are {NARROWED}")
    else:
        name, pixels = PHOTOGRAPH, photograph()
    protocol = PROTOCOLS[settings.protocol]
    truth, seen, degraded = degradation.observe(pixels, settings, protocol)
    if truth.shape != pixels.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pixels, truth)]
        print(f"{name}: cropped from {sizes[0]} to {sizes[1]}, as protocol {protocol.name} asks")
    _check_size(f"the observation of `--hr` (={settings.hr})", seen)
    enlarged = protocol.bicubic(seen, (truth.shape[0], truth.shape[1]))
    return _problem(name, settings, [pixels], seen, enlarged, degraded, hr=truth)


def _observed(path: pathlib.Path, settings: Settings) -> Problem:
    image = images.read(path)
    if image.narrowed:
        print(f"{path.stem}: its values are {NARROWED}")
    seen, alpha = image.pixels, image.alpha
    _check_size(f"`--lr` (={path})", seen)
    degraded = degradation.of(settings, (seen.shape[0], seen.shape[1]))
    if degraded.mask is not None:
        seen = seen * degraded.mask
    enlarged = seen
    if settings.factor is not None:
        enlarged = np.clip(imresize(seen, settings.factor), 0, 1).astype(np.float32)
        if alpha is not None:
            alpha = np.clip(imresize(alpha, settings.factor), 0, 1).astype(np.float32)
    known = [image.pixels] if image.alpha is None else [image.pixels, image.alpha]
    return _problem(path.stem, settings, known, seen, enlarged, degraded, alpha=alpha)


def _problem(
    name: str,
    settings: Settings,
    known: list[np.ndarray],
    seen: np.ndarray,
    enlarged: np.ndarray,
    degraded: Degradation,
    *,
    hr: np.ndarray | None = None,
    alpha: np.ndarray | None = None,
) -> Problem:
    stages = degraded.stages()
    baseline_name, make_baseline = _baseline(settings.task, seen, enlarged, degraded, stages)
    protocol = PROTOCOLS[settings.protocol]
    if settings.mask and degraded.mask is not None:
        known = [*known, degraded.mask]
    if settings.blur_kernel and degraded.blur is not None:
        known = [*known, degraded.blur]
    return Problem(
        name=name,
        words=WORDS[settings.task],
        factor=settings.factor or 1,
        observed=seen,
        size=(enlarged.shape[0], enlarged.shape[1]),
        baseline_name=baseline_name,
        make_baseline=make_baseline,
        hr=hr,
        alpha=alpha,
        stages=stages,
        protocol=protocol,
        description=_description(settings, protocol, gray=seen.shape[-1] == 1),
        digest=digest(*known),
    )


def _baseline(
    task: str,
    seen: np.ndarray,
    enlarged: np.ndarray,
    degraded: Degradation,
    stages: operators.Operator,
) -> tuple[str, Callable[[], np.ndarray]]:
    """The usual one of the task; where more befell the image, total variation under all of it."""
    blurred, mask, noise = degraded.blur is not None, degraded.mask, degraded.noise
    if task == "sr" and mask is None:
        return "bicubic", lambda: enlarged
    if task == "inpaint" and mask is not None and not blurred and noise is None:
        return "biharmonic", lambda: baselines.biharmonic(seen, mask)
    if not blurred and mask is None:
        return "tv", lambda: baselines.chambolle(seen, noise or 0.0)
    return "tv", lambda: baselines.tv_restored(seen, enlarged, stages, noise or 0.0)


def _description(settings: Settings, protocol: Protocol, *, gray: bool) -> str:
    figures, _, made = protocol.description.rpartition("; ")
    if gray:
        figures = figures.replace("8-bit RGB", "8-bit gray")
    steps = {"blur": settings.blur, "sigma": settings.sigma, "missing": settings.missing}
    said = [f"{name} {value:g}" for name, value in steps.items() if value is not None]
    paths = {"blur kernel": settings.blur_kernel, "mask": settings.mask}
    said += [f"{name} {path.name}" for name, path in paths.items() if path is not None]
    return "; ".join([figures, *([made] if settings.task == "sr" else []), *said])


def _check_size(name: str, pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    if min(height, width) < 16:
        raise InputError(f"{name}, of {width}x{height} pixels, must have at least 16 a side")


def photograph() -> np.ndarray:
    """A cup and a spoon, (128, 128, 3), cut from scikit-image's `coffee` (Rachel Michetti, CC0)."""
    return images.from_uint8(skimage.data.coffee()[60:188, 330:458])


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of an image's decoded pixels, to know it by, whatever its file; not of its shape."""
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()
