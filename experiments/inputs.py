"""The images of a data set by name: one file each, known by its pixels."""

import pathlib
from collections.abc import Collection
from typing import NamedTuple

from experiments.problem import digest
from jaxsr import images
from jaxsr.errors import InputError

SUFFIXES = (".jpg", ".png")


class Input(NamedTuple):
    """An image file, and the SHA-256 of its decoded pixels."""

    path: pathlib.Path
    sha256: str


def find(folder: pathlib.Path, names: Collection[str]) -> dict[str, Input]:
    """Those of the named images that a folder holds, at any depth, as NAME.jpg or NAME.png.

    Of copies of the same pixels the first is taken.

    Raises:
      InputError: the folder holds none, two that differ share a name, or one cannot be read.
    """
    found: dict[str, Input] = {}
    for path in sorted(folder.rglob("*")):
        name = path.stem
        if name not in names or path.suffix.lower() not in SUFFIXES:
            continue
        one = Input(path, digest(images.read(path).pixels))
        other = found.setdefault(name, one)
        if other.sha256 != one.sha256:
            raise InputError(
                f"`{other.path}` and `{path}` share a name and differ: leave one below `{folder}`"
            )
    if not found:
        name = next(iter(names))
        raise InputError(f"`{folder}` must hold {name}.jpg or {name}.png, at any depth")
    return found
