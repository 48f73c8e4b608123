"""A super-resolution problem from an image file: what was observed, what is known of the truth."""

import dataclasses
import hashlib
import pathlib

import jax.numpy as jnp
import numpy as np
import skimage.data
from jax import Array

from jaxsr import images, operators
from jaxsr.errors import InputError
from jaxsr.metrics import psnr
from jaxsr.protocols import PROTOCOLS, Protocol, jpeg_luma
from jaxsr.resample import imresize

PHOTOGRAPH = "coffee"


@dataclasses.dataclass(frozen=True)
class Problem:
    """Upscale `lr` by `factor`; images are (H, W, C) float32.

    hr, bicubic: the ground truth, where known, and the baseline; both of the result's size.
    alpha: (H, W, 1) of the result, upscaled already, or None.
    digest: of the input's pixels, to know the image by.
    """

    name: str
    factor: int
    lr: np.ndarray
    bicubic: np.ndarray
    hr: np.ndarray | None
    alpha: np.ndarray | None
    protocol: Protocol
    digest: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.bicubic.shape[0], self.bicubic.shape[1]

    def canvas(self, multiple: int) -> tuple[int, int]:
        """The size that the network draws: the next multiple, at least twice it."""
        height, width = (max(2 * multiple, -(-side // multiple) * multiple) for side in self.size)
        return height, width

    def operator(self, kernel: operators.Kernel) -> operators.Operator:
        """What made `lr` of an image on the network's canvas: the middle, downsampled."""
        downsample = operators.downsample(self.factor, kernel=kernel)
        return operators.compose(operators.crop(*self.size), downsample)

    def reference(self) -> Array | None:
        """The ground truth with the channels of `lr`, (1, H, W, C)."""
        if self.hr is None:
            return None
        gray = self.lr.shape[-1] == 1
        return jnp.asarray(jpeg_luma(self.hr) if gray else self.hr)[None]

    def score(self, image: Array, reference: Array) -> dict[str, Array]:
        """PSNR (dB) on the stored channels and on studio-range Y, shaved by the factor."""
        image = operators.crop(*self.size)(image)
        luma = images.rgb_to_y(image), images.rgb_to_y(reference)
        return {"psnr": psnr(image, reference), "psnr_y": psnr(*luma, shave=self.shave)}

    @property
    def shave(self) -> int:
        """Border pixels that the curves on Y leave out; none on images too small for it."""
        return self.factor if min(self.size) > 2 * self.factor else 0


def load(
    hr: pathlib.Path | None, lr: pathlib.Path | None, factor: int, protocol_name: str
) -> Problem:
    """The problem of a ground truth, degraded here; of a low resolution; or of the photograph.

    Raises:
      InputError: both are given, the file is no image, or it is too small.
    """
    if hr and lr:
        raise InputError(f"`--hr` (={hr}) and `--lr` (={lr}) exclude each other: give one")
    protocol = PROTOCOLS[protocol_name]
    if lr:
        return _upscale(lr, factor, protocol)
    if hr:
        name, pixels = hr.stem, images.read(hr).pixels
    else:
        name, pixels = PHOTOGRAPH, photograph()
    truth, observed = protocol.degrade(pixels, factor)
    if truth.shape != pixels.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pixels, truth)]
        print(f"{name}: cropped from {sizes[0]} to {sizes[1]}, as protocol {protocol.name} asks")
    _check_size("the low resolution", observed)
    height, width = truth.shape[:2]
    baseline = protocol.bicubic(observed, (height, width))
    return Problem(name, factor, observed, baseline, truth, None, protocol, digest(pixels))


def _upscale(path: pathlib.Path, factor: int, protocol: Protocol) -> Problem:
    image = images.read(path)
    observed, alpha = image.pixels, image.alpha
    _check_size(f"`--lr` (={path})", observed)
    baseline = np.clip(imresize(observed, factor), 0, 1).astype(np.float32)
    if alpha is not None:
        alpha = np.clip(imresize(alpha, factor), 0, 1).astype(np.float32)
    return Problem(path.stem, factor, observed, baseline, None, alpha, protocol, digest(observed))


def _check_size(name: str, pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    if min(height, width) < 16:
        raise InputError(f"{name}, of {width}x{height} pixels, must have at least 16 a side")


def photograph() -> np.ndarray:
    """A cup and a spoon, (128, 128, 3), cut from scikit-image's `coffee` (Rachel Michetti, CC0)."""
    return images.from_uint8(skimage.data.coffee()[60:188, 330:458])


def digest(pixels: np.ndarray) -> str:
    """SHA-256 of an image's decoded pixels, to know it by, whatever its file."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
