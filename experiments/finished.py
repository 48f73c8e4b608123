"""What a finished run left in its folder, as `jaxsr.page` shows it."""

import csv
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxsr import images, page
from jaxsr.errors import InputError

MEGABYTES = 32.0
_METHODS = {"bicubic": "bicubic", "lapsrn": "LapSRN", "dip": "DIP"}
_COLUMNS = ("PSNR", "SSIM", "bicubic PSNR", "bicubic SSIM", "gain")
_LOSS = "loss (log)"
_QUANTITIES = {
    "psnr": "PSNR on all channels (dB)",
    "psnr_y": "PSNR on Y (dB)",
    "psnr_output": "PSNR of the output, all channels (dB)",
    "psnr_y_output": "PSNR of the output on Y (dB)",
    "psnr_fit": "fit to the low resolution (PSNR, dB)",
    "loss": _LOSS,
}
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def read(folder: pathlib.Path, name: str, *, megabytes: float = MEGABYTES) -> page.Run:
    """The run in a folder; of an evaluation's images so many megabytes.

    Raises:
      InputError: there is no finished run, or its records are damaged.
    """
    if not folder.is_dir():
        raise InputError(f"`RUN` (={folder}) must be a folder that is there")
    kinds = ("scores.json", _evaluation), ("metrics.json", _training_or_fit)
    record = next((kind for kind in kinds if (folder / kind[0]).exists()), None)
    if record is None:
        if any((folder / trace).exists() for trace in ("config.json", "images")):
            raise _unfinished(folder)
        commands = "experiments.dip, .evaluate, .lapsrn or .table1"
        raise InputError(f"`RUN` (={folder}) must be a folder that {commands} left: it is not")
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


def _unfinished(folder: pathlib.Path) -> InputError:
    return InputError(f"`RUN` (={folder}) must be finished: give its own command again")


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
    config = _read_json(folder / "config.json")
    length = "epochs" if "epochs" in metrics else "iterations"
    if metrics[length] != config[length]:
        raise _unfinished(folder)
    results = {k: v for k, v in metrics.items() if k not in ("settings", length)}
    scene = "" if length == "epochs" else config["name"]
    history = folder / "history.csv"
    if length == "epochs":
        quantities = {"psnr": "PSNR on the test images (dB)", "loss": _LOSS}
        curves = [_curve(history, name, scene, quantities)]
        return page.Run(name, "experiments.lapsrn", config, results, (), curves)
    curves = [_curve(history, name, scene, _quantities(metrics))]
    protocol, figures, tables = metrics["protocol"] or "", {}, []
    if "psnr" in metrics:
        figures = {"DIP": metrics, "DIP, last output": metrics["last"]}
        figures["bicubic"] = metrics["bicubic"]
        made = f"DIP {config['factor']}×, protocol {protocol}: {metrics['protocol_description']}"
        tables = [page.Table(made, ("run", *_COLUMNS), [(name, [*_figures(metrics, True)])])]
    files: tuple[tuple[str, str, page.Role], ...] = (
        ("lr", "low resolution", "input"),
        ("bicubic", "bicubic", "baseline"),
        ("sr", "DIP", "result"),
        ("sr_last", "DIP, last output", "result"),
        ("hr", "ground truth", "truth"),
    )
    pictures = [
        picture
        for file, label, role in files
        for picture in _picture(
            folder / f"{file}.png", scene, label, role, figures.get(label), protocol
        )
    ]
    size = next((p.size for p in pictures if p.role != "input"), None)
    # The low resolution is shown as large as the rest.
    pictures = [dataclasses.replace(p, size=size or p.size) for p in pictures]
    return page.Run(name, "experiments.dip", config, results, pictures, curves, tables)


def _evaluation(
    folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float
) -> page.Run:
    method, protocol = record["method"], record["protocol"]
    label = _METHODS[method]
    pictures: list[page.Picture] = []
    curves: list[page.Curve] = []
    shown = 0
    for row in record["images"]:
        scene = row["name"]
        if pathlib.PurePath(scene).name != scene:
            raise ValueError(f"the name {scene!r} must be that of a file")
        files: tuple[tuple[str, str, page.Role, Any], ...] = (
            ("bicubic", "bicubic", "baseline", row["bicubic"]),
            ("images", label, "baseline" if method == "bicubic" else "result", row),
            ("hr", "ground truth", "truth", None),
        )
        found = [
            picture
            for place, made_by, role, figures in files
            for picture in _picture(
                folder / place / f"{scene}.png", scene, made_by, role, figures, protocol
            )
        ]
        if sum(len(p.png) for p in (*pictures, *found)) > megabytes * 1e6:
            break
        shown += 1
        pictures += found
        history = folder / "dip" / scene / "history.csv"
        if method == "dip" and history.exists():
            curves.append(_curve(history, f"{name}, {scene}", scene, _quantities(row)))
    own = ("protocol", "scale", "method", "settings", "checkpoint")
    results = {k: v for k, v in record.items() if k not in (*own, "images", "mean")}
    total = len(record["images"])
    note = f"the first {shown} of {total} images are shown, within {megabytes:g} MB"
    beside = method != "bicubic"
    table = page.Table(
        f"{name}: {label} {record['scale']}×, protocol {protocol}: "
        f"{record['protocol_description']}",
        ("image", *(_COLUMNS if beside else _COLUMNS[:2])),
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
        note if shown < total else "",
    )


def _figures(figures: dict[str, Any], beside: bool) -> Iterator[float]:
    """PSNR and SSIM; beside bicubic's also those, and the gain."""
    yield from (float(figures["psnr"]), float(figures["ssim"]))
    if beside:
        other = figures["bicubic"]
        yield from (float(other["psnr"]), float(other["ssim"]))
        yield float(figures["psnr"]) - float(other["psnr"])


def _picture(
    path: pathlib.Path,
    scene: str,
    label: str,
    role: page.Role,
    figures: dict[str, Any] | None,
    protocol: str,
) -> Iterator[page.Picture]:
    """The image in a file, if there is one."""
    if not path.exists():
        return
    height, width = images.read(path).pixels.shape[:2]
    png = path.read_bytes()
    if not png.startswith(b"\x89PNG"):
        raise InputError(f"`{path}` must be a PNG file")
    psnr, ssim = (float(figures[k]) if figures else None for k in ("psnr", "ssim"))
    yield page.Picture(scene, label, role, (width, height), png, psnr, ssim, f"protocol {protocol}")


def _quantities(figures: dict[str, Any]) -> dict[str, str]:
    """Columns of a fit's history by name: first that of the protocol, where it is on Y."""
    on_y = "psnr" in figures and figures["psnr"] == figures.get("psnr_y")
    first = "psnr_y" if on_y else "psnr"
    return dict(sorted(_QUANTITIES.items(), key=lambda item: item[0] != first))


def _curve(path: pathlib.Path, name: str, scene: str, quantities: dict[str, str]) -> page.Curve:
    """What a history holds of some quantities."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            (count, *names), *rows = csv.reader(file)
        columns = list(zip(*[map(float, row) for row in rows], strict=True))[1:]
        finite = [[x if math.isfinite(x) else None for x in column] for column in columns]
        history = dict(zip(names, finite, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"`{path}` is damaged ({error}): it must be as a run wrote it") from error
    shown = {title: history[key] for key, title in quantities.items() if key in history}
    return page.Curve(name, scene, count, shown)
