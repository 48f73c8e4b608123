"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

from jaxsr.errors import InputError


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that becomes `path` if the block succeeds.

    The temporary name ends in the same suffix. Whatever happens in the block, an interrupt
    included, `path` holds either its former content or all of the new one, and no temporary file
    stays behind (after a SIGKILL one may).

    Raises:
        InputError: the operating system refuses to write: no such folder, no permission, disk full.
    """
    path = pathlib.Path(path)
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
