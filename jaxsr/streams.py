"""Standard output and error of a command, which does its work whether or not they are read."""

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class _Unfailing(io.FileIO):
    """A descriptor that takes all; what was refused first is remembered."""

    refused: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # full, and set not to wait
                select.select([], [self], [])
            return written
        except OSError as error:
            self.refused = self.refused or error
            return len(data)


@contextlib.contextmanager
def unfailing() -> Iterator[Callable[[], OSError | None]]:
    """A block in which printing to Python's own output and error raises nothing.

    Ctrl-C also ends the `tee` that reads a command, whose result has to be saved nevertheless. What
    is no text, of a file's name say, is printed with backslashes.

    Yields:
      A function that tells what the system refused of standard output; None where nothing, or where
      its reader has had enough, as `head`.
    """
    with contextlib.ExitStack() as closing:
        before = sys.stdout, sys.stderr
        sys.stdout, output = _replaced(sys.stdout, sys.__stdout__, closing)
        sys.stderr, _ = _replaced(sys.stderr, sys.__stderr__, closing)

        def refused() -> OSError | None:
            sys.stdout.flush()
            error = output.refused if output else None
            return None if isinstance(error, BrokenPipeError) else error

        try:
            yield refused
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def _replaced(
    stream: TextIO | None, own: TextIO | None, closing: contextlib.ExitStack
) -> tuple[TextIO, _Unfailing | None]:
    """What takes a stream's place, where that is Python's own or closed."""
    if stream is None:
        return closing.enter_context(open(os.devnull, "w", errors="backslashreplace")), None
    if not isinstance(stream, io.TextIOWrapper):
        return stream, None
    if stream is not own or sys.platform == "win32":  # captured, or perhaps a console of Windows
        stream.reconfigure(errors="backslashreplace")
        return stream, None
    stream.flush()
    raw = _Unfailing(stream.fileno(), "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
    return text, raw
