"""Finished runs as one HTML page: images to compare, curves, scores and settings.

    python -m experiments.report runs/dip/coffee_x4_charbonnier_seed0 --out report.html
    python -m experiments.report runs/dip/* scores/set5 runs/lapsrn/* --out all.html

RUN is a folder that experiments.dip, experiments.evaluate or experiments.lapsrn left. The page
works offline and asks nothing of the network; every number in it is as the run recorded it.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import tyro

from experiments import command, finished
from jaxsr import page
from jaxsr.errors import InputError
from jaxsr.files import atomic

MEGABYTES = 32.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Finished runs as one HTML page."""

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders that experiments.dip, experiments.evaluate or experiments.lapsrn left."""
    out: pathlib.Path = pathlib.Path("report.html")
    """The page to write."""
    megabytes: float = MEGABYTES
    """Of an evaluation's images: those beyond are left out of the page, which says so."""


def run(settings: Settings) -> int:
    """The page; the exit code."""
    if settings.out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`--out` (={settings.out}) must end in .html")
    if not settings.megabytes >= 0:
        raise InputError(f"`--megabytes` (={settings.megabytes}) must be at least 0")
    write_page(settings.runs, settings.out, megabytes=settings.megabytes)
    print(f"{settings.out}: open it in a browser")
    return 0


def write_page(
    folders: Sequence[pathlib.Path], out: pathlib.Path, *, megabytes: float = MEGABYTES
) -> None:
    """Writes the page of the runs in some folders; a folder named twice is shown once.

    Raises:
      InputError: a folder holds no finished run, a record is damaged, or `out` cannot be written.
    """
    if not folders:
        raise InputError("`RUN` (=nothing) must be at least one folder of a finished run")
    distinct = {folder.resolve(): folder for folder in reversed(folders)}
    folders = list(reversed(distinct.values()))
    named = zip(folders, _names(folders), strict=True)
    runs = [finished.read(folder, name, megabytes) for folder, name in named]
    # A file name may hold bytes that are no text.
    text = page.render(runs).encode("utf-8", errors="replace")
    with atomic(out) as temporary:
        temporary.write_bytes(text)


def beside(folder: pathlib.Path, out: pathlib.Path | None = None) -> None:
    """The page of a run that has just written its records, in its folder unless `out` says where.

    They matter more: whatever goes wrong here is one line on stderr.
    """
    out = out or folder / "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_page([folder], out)
        print(f"to look at: {out}")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"no page `{out}` was made ({reason}); all else is there", file=sys.stderr)


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """As much of the ends of the paths as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(parts):
        depth += 1
    return ["/".join(p[-depth:]).removeprefix("//") for p in parts]


if __name__ == "__main__":
    sys.exit(command.main(Settings, run))
