"""What may befall a low resolution: outliers, noise, compression.

Images are (h, w, C) in [0, 1]; results are rounded to 8 bits, as a file would hold them.
"""

import functools
import io
from collections.abc import Callable

import jax
import numpy as np
import PIL.Image
from jax import Array

from jaxsr import images

Corruption = Callable[[Array, np.ndarray], np.ndarray]


def clean(key: Array, image: np.ndarray) -> np.ndarray:
    """Nothing."""
    return image


def salt_and_pepper(key: Array, image: np.ndarray, *, share: float) -> np.ndarray:
    """A share of the pixels, rounded to whole ones, turns white and black by turns."""
    height, width = image.shape[:2]
    count = round(share * height * width)
    chosen = np.asarray(jax.random.permutation(key, height * width))[:count]
    struck = image.copy()
    struck.reshape(height * width, -1)[chosen] = (np.arange(count) % 2 == 0)[:, None]
    return struck


def gaussian(key: Array, image: np.ndarray, *, sigma: float) -> np.ndarray:
    """Noise of standard deviation `sigma`, in units of 1/255, cut off at 0 and 1."""
    noise = np.asarray(jax.random.normal(key, image.shape))
    return images.from_uint8(images.to_uint8(image + sigma / 255 * noise))


def jpeg(key: Array, image: np.ndarray, *, quality: int) -> np.ndarray:
    """Through a JPEG file of Pillow's."""
    file = io.BytesIO()
    images.to_pillow(image).save(file, "JPEG", quality=quality)
    with PIL.Image.open(file) as stored:
        return images.from_uint8(np.asarray(stored).reshape(image.shape))


# The place of each decides its noise, which records do not name: new ones go to the end.
CORRUPTIONS: dict[str, Corruption] = {
    "clean": clean,
    "outliers-1": functools.partial(salt_and_pepper, share=0.01),
    "outliers-5": functools.partial(salt_and_pepper, share=0.05),
    "outliers-10": functools.partial(salt_and_pepper, share=0.10),
    "gaussian-10": functools.partial(gaussian, sigma=10),
    "gaussian-25": functools.partial(gaussian, sigma=25),
    "jpeg-30": functools.partial(jpeg, quality=30),
}
