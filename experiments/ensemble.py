"""Several fits of one image, by seed: their mean, and how far they lie apart; a table of images.

The deviation over seeds is that of the method's own randomness. It is no uncertainty of the result:
what all seeds get wrong alike does not show in it.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import finished, pages, problem, scores
from experiments.fits import environment
from experiments.record import asked_for, read_metrics, whole
from experiments.several import Fit
from jaxsr import files, images, reports
from jaxsr.errors import InputError


def combine(fits: Sequence[Fit], one: Fit) -> None:
    """What the seeds of an image have in common, once all of them are finished.

    Leaves the mean of their results (as image and as numbers), `spread.png` (per pixel the
    deviation over seeds, the mean of the channels; white is `spread_white`), `metrics.json` and
    `report.html` in the image's folder. Where they are there already, nothing is done.

    Args:
      fits: all that are wanted.
      one: the fit that was finished last; of its image the fits are looked at.

    Raises:
      InputError: a result is damaged, or a file cannot be written.
    """
    seeds = [fit for fit in fits if fit.folder == one.folder]
    folders = [_folder(fit) for fit in seeds]
    if len(seeds) == 1 or not all(map(_is_finished, seeds)):
        return
    lock = files.lock(one.folder, wait=True)  # seeds may end together, in any thread or process
    try:
        _combine(seeds, folders, one)
    finally:
        os.close(lock)


def _combine(seeds: Sequence[Fit], folders: Sequence[pathlib.Path], one: Fit) -> None:
    if _record(seeds) and _is_newer(one.folder / pages.NAME, folders):
        return
    task = problem.load(one.settings)
    stem = task.words.result
    for stale in ("metrics.json", pages.NAME):  # of fewer seeds: they would be beside other images
        (one.folder / stale).unlink(missing_ok=True)
    results = np.stack([_read(folder / f"{stem}.npy") for folder in folders])
    mean, spread = results.mean(0), results.std(0, ddof=1)
    white = float(spread.mean(-1).max())
    images.write(one.folder / f"{stem}.png", mean, alpha=task.alpha)
    with files.atomic(one.folder / f"{stem}.npy") as temporary:
        np.save(temporary, mean)
    images.write(one.folder / "spread.png", spread.mean(-1, keepdims=True) / (white or 1.0))
    record: dict[str, Any] = {"seeds": [seed.settings.seed for seed in seeds]}
    record["iterations_asked"] = one.settings.iterations
    scored = ("psnr", "ssim", task.baseline_name) if task.hr is not None else ()
    needed = ("precision", "device", "versions", *scored)
    each = [_of_one(folder, needed) for folder in folders]
    record |= environment(folders)
    if task.hr is not None:
        record |= task.protocol.score(mean, task.hr, task.factor)
        record |= {"baseline": task.baseline_name, task.baseline_name: each[0][task.baseline_name]}
        record |= {"protocol": task.protocol.name, "protocol_description": task.description}
        for name in ("psnr", "ssim"):
            values = []
            for folder, metrics in zip(folders, each, strict=True):
                with whole(folder):
                    values.append(float(metrics[name]))
            record[f"{name}_of_one"] = {
                "mean": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)),
                "values": values,
            }
        gain = record["psnr"] - record["psnr_of_one"]["mean"]
        print(
            f"{task.name}: mean of {len(seeds)} seeds {record['psnr']:.2f} dB, {gain:+.2f} over "
            f"one's {record['psnr_of_one']['mean']:.2f} (deviation "
            f"{record['psnr_of_one']['deviation']:.2f}; {task.protocol.name}: {task.description})"
        )
    record |= {"spread_rms": float(np.sqrt(np.mean(spread**2))), "spread_white": white}
    reports.write_json(one.folder / "metrics.json", record)
    pages.write([finished.read(one.folder, one.folder.name)], one.folder / pages.NAME)


def _is_newer(page: pathlib.Path, folders: Sequence[pathlib.Path]) -> bool:
    """Whether a page, which is written last, is there, and of these very results."""
    made = [(folder / "metrics.json").stat().st_mtime_ns for folder in folders]
    return page.exists() and page.stat().st_mtime_ns >= max(made)


def _of_one(folder: pathlib.Path, needed: Sequence[str]) -> dict[str, Any]:
    metrics = read_metrics(folder)
    with whole(folder):
        return metrics | {name: metrics[name] for name in needed}


def _folder(fit: Fit) -> pathlib.Path:
    assert fit.settings.out is not None
    return fit.settings.out


def _is_finished(fit: Fit) -> bool:
    """By its record: another process may be at it."""
    return asked_for(read_metrics(_folder(fit))) == fit.settings.iterations


def _record(seeds: Sequence[Fit]) -> dict[str, Any]:
    """Of an image whose fits these are: its metrics; empty while they are not of all these fits."""
    record = read_metrics(seeds[0].folder)
    if len(seeds) > 1 and record.get("seeds") != [fit.settings.seed for fit in seeds]:
        return {}
    of_this_length = asked_for(record) == seeds[0].settings.iterations
    if not of_this_length or not all(map(_is_finished, seeds)):
        return {}
    with whole(seeds[0].folder):
        if "psnr" in record:
            _figures(record)[record["baseline"]]  # must be there
    return record


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"`{path}` is damaged ({error}): delete its folder to fit anew") from error


def tabulate(fits: Sequence[Fit], out: pathlib.Path) -> None:
    """Of a folder of images `scores.json` and `report.html`; with truths a table, `scores.csv`.

    An image that is not finished yet, by whichever process, is missing there. Where none is, those
    of shorter fits go.

    Raises:
      InputError: a record is damaged, or a file cannot be written.
    """
    by_image: dict[pathlib.Path, list[Fit]] = {}
    for fit in fits:
        by_image.setdefault(fit.folder, []).append(fit)
    for folder, own in by_image.items():
        if len(own) > 1 and not _record(own):
            for stale in ("metrics.json", pages.NAME):  # of the mean of shorter or fewer fits
                (folder / stale).unlink(missing_ok=True)
    if [*by_image] == [out]:
        return
    found, written = _found(by_image), None
    while found and found != written:  # another process may have finished the last meanwhile
        rows = [(name, _figures(record)) for name, record in found.items() if "psnr" in record]
        first = next(iter(found.values()))
        record: dict[str, Any] = {
            "protocol": first.get("protocol"),
            "protocol_description": first.get("protocol_description"),
            "images": [{"name": name, **_figures(each)} for name, each in found.items()],
            "missing": sorted({folder.name for folder in by_image} - found.keys()),
            **environment(_folder(fit) for fit in fits if fit.folder.name in found),
        }
        if rows:
            record["mean"] = scores.mean([figures for _, figures in rows])
            scores.write_csv(out / "scores.csv", [*rows, ("mean", record["mean"])])
        reports.write_json(out / "scores.json", record)
        found, written = _found(by_image), found
    if found and rows:
        print(f"protocol {record['protocol']}: {record['protocol_description']}")
        print(scores.summary([*rows, ("mean", record["mean"])], beside=first["baseline"]))
    if found:
        pages.beside(finished.read, out)
        return
    for stale in ("scores.json", "scores.csv", pages.NAME):
        (out / stale).unlink(missing_ok=True)


def _found(by_image: Mapping[pathlib.Path, Sequence[Fit]]) -> dict[str, dict[str, Any]]:
    """The metrics of the finished images, by name."""
    records = {folder.name: _record(fits) for folder, fits in by_image.items()}
    return {name: record for name, record in records.items() if record}


def _figures(record: Mapping[str, Any]) -> scores.Figures:
    """PSNR and SSIM of an image whose truth is known, the baseline's last; infinities are text."""
    names = ("psnr", "ssim", "psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")
    figures: scores.Figures = {name: float(record[name]) for name in names if name in record}
    if "baseline" in record:
        beside = record["baseline"]
        figures[beside] = {name: float(value) for name, value in record[beside].items()}
    return figures
