"""The whole suite, part after part, into one file.

    python -m benchmarks --json new.json
    python -m benchmarks --parts sizes lapsrn --json new.json
    python -m benchmarks --json new.json --compare old.json   and what changed beyond the spread

Each part is one of `benchmarks`' commands in a process of its own (so that one's memory and threads
are not the next's). Run nothing else meanwhile.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any, Literal, get_args

from benchmarks import comparison, peers, plots
from jaxsr import reports
from jaxsr.errors import InputError
from jaxsr.options import Given

Part = Literal[
    "compiling",
    "convolution",
    "dip",
    "sizes",
    "losses",
    "precisions",
    "fits",
    "lapsrn",
    "memory",
]

COMMANDS: dict[Part, tuple[str, ...]] = {
    "compiling": ("compiling",),
    "convolution": ("convolution",),
    "dip": ("dip", "--sizes", "128x128", "320x480"),
    "sizes": ("dip", "--alone", "--rounds", "3", "--sizes", "64x64", "256x256", "512x512"),
    "losses": ("dip", "--alone", "--sizes", "128x128", "--losses", "mse", "l1", "charbonnier"),
    "precisions": ("dip", "--alone", "--sizes", "128x128", "--precisions", "bfloat16"),
    "fits": ("fits",),
    "lapsrn": ("lapsrn",),
    "memory": ("memory",),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """The benchmark suite."""

    json: pathlib.Path
    """File for the results, with machine and versions; begun at once, complete after each part;
    while one runs, its results are in FILE.PART."""
    parts: tuple[Part, ...] = get_args(Part)
    """Which. `benchmarks.losses`, `.quality` and `.tricks` take long: they run by themselves."""
    compare: Given[pathlib.Path] = None
    """An earlier file, of the suite or of one part's command: what changed since is printed at the
    end."""
    plot: Given[pathlib.Path] = None
    """A PNG of seconds an iteration by the image's size."""


def read(path: pathlib.Path) -> dict[str, Any]:
    """A record of the suite, or of a command of it, as that of each part which the command makes.

    Raises:
      InputError: the file is none.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "parts" not in record:
            made_by = record["benchmark"]
            parts = (part for part, command in COMMANDS.items() if command[0] == made_by)
            record = {"parts": dict.fromkeys(parts, record)}
        known = bool(comparison.rows(record))
        comparison.changes(record, record)
        comparison.elsewhere(record, record)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"`--compare` (={path}) cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise InputError(f"`--compare` (={path}) must be a file of the suite or of a part")
    return record


def run(options: Options) -> dict[str, Any]:
    """Runs the parts; returns, and writes, what was found.

    Raises:
      InputError: an option that cannot be used, or a part that fails.
    """
    if options.compare and options.compare.resolve() == options.json.resolve():
        raise InputError(f"`--json` (={options.json}) would overwrite `--compare`: choose another")
    old = read(options.compare) if options.compare else None
    if options.plot and not {"dip", "sizes"} & {*options.parts}:
        raise InputError(f"`--plot` (={options.plot}) shows the parts dip and sizes: name one")
    found: dict[str, Any] = {"benchmark": "suite", "parts": {}}
    reports.write_json(options.json, found)
    failed = []
    for part in options.parts:
        print(f"-- {part}: python -m benchmarks.{' '.join(COMMANDS[part])}", flush=True)
        path = options.json.with_name(f"{options.json.name}.{part}")  # stays if this is killed
        command = [sys.executable, "-m", f"benchmarks.{COMMANDS[part][0]}"]
        command += [*COMMANDS[part][1:], "--json", str(path)]
        path.unlink(missing_ok=True)
        try:
            if subprocess.run(command).returncode:
                failed.append(part)
        finally:
            if path.exists():  # of a part that failed or was stopped, what it had measured
                found["parts"][part] = json.loads(path.read_text(encoding="utf-8"))
                reports.write_json(options.json, found)
                path.unlink()
    if old is not None:
        for line in comparison.elsewhere(old, found):
            print(f"not the same machine or versions: {line}")
        for line in comparison.unlike(old, found):
            print(line)
        of = len(comparison.compared(old, found))
        print(comparison.table(comparison.changes(old, found), of=of))
    if options.plot:
        plots.seconds_by_size(options.plot, found)
    if failed:
        raise InputError(f"`--parts` (={' '.join(failed)}) failed, see above; the rest is kept")
    return found


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
