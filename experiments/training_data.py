"""What a training sees: images of a data set or a folder, on one device or on many."""

import hashlib
import pathlib
from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxsr import images
from jaxsr.datasets import bsds300, folders, patches
from jaxsr.errors import InputError


def load(
    data: str,
    test: pathlib.Path | None,
    manual_dir: pathlib.Path | None,
    *,
    patch: int,
    factor: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The training images and those to measure on, none where none are named; (H, W, C) uint8.

    Raises:
      InputError: they cannot be had, or one of a folder is too small for a patch or, to be measured
        on, for the factor.
    """
    bsds = data == "bsds300"
    if manual_dir and not bsds:
        raise InputError(f"`--manual-dir` (={manual_dir}) goes with `--data bsds300` alone")
    if bsds:
        training = bsds300.load("train", manual_dir=manual_dir)
    else:
        training = folders.load(data, least=patch)
    if test:  # `factor` pixels at each border do not count
        return training, folders.load(test, least=3 * factor)
    return training, bsds300.load("test", manual_dir=manual_dir) if bsds else []


def stacks(tests: list[np.ndarray], factor: int) -> list[np.ndarray]:
    """Luma of test images, cropped to multiples of the factor, in (N, H, W, 1) of equal sizes."""
    found: dict[tuple[int, ...], list[np.ndarray]] = {}
    for image in tests:
        luma = images.rgb_to_y(images.from_uint8(image))
        luma = images.crop_to_multiple(luma, factor, anchor="top-left")
        found.setdefault(luma.shape, []).append(luma)
    return [np.stack(group) for group in found.values()]


def digests(bank: patches.Bank, stacks: list[np.ndarray]) -> dict[str, str | None]:
    """Of the training and of the test images, to know them by."""
    return {"data_sha256": _digest(bank), "test_sha256": _digest(stacks) if stacks else None}


def _digest(arrays: Iterable[jax.Array | np.ndarray]) -> str:
    code = hashlib.sha256()
    for array in map(np.asarray, arrays):
        code.update(f"{array.dtype}{array.shape}".encode())
        code.update(array.tobytes())
    return code.hexdigest()


def shared(bank: patches.Bank, sharding: NamedSharding) -> patches.Bank:
    """The bank on every device of a mesh; each process brings the same."""

    def spread(array: jax.Array) -> jax.Array:
        values = np.asarray(array)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(spread, bank)
