"""The record of a run's settings in its folder: it tells whose folder it is, and what went in."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxsr import reports
from jaxsr.errors import InputError
from jaxsr.options import option

_PIXELS = {
    "input_sha256": "the image, its mask or its blur kernel",
    "data_sha256": "the training images",
    "test_sha256": "the test images",
}

# Free to name another file of the same pixels; yet one that is degraded here is another problem.
_GIVEN_OR_NOT = ("lr",)


def as_config(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as JSON has it: paths and infinities as text, tuples as lists."""
    values = dataclasses.asdict(settings)
    return {name: _as_json(value) for name, value in values.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, os.PathLike) or value in (math.inf, -math.inf):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def read_metrics(path: pathlib.Path) -> dict[str, Any]:
    """The metrics in a run's folder, which mark it as finished; empty where there are none yet.

    Raises:
      InputError: the file is damaged.
    """
    return _read(path / "metrics.json", "delete it to write it anew")


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The settings in a run's folder; empty where there are none.

    Raises:
      InputError: the file is damaged.
    """
    return _read(path / "config.json", "it must be as a run wrote it")


def _read(path: pathlib.Path, advice: str) -> dict[str, Any]:
    try:
        return _object(path) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"`{path}` is damaged ({error}): {advice}") from error


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[None]:
    """Work on the metrics of a folder, in which something may lack or be of another kind.

    Raises:
      InputError: that is so.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        metrics = path / "metrics.json"
        raise InputError(
            f"`{metrics}` is damaged ({error!r}): delete it to write it anew"
        ) from error


def asked_for(metrics: Mapping[str, Any]) -> int | None:
    """The iterations that a fit was asked for, which its patience may have cut short."""
    # Early records, of fits without patience, name those done alone.
    asked: int | None = metrics.get("iterations_asked", metrics.get("iterations"))
    return asked


def _object(path: pathlib.Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it must hold a JSON object")
    return content


def by_name(paths: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Folders by as much of the ends of their paths as tells them apart; none of them twice.

    Files, which a glob may name too, are passed over.

    Raises:
      InputError: there is no folder.
    """
    folders = [path for path in paths if not path.is_file()]
    if not folders:
        given = " ".join(map(str, paths)) or "none"
        raise InputError(f"`RUNS` (={given}) must name at least one folder")
    distinct = {folder.resolve(): folder for folder in reversed(folders)}
    parts, depth = [path.parts for path in reversed(distinct)], 1
    while len({p[-depth:] for p in parts}) < len(parts):
        depth += 1
    names = ["/".join(p[-depth:]).removeprefix("//") for p in parts]
    return dict(zip(names, reversed(distinct.values()), strict=True))


def prepare(
    path: pathlib.Path,
    config: dict[str, Any],
    *,
    free: Sequence[str],
    grows: str,
    parts: Sequence[str] = (),
    absent: Mapping[str, Any] | None = None,
) -> None:
    """Make `path` a folder that a run of this `config` may claim, or see that it is one.

    Args:
      path: the folder; made, with its parents, where it is missing.
      config: what `as_config` made of the settings, and what else the run depends on.
      free: names in it that may differ when the run is taken up again.
      grows: the name of its length, which may grow but not shrink.
      parts: sub-folders to make.
      absent: what holds of names that the record of an earlier version lacks; None by default.

    Raises:
      InputError: the folder holds something else or another run, or cannot be made.
    """
    record = path / "config.json"
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A hidden file may be what a kill left of an unfinished write. Seen before the record is
        # looked for: another process of this run may be writing it, before all other files.
        theirs = {p.name for p in path.iterdir() if not p.name.startswith(".")}
        earlier = _object(record) if record.exists() else None
        if earlier:
            _require_kind(path, config, earlier)
            _compare(path, config, {**(absent or {}), **earlier}, (*free, grows), grows)
        elif theirs - {*parts, "checkpoints"}:
            raise InputError(f"`--out` (={path}) must be new, empty, or of an earlier run")
        for part in parts:
            (path / part).mkdir(exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{record}` is damaged ({error}): choose another `--out`") from error


def claim(path: pathlib.Path, config: dict[str, Any]) -> None:
    """Put a run's `config` on record in the folder that `prepare` has found to be its own.

    It comes before all other files, since a folder that holds some without it is taken for somebody
    else's; and after the lock on the checkpoints, where a run has them: another may be at it.

    Raises:
      InputError: it cannot be written.
    """
    record = path / "config.json"
    if not record.exists() or _object(record) != config:
        reports.write_json(record, config)


def unusable(out: pathlib.Path, error: OSError) -> InputError:
    """What the operating system refuses of the folder of `--out`."""
    why = "a file is in the way" if isinstance(error, FileExistsError) else error.strerror
    return InputError(f"`--out` (={out}) cannot be used: {why}")


def _kind(config: Mapping[str, Any]) -> str:
    if "epochs" in config:
        return "a training"
    if "seeds" not in config:
        return "one fit"
    return "several fits" if config["seeds"] != 1 else "one fit of each image"


def _require_kind(
    path: pathlib.Path, config: Mapping[str, Any], earlier: Mapping[str, Any]
) -> None:
    if _kind(earlier) != _kind(config):
        raise InputError(
            f"`--out` (={path}) must be new, empty, or of an earlier run of this kind: it holds "
            f"{_kind(earlier)}, not {_kind(config)}"
        )


def _compare(
    path: pathlib.Path,
    config: dict[str, Any],
    earlier: dict[str, Any],
    free: Sequence[str],
    grows: str,
) -> None:
    length = earlier.get(grows)
    if not isinstance(length, int):
        raise ValueError(f"it must hold `{grows}`, an integer")
    for name, value in config.items():
        same = earlier.get(name) == value
        if name in _GIVEN_OR_NOT:
            same = (earlier.get(name) is None) == (value is None)
        elif name in free:
            same = True
        elif name == "patience":  # without noise, early records have the 0 that was given
            same = same or not (value or earlier.get(name))
        if not same:
            setting = _PIXELS.get(name, option(name))
            raise InputError(
                f"{setting} (={value}) differs from the run in {path} "
                f"(={earlier.get(name)}): choose another `--out`"
            )
    if config[grows] < length:
        raise InputError(
            f"`--{grows}` (={config[grows]}) may grow but not shrink: the run in "
            f"{path} has {length}"
        )
