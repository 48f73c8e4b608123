"""An image in a file, the history of a run and what cells cost, as `jaxsr.page` shows them."""

import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxsr import images, page, reports
from jaxsr.errors import InputError

LOSS = "loss (log)"
_QUANTITIES = {
    "psnr": "PSNR on all channels (dB)",
    "psnr_y": "PSNR on Y (dB)",
    "psnr_output": "PSNR of the output, all channels (dB)",
    "psnr_y_output": "PSNR of the output on Y (dB)",
    "psnr_fit": "fit to the observation (PSNR, dB)",
    "variance": "variance of the outputs",
    "loss": LOSS,
}


def picture(
    path: pathlib.Path,
    scene: str,
    label: str,
    role: page.Role,
    figures: Mapping[str, Any] | None,
    protocol: str,
) -> Iterator[page.Picture]:
    """The image in a file, if there is one; its figures are those recorded of it, if any.

    Raises:
      InputError: it is no PNG file, or damaged.
    """
    if not path.exists():
        return
    height, width = images.read(path).pixels.shape[:2]
    png = path.read_bytes()
    if not png.startswith(b"\x89PNG"):
        raise InputError(f"`{path}` must be a PNG file")
    psnr, ssim = (float(figures[k]) if figures else None for k in ("psnr", "ssim"))
    yield page.Picture(scene, label, role, (width, height), png, psnr, ssim, f"protocol {protocol}")


def quantities(figures: Mapping[str, Any]) -> dict[str, str]:
    """Columns of a fit's history by name: first that of the protocol, where it is on Y."""
    on_y = "psnr" in figures and figures["psnr"] == figures.get("psnr_y")
    first = "psnr_y" if on_y else "psnr"
    return dict(sorted(_QUANTITIES.items(), key=lambda item: item[0] != first))


def levels(title: str, figures: Mapping[str, Any], protocol: str) -> dict[str, dict[str, float]]:
    """PSNR of a baseline beside the curves of a fit 4x, as `page.Curve` has them.

    Under protocols that score what the curves do (on all channels, or on Y, shaved by 4).
    """
    column = {"plain": "psnr", "paper-dip": "psnr", "standard": "psnr_y", "dip": "psnr_y"}
    name, value = column.get(protocol), float(figures["psnr"])
    if name is None or not math.isfinite(value):
        return {}
    return {_QUANTITIES[name + what]: {title: value} for what in ("", "_output")}


def curve(path: pathlib.Path, name: str, scene: str, titles: Mapping[str, str]) -> page.Curve:
    """What a history, as CSV, holds of the columns that have titles.

    Raises:
      InputError: the file is missing or damaged.
    """
    columns = reports.read_csv(path)
    shown = {title: finite(columns[key]) for key, title in titles.items() if key in columns}
    return page.Curve(name, scene, next(iter(columns)), shown)


def thinned(record: Mapping[str, Any], name: str, scene: str) -> page.Curve:
    """The history in a record of a ledger: its first value is that after `every` iterations."""
    history, titles = record["history"], quantities(record)
    columns = {title: finite(history[key]) for key, title in titles.items() if key in history}
    every = int(history["every"])
    if every < 1:
        raise ValueError(f"`every` (={every}) must be at least 1")
    return page.Curve(name, scene, "iteration", columns, every)


def cost(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many cells of a ledger, how long they took altogether, and on what."""
    return {
        "cells": len(records),
        "seconds": sum(record["seconds"] for record in records),
        "device": distinct(record.get("device", {}).get("kind") for record in records),
        "jax": distinct(record.get("versions", {}).get("jax") for record in records),
    }


def distinct(values: Iterable[Any]) -> str:
    """The values as text, each once."""
    return ", ".join(dict.fromkeys(map(str, values)))


def finite(column: Iterable[Any]) -> list[float | None]:
    """As numbers, None for infinities and NaN."""
    return [x if math.isfinite(x) else None for x in map(float, column)]


def file_name(name: str) -> str:
    """The name, which leads nowhere else."""
    if name in ("", "..") or pathlib.PurePath(name).name != name:
        raise ValueError(f"the name {name!r} must be that of a file")
    return name


def partly(kept: int, total: int, megabytes: float) -> str:
    """What to say where not all images are shown."""
    said = f"the first {kept} of {total} images are shown, within {megabytes:g} MB"
    return said if kept < total else ""
