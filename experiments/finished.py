"""What a finished run left in its folder, as `jaxsr.page` shows it."""

import dataclasses
import pathlib
from typing import Any

from experiments import evaluated, problem, scores, shown
from experiments.record import asked_for, read_metrics
from jaxsr import page, reports
from jaxsr.errors import InputError

MEGABYTES = 32.0
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
        commands = "experiments.dip, .evaluate, .lapsrn, .table1 or .robustness"
        raise InputError(f"`RUNS` (={folder}) must be a folder that {commands} left: it is not")
    file, reader = record
    try:
        return reader(folder, name, reports.read_json(folder / file), megabytes)
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


def _training_or_fit(
    folder: pathlib.Path, name: str, metrics: dict[str, Any], megabytes: float
) -> page.Run:
    read_it = _several if "seeds" in metrics else _training if "epochs" in metrics else _fit
    return read_it(folder, name, metrics)


def _training(folder: pathlib.Path, name: str, metrics: dict[str, Any]) -> page.Run:
    config = reports.read_json(folder / "config.json")
    if metrics["epochs"] != config["epochs"]:
        raise _unfinished(folder)
    results = {k: v for k, v in metrics.items() if k not in ("settings", "epochs")}
    quantities = {"psnr": "PSNR on the test images (dB)", "loss": shown.LOSS}
    curve = shown.curve(folder / "history.csv", name, "", quantities)
    return page.Run(name, "experiments.lapsrn", config, results, (), [curve])


def _fit(folder: pathlib.Path, name: str, metrics: dict[str, Any]) -> page.Run:
    config = reports.read_json(folder / "config.json")
    if asked_for(metrics) != config["iterations"]:
        raise _unfinished(folder)
    results = {k: v for k, v in metrics.items() if k != "settings"}
    task, beside = config.get("task", "sr"), metrics.get("baseline", "bicubic")
    words, protocol = problem.WORDS[task], metrics["protocol"] or ""
    figures, tables = {}, []
    curve = shown.curve(folder / "history.csv", name, config["name"], shown.quantities(metrics))
    if "psnr" in metrics:
        title = problem.TITLES[beside]
        figures = {"DIP": metrics, "DIP, last output": metrics.get("last"), title: metrics[beside]}
        what = f"{config['factor']}×" if task == "sr" else task
        made = f"DIP {what}, protocol {protocol}: {metrics['protocol_description']}"
        line = name, scores.figures(metrics, beside)
        tables = [page.Table(made, ("run", *scores.columns(title)), [line])]
        if config["factor"] in (4, None):  # of others Y is shaved otherwise
            curve = dataclasses.replace(
                curve, levels=shown.levels(title, metrics[beside], protocol)
            )
    files: list[tuple[str, str, page.Role]] = [
        (words.observed, words.title, "input"),
        *((stem, title, "baseline") for stem, title in problem.TITLES.items()),
        (words.result, "DIP", "result"),
        (f"{words.result}_last", "DIP, last output", "result"),
        ("hr", "ground truth", "truth"),
    ]
    pictures = [
        picture
        for file, label, role in files
        for picture in shown.picture(
            folder / f"{file}.png", config["name"], label, role, figures.get(label), protocol
        )
    ]
    size = next((p.size for p in pictures if p.role != "input"), None)
    # The low resolution is shown as large as the rest.
    pictures = [dataclasses.replace(p, size=size or p.size) for p in pictures]
    return page.Run(name, "experiments.dip", config, results, pictures, [curve], tables)


def _several(folder: pathlib.Path, name: str, metrics: dict[str, Any]) -> page.Run:
    """Several seeds of an image: their mean and spread, and each of them."""
    seeds = metrics["seeds"]
    each = [read(folder / f"seed{seed}", f"{name}, seed {seed}") for seed in seeds]
    lengths = [asked_for(read_metrics(folder / f"seed{seed}")) for seed in seeds]
    first = each[0]
    if {asked_for(metrics), *lengths} != {first.settings["iterations"]}:
        raise _unfinished(folder)
    task = first.settings.get("task", "sr")
    label = f"DIP, mean of {len(seeds)} seeds"
    figures, protocol = metrics if "psnr" in metrics else None, metrics.get("protocol") or ""
    files: tuple[tuple[str, str, page.Role, Any], ...] = (
        (problem.WORDS[task].result, label, "result", figures),
        ("spread", f"seed spread, white {metrics['spread_white']:.3f}", "input", None),
    )
    pictures = [
        picture
        for file, title, role, shown_figures in files
        for picture in shown.picture(
            folder / f"{file}.png", first.pictures[0].name, title, role, shown_figures, protocol
        )
    ]
    for seed, run in zip(seeds, each, strict=True):
        own = [p for p in run.pictures if p.label == "DIP"]
        pictures += [dataclasses.replace(p, label=f"DIP, seed {seed}") for p in own]
    pictures += [p for p in first.pictures if p.role != "result"]
    tables = []
    if figures:
        lines = [line for run in each for line in run.tables[0].rows]
        mean = f"{name}, mean image", scores.figures(metrics, metrics["baseline"])
        tables = [dataclasses.replace(first.tables[0], rows=[mean, *lines])]
    own_settings = {k: v for k, v in first.settings.items() if k not in ("seed", "out")}
    return page.Run(
        name,
        first.command,
        own_settings | {"seeds": seeds},
        metrics,
        pictures,
        [curve for run in each for curve in run.curves],
        tables,
    )


def _of_images(
    folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float
) -> page.Run:
    read_it = evaluated.read if "method" in record else _fits
    return read_it(folder, name, record, megabytes)


def _fits(folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float) -> page.Run:
    """The images of a folder that `experiments.dip` restored, one scene each."""
    rows, kept = record["images"], list[page.Run]()
    for row in rows:
        one = read(folder / shown.file_name(row["name"]), f"{name}, {row['name']}")
        if sum(len(p.png) for run in (*kept, one) for p in run.pictures) > megabytes * 1e6:
            break
        kept.append(one)
    tables = []
    if "mean" in record:
        (beside,) = (k for k, v in rows[0].items() if isinstance(v, dict))
        known = [row for row in (*rows, {"name": "mean"} | record["mean"]) if "psnr" in row]
        lines = [(row["name"], scores.figures(row, beside)) for row in known]
        what = f"{name}: DIP, protocol {record['protocol']}: {record['protocol_description']}"
        columns = ("image", *scores.columns(problem.TITLES[beside]))
        tables = [page.Table(what, columns, lines[:-1], lines[-1])]
    settings = reports.read_json(folder / "config.json")
    results = {k: v for k, v in record.items() if k not in ("images", "mean")}
    pictures = [picture for run in kept for picture in run.pictures]
    curves = [curve for run in kept for curve in run.curves]
    note = shown.partly(len(kept), len(rows), megabytes)
    return page.Run(name, "experiments.dip", settings, results, pictures, curves, tables, note)
