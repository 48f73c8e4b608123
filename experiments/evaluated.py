"""What `experiments.evaluate` left of a folder of images, as `jaxsr.page` shows it."""

import pathlib
from typing import Any

from experiments import scores, shown
from jaxsr import page


def read(folder: pathlib.Path, name: str, record: dict[str, Any], megabytes: float) -> page.Run:
    """The evaluation in a folder, whose scores.json is `record`; of its images so many megabytes.

    Raises:
      InputError, or what a damaged record gives: KeyError, TypeError, ValueError.
    """
    method, protocol = record["method"], record["protocol"]
    label = _label(method, record["settings"])
    pictures: list[page.Picture] = []
    curves: list[page.Curve] = []
    kept = 0
    for row in record["images"]:
        scene = shown.file_name(row["name"])
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
    beside = "" if method == "bicubic" else "bicubic"
    table = page.Table(
        f"{name}: {label} {record['scale']}×, protocol {protocol}: "
        f"{record['protocol_description']}",
        ("image", *scores.columns(beside)),
        [(row["name"], scores.figures(row, beside)) for row in record["images"]],
        ("mean", scores.figures(record["mean"], beside)),
    )
    return page.Run(
        name,
        "experiments.evaluate",
        {setting: record[setting] for setting in own},
        results,
        pictures,
        curves,
        [table],
        shown.partly(kept, len(record["images"]), megabytes),
    )


def _label(method: str, settings: Any) -> str:
    """What made the images: of a trained network its own name."""
    if method == "lapsrn":
        ensemble = ", self-ensemble" if settings.get("self_ensemble") else ""
        return f"{settings.get('network', 'LapSRN')}{ensemble}"
    return {"bicubic": "bicubic", "dip": "DIP", "restored": "restored"}[method]
