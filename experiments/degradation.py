"""What befalls an image before it is observed: blur, fewer pixels, noise, missing pixels.

    observation = mask (noise + downsampled (blurred image))

each where the settings ask for it; `stages` is the same as an operator, without the noise.
"""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import corruptions
from experiments.recipes import Settings
from jaxsr import images, operators
from jaxsr.errors import InputError
from jaxsr.protocols import Protocol


class Degradation(NamedTuple):
    """Of one image; None where a stage is left out."""

    blur: np.ndarray | None  # the kernel, 2-D, its sum 1
    downsample: tuple[int, operators.Kernel] | None
    noise: float | None  # standard deviation, in units of 1/255
    mask: np.ndarray | None  # (h, w, 1), 1 where observed, 0 where not

    def stages(self) -> operators.Operator:
        """From the image to the observation, as operator."""
        found = []
        if self.blur is not None:
            found.append(operators.blur(self.blur))
        if self.downsample is not None:
            factor, kernel = self.downsample
            found.append(operators.downsample(factor, kernel=kernel))
        if self.mask is not None:
            found.append(operators.mask(self.mask))
        return operators.compose(*found)


def of(settings: Settings, size: tuple[int, int]) -> Degradation:
    """What resolved settings say of an image whose observation has this height and width.

    Raises:
      InputError: a file cannot be read, or does not fit.
    """
    downsample = None
    if settings.factor is not None and settings.kernel is not None:
        downsample = settings.factor, settings.kernel
    return Degradation(_blur(settings), downsample, settings.sigma, _mask(settings, size))


def _blur(settings: Settings) -> np.ndarray | None:
    if settings.blur is not None:
        reach = int(np.ceil(3 * settings.blur))
        taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * settings.blur**2))
        return np.outer(taps, taps) / taps.sum() ** 2
    if settings.blur_kernel is None:
        return None
    values = _read_kernel(settings.blur_kernel)
    if values.ndim != 2 or 0 in [side % 2 for side in values.shape]:
        sides = "x".join(map(str, values.shape[::-1]))
        raise InputError(
            f"`--blur-kernel` (={settings.blur_kernel}, of {sides}) must be 2-D with odd sides: "
            "give an even one a row or column of zeros more"
        )
    if not 0 < values.sum() < np.inf:
        raise InputError(
            f"`--blur-kernel` (={settings.blur_kernel}) must be finite with a sum above 0, not "
            f"{values.sum()}"
        )
    return values / values.sum()


def _read_kernel(path: pathlib.Path) -> np.ndarray:
    if path.suffix.lower() != ".npy":
        return images.read(path).pixels.mean(-1, dtype=np.float64)
    try:
        with path.open("rb") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"it holds {values.dtype}, not real numbers")
        return values.astype(np.float64)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"`--blur-kernel` (={path}) cannot be read: {reason}") from error


def _mask(settings: Settings, size: tuple[int, int]) -> np.ndarray | None:
    height, width = size
    if settings.mask is not None:
        image = images.read(settings.mask)
        white, found = image.pixels > 0.5, image.pixels.shape
        observed = np.asarray(white.all(-1, keepdims=True))
        fits = found[:2] == size
        rules = (
            (fits, f"have the observation's {width}x{height}, not {found[1]}x{found[0]} pixels"),
            (image.alpha is None or image.alpha.min() == 1, "not be transparent anywhere"),
            ((white == observed).all(), "be gray: over or under half of white in all its channels"),
            (observed.any(), "leave a pixel observed: white"),
            (not observed.all(), "have a pixel missing: black"),
        )
        for holds, rule in rules:
            if not holds:
                raise InputError(f"`--mask` (={settings.mask}) must {rule}")
        return observed.astype(np.float32)
    if settings.missing is None:
        return None
    order = np.asarray(jax.random.permutation(_key(settings, "mask"), height * width))
    lost = min(round(settings.missing * height * width), height * width - 1)
    return (order >= lost).astype(np.float32).reshape(height, width, 1)


def _key(settings: Settings, what: str) -> jax.Array:
    noise, mask = jax.random.split(jax.random.key(settings.degrade_seed))
    return noise if what == "noise" else mask


def observe(
    hr: np.ndarray, settings: Settings, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray, Degradation]:
    """The part of a ground truth that is to be restored, what is seen of it, and how.

    Whatever the stages make is rounded to 8 bits, as a file would hold it; a low resolution as the
    protocol has it.

    Raises:
      InputError: the settings' files cannot be read, or do not fit.
    """
    truth = hr if settings.factor is None else protocol.degrade(hr, settings.factor)[0]
    seen, blur = truth, _blur(settings)
    if blur is not None:
        blurred = np.asarray(operators.blur(blur)(jnp.asarray(truth)))
        seen = images.from_uint8(images.to_uint8(blurred))
    if settings.factor is not None:
        seen = protocol.degrade(seen, settings.factor)[1]
    degradation = of(settings, (seen.shape[0], seen.shape[1]))
    if settings.sigma is not None:
        seen = corruptions.gaussian(_key(settings, "noise"), seen, sigma=settings.sigma)
    if degradation.mask is not None:
        seen = seen * degradation.mask
    return truth, seen, degradation
