"""Files that are written whole or not at all, and where those go that can be made again."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

from jaxsr.errors import InputError


def cache() -> pathlib.Path:
    """The user's folder for what can be made again: `jaxsr` below $XDG_CACHE_HOME or ~/.cache.

    Raises:
      InputError: neither is known.
    """
    if root := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(root) / "jaxsr"
    try:
        return pathlib.Path.home() / ".cache" / "jaxsr"
    except RuntimeError as error:
        raise InputError(
            "`HOME` (=none) must name the home folder, or `XDG_CACHE_HOME` a folder for caches"
        ) from error


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that becomes `path` if the block succeeds.

    The temporary name ends in the same suffix. Whatever happens in the block, an interrupt
    included, `path` holds either its former content or all of the new one, and no temporary file
    stays behind (after a SIGKILL one may).

    Raises:
      InputError: `path` names no file, or the operating system refuses to write: no such folder,
        no permission, disk full.
    """
    path = pathlib.Path(path)
    if not path.name:
        raise InputError(f"`{path}` must name a file")
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise InputError(f"`{path}` cannot be written: {reason}") from error
