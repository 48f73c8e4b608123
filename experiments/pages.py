"""The page of a run beside its records: written last, and less dear than they are."""

import pathlib
import sys
from collections.abc import Callable, Sequence

from jaxsr import page
from jaxsr.files import atomic

NAME = "report.html"
Reader = Callable[[pathlib.Path, str], page.Run]


def write(runs: Sequence[page.Run], out: pathlib.Path) -> None:
    """Writes the page of some runs.

    Raises:
      InputError: the file cannot be written.
    """
    # A file name may hold bytes that are no text.
    text = page.render(runs).encode("utf-8", errors="replace")
    with atomic(out) as temporary:
        temporary.write_bytes(text)


def beside(read: Reader, folder: pathlib.Path, *, out: pathlib.Path | None = None) -> None:
    """The page of the run that has just left its records in a folder; there, or where `out` says.

    Whatever goes wrong here is told in one line, and is no failure of the run.
    """
    out = out or folder / NAME
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write([read(folder, folder.resolve().name)], out)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"`{out}` was not made ({reason}); all else is there", file=sys.stderr)
    else:
        print(f"to look at: {out}")
