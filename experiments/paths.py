"""The image files that a command line names, and what each is called."""

import collections
import glob
import pathlib
from collections.abc import Collection, Iterable, Sequence

from jaxsr.datasets import folders
from jaxsr.errors import InputError


def matching(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The files that files, folders and globs name, in their order, each once.

    Raises:
      InputError: there is none, or one of the paths names none.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    for path in paths:
        try:
            files = _files(path)
        except OSError as error:
            raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
        for file in files:
            found.setdefault(file.parent.resolve() / file.name, file)  # a link has its own name
    if not found:
        raise InputError("there is no image: give files, folders or globs")
    return list(found.values())


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_dir():
        return folders.files(path)
    if path.exists():
        return [path]
    if not glob.has_magic(str(path)):
        raise InputError(f"`{path}` does not exist: give files, folders or globs")
    files = [pathlib.Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"`{path}` matches no file")
    return files


def data(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """The image files of the folder that `--data` names, or the one file, by name as of `named`.

    Raises:
      InputError: there are none.
    """
    if not path.exists():
        raise InputError(f"`--data` (={path}) does not exist: give a folder of images, or an image")
    return named(matching([path]))


def named(paths: Sequence[pathlib.Path], *, taken: Collection[str] = ()) -> dict[str, pathlib.Path]:
    """Files by name: without its suffix, but where two would share the name or it is taken."""
    stems = collections.Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    names = [path.name if name in taken else name for path, name in zip(paths, names, strict=True)]
    if len(set(names)) < len(names):  # a.png of b.jpg, say, and of a.png.jpg
        names = [path.name for path in paths]
    return dict(zip(names, paths, strict=True))
