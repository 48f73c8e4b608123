"""What a finished run left in its folder, as `jaxsr.page` shows it."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from experiments import problem, shown
from experiments.record import asked_for, read_metrics
from jaxsr import page
from jaxsr.errors import InputError

MEGABYTES = 32.0
_METHODS = {"bicubic": "bicubic", "lapsrn": "LapSRN", "dip": "DIP", "restored": "restored"}
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def read(folder: pathlib.Path, name: str, *, megabytes: float = MEGABYTES) -> page.Run:
    """The run in a folder; of an evaluation's images so many megabytes.

    Raises:
      Unfinished: there is a run that is not.
      InputError: there is none, or its records are damaged.
    """
    if not folder.is_dir():
        raise InputError(f"`RUNS` (={folder}) must be a folder that is there")
    kinds = ("scores.json", _of_images), ("metrics.json", _training_or_fit)
    record = next((kind for kind in kinds if (folder / kind[0]).exists()), None)
    if record is None:
        if any((folder / trace).exists() for trace in ("config.json", "images")):
            raise _unfinished(folder)
        commands = "experiments.dip, .evaluate, .lapsrn or .table1"
        raise InputError(f"`RUNS` (={folder}) must be a folder that {commands} left: it is not")
    file, reader = record
    try:
        return reader(folder, name, _read_json(folder / file), megabytes)
    except InputError:
        raise
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"`{folder / file}` is damaged ({reason}): it must be as a run wrote it"
        ) from error


class Unfinished(InputError):
    """A run goes on, or was stopped."""


def _unfinished(folder: pathlib.Path) -> Unfinished:
    return Unfinished(f"`RUNS` (={folder}) must be finished: give its own command again")


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"`{path}` is damaged ({reason}): it must be as a run wrote it") from error
    if not isinstance(record, dict):
        raise InputError(f"`{path}` is damaged: it must hold a JSON object")
    return record


def _training_or_fit(
    folder: pathlib.Path, name: str, metrics: dict[str, Any], megabytes: float
) -> page.Run:
    if "seeds" in metrics:
        return _ensemble(folder, name, metrics)
    config = _read_json(folder / "config.json")
    length = "epochs" if "epochs" in metrics else "iterations"
    if (metrics[length] if length == "epochs" else asked_for(metrics)) != config[length]:
        raise _unfinished(folder)
    results = {k: v for k, v in metrics.items() if k not in ("settings", "epochs")}
    scene = "" if length == "epochs" else config["name"]
    history = folder / "history.csv"
    if length == "epochs":
        quantities = {"psnr": "PSNR on the test images (dB)", "loss": shown.LOSS}
        curves = [shown.curve(history, name, scene, quantities)]
        return page.Run(name, "experiments.lapsrn", config, results, (), curves)
    curves = [shown.curve(history, name, scene, shown.quantities(metrics))]
    protocol, figures, tables = metrics["protocol"] or "", {}, []
    task, beside = config.get("task", "sr"), metrics.get("baseline", "bicubic")
    words = problem.WORDS[task]
    if "psnr" in metrics:
        figures = {"DIP": metrics, "DIP, last output": metrics.get("last")}
        figures[problem.TITLES[beside]] = metrics[beside]
        what = f"{config['factor']}×" if task == "sr" else task
        made = f"DIP {what}, protocol {protocol}: {metrics['protocol_description']}"
        columns = ("run", *_columns(problem.TITLES[beside]))
        tables = [page.Table(made, columns, [(name, [*_figures(metrics, beside)])])]
    files: list[tuple[str, str, page.Role]] = [(words.observed, words.title, "input")]
    files += [(stem, title, "baseline") for stem, title in problem.TITLES.items()]
    files += [
        (words.result, "DIP", "result"),
        (f"{words.result}_last", "DIP, last output", "result"),
    ]
    files += [("hr", "ground truth", "truth")]
    pictures = [
        picture
        for file, label, role in files
        for picture in shown.picture(
            folder / f"{file}.png", scene, label, role, figures.get(label), protocol
        )
    ]
    size = next((p.size for p in pictures if p.role != "input"), None)
    # The low resolution is shown as large as the rest.
    pictures = [dataclasses.replace(p, size=size or p.size) for p in pictures]
    return page.Run(name, "experiments.dip", config, results, pictures, curves, tables)


def _ensemble(folder: pathlib.Path, name: str, metrics: dict[str, Any]) -> page.Run:
    """The mean of several seeds, among what the first of them has."""
    first = read(folder / f"seed{metrics['seeds'][0]}", name)
    lengths = [read_metrics(folder / f"seed{seed}") for seed in metrics["seeds"]]
    if {asked_for(x) for x in (metrics, *lengths)} != {first.settings["iterations"]}:
        raise _unfinished(folder)
    task = first.settings.get("task", "sr")
    label = f"DIP, mean of {len(metrics['seeds'])} seeds"
    figures, protocol = metrics if "psnr" in metrics else None, metrics.get("protocol") or ""
    files: tuple[tuple[str, str, page.Role, Any], ...] = (
        (problem.WORDS[task].result, label, "result", figures),
        ("spread", f"seed spread, white {metrics['spread_white']:.3f}", "input", None),
    )
    scene = first.pictures[0].name
    own = [
        picture
        for file, title, role, shown_figures in files
        for picture in shown.picture(
            folder / f"{file}.png", scene, title, role, shown_figures, protocol
        )
    ]
    pictures = [*own, *first.pictures]
    return dataclasses.replace(first, results=metrics, pictures=pictures, curves=(), tables=())


def _of_images(
    folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float
) -> page.Run:
    read_it = _evaluation if "method" in record else _fits
    return read_it(folder, name, record, megabytes)


def _fits(folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float) -> page.Run:
    """The images of a folder that `experiments.dip` restored, one scene each."""
    rows, kept = record["images"], list[page.Run]()
    for row in rows:
        one = read(folder / _file_name(row["name"]), f"{name}, {row['name']}")
        if sum(len(p.png) for run in (*kept, one) for p in run.pictures) > megabytes * 1e6:
            break
        kept.append(one)
    tables = []
    if "mean" in record:
        (beside,) = (k for k, v in rows[0].items() if isinstance(v, dict))
        known = [row for row in (*rows, {"name": "mean"} | record["mean"]) if "psnr" in row]
        lines = [(row["name"], [*_figures(row, beside)]) for row in known]
        what = f"{name}: DIP, protocol {record['protocol']}: {record['protocol_description']}"
        columns = ("image", *_columns(problem.TITLES[beside]))
        tables = [page.Table(what, columns, lines[:-1], lines[-1])]
    settings = _read_json(folder / "config.json")
    results = {k: v for k, v in record.items() if k not in ("images", "mean")}
    pictures = [picture for run in kept for picture in run.pictures]
    curves = [curve for run in kept for curve in run.curves]
    note = _shown(len(kept), len(rows), megabytes)
    return page.Run(name, "experiments.dip", settings, results, pictures, curves, tables, note)


def _file_name(name: str) -> str:
    """The name, which leads nowhere else."""
    if name in ("", "..") or pathlib.PurePath(name).name != name:
        raise ValueError(f"the name {name!r} must be that of a file")
    return name


def _shown(kept: int, total: int, megabytes: float) -> str:
    """What to say where not all images are shown."""
    said = f"the first {kept} of {total} images are shown, within {megabytes:g} MB"
    return said if kept < total else ""


def _evaluation(
    folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float
) -> page.Run:
    method, protocol = record["method"], record["protocol"]
    label = _METHODS[method]
    pictures: list[page.Picture] = []
    curves: list[page.Curve] = []
    kept = 0
    for row in record["images"]:
        scene = _file_name(row["name"])
        files: tuple[tuple[str, str, page.Role, Any], ...] = (
            ("bicubic", "bicubic", "baseline", row["bicubic"]),
            ("images", label, "baseline" if method == "bicubic" else "result", row),
            ("hr", "ground truth", "truth", None),
        )
        found = [
            picture
            for place, made_by, role, figures in files
            for picture in shown.picture(
                folder / place / f"{scene}.png", scene, made_by, role, figures, protocol
            )
        ]
        if sum(len(p.png) for p in (*pictures, *found)) > megabytes * 1e6:
            break
        kept += 1
        pictures += found
        history = folder / "dip" / scene / "history.csv"
        if method == "dip" and history.exists():
            curves.append(shown.curve(history, f"{name}, {scene}", scene, shown.quantities(row)))
    own = ("protocol", "scale", "method", "settings", "checkpoint")
    results = {k: v for k, v in record.items() if k not in (*own, "images", "mean")}
    beside = "bicubic" if method != "bicubic" else None
    table = page.Table(
        f"{name}: {label} {record['scale']}×, protocol {protocol}: "
        f"{record['protocol_description']}",
        ("image", *_columns(beside)),
        [(row["name"], [*_figures(row, beside)]) for row in record["images"]],
        ("mean", [*_figures(record["mean"], beside)]),
    )
    return page.Run(
        name,
        "experiments.evaluate",
        {setting: record[setting] for setting in own},
        results,
        pictures,
        curves,
        [table],
        _shown(kept, len(record["images"]), megabytes),
    )


def _columns(beside: str | None) -> tuple[str, ...]:
    own = ("PSNR", "SSIM")
    return (*own, *(f"{beside} {name}" for name in own), "gain") if beside else own


def _figures(figures: dict[str, Any], beside: str | None) -> Iterator[float]:
    """PSNR and SSIM; beside a baseline's also those, and the gain."""
    yield from (float(figures["psnr"]), float(figures["ssim"]))
    if beside:
        other = figures[beside]
        yield from (float(other["psnr"]), float(other["ssim"]))
        yield float(figures["psnr"]) - float(other["psnr"])
