"""Files that are written whole or not at all, and where those go that can be made again."""

import contextlib
import os
import pathlib
import secrets
import sys
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


def lock(folder: str | os.PathLike[str], *, wait: bool = False) -> int:
    """Keeps other processes that ask for it out of a folder: until this one closes what it gets.

    A process that ends, however it does, closes it. Where the file system has no locks, or the
    operating system none of the kind (Windows), nobody is kept out.

    Returns:
      A file descriptor, for `os.close`.

    Raises:
      InputError: another holds it, unless this one is to `wait`; or there is no such folder.
    """
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY)
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"`{folder}` cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"`{folder}` is in use by another process") from error
    except OSError:  # not supported there
        pass
    return descriptor


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that becomes `path` if the block succeeds.

    The temporary name ends in the same suffix. Whatever happens in the block, an interrupt
    included, `path` holds either its former content or all of the new one, and no temporary file
    stays behind (after a SIGKILL one may).

    Raises:
      InputError: `path` names no file, or what it names is none (a device, say), or the operating
        system refuses to write: no such folder, no permission, disk full.
    """
    path = pathlib.Path(path)
    if not path.name:
        raise InputError(f"`{path}` must name a file")
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # which the system refuses
            raise InputError(f"`{path}` must be a file: it would be replaced")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise InputError(f"`{path}` cannot be written: {reason}") from error
