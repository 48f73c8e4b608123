"""Several fits of one image, by seed: their mean, and how far they lie apart; a table of images.

The deviation over seeds is that of the method's own randomness. It is no uncertainty of the result:
what all seeds get wrong alike does not show in it.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import finished, pages, problem, scores
from experiments.record import read_metrics
from experiments.several import Fit
from jaxsr import images, reports
from jaxsr.errors import InputError


def combine(fits: Sequence[Fit], one: Fit) -> None:
    """What the seeds of an image have in common, once all of them are finished.

    Leaves the mean of their results, `spread.png` (per pixel the deviation over seeds, the mean of
    the channels; white is `spread_white`), `metrics.json` and `report.html` in the image's folder.

    Args:
      fits: all that are wanted.
      one: the fit that was finished last; of its image the fits are looked at.

    Raises:
      InputError: a result is damaged, or a file cannot be written.
    """
    seeds = [fit for fit in fits if fit.folder == one.folder]
    folders = [seed.settings.out for seed in seeds if seed.settings.out is not None]
    if len(seeds) == 1 or not all(map(_is_finished, seeds)):
        return
    task = problem.load(one.settings)
    stem = task.words.result
    results = np.stack([_read(folder / f"{stem}.npy") for folder in folders])
    mean, spread = results.mean(0), results.std(0, ddof=1)
    white = float(spread.mean(-1).max())
    images.write(one.folder / f"{stem}.png", mean, alpha=task.alpha)
    images.write(one.folder / "spread.png", spread.mean(-1, keepdims=True) / (white or 1.0))
    record: dict[str, Any] = {"seeds": [seed.settings.seed for seed in seeds]}
    if task.hr is not None:
        each = [read_metrics(folder) for folder in folders]
        record |= task.protocol.score(mean, task.hr, task.factor)
        record |= {"baseline": task.baseline_name, task.baseline_name: each[0][task.baseline_name]}
        record |= {"protocol": task.protocol.name, "protocol_description": task.description}
        for name in ("psnr", "ssim"):
            values = [float(metrics[name]) for metrics in each]
            record[f"{name}_of_one"] = {
                "mean": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)),
                "values": values,
            }
        gain = record["psnr"] - record["psnr_of_one"]["mean"]
        print(
            f"{task.name}: mean of {len(seeds)} seeds {record['psnr']:.2f} dB, {gain:+.2f} over "
            f"one's {record['psnr_of_one']['mean']:.2f} "
            f"(deviation {record['psnr_of_one']['deviation']:.2f})"
        )
    record |= {"spread_rms": float(np.sqrt(np.mean(spread**2))), "spread_white": white}
    reports.write_json(one.folder / "metrics.json", record)
    runs = [finished.read(folder, folder.name) for folder in (one.folder, *folders)]
    pages.write(runs, one.folder / pages.NAME)


def _is_finished(fit: Fit) -> bool:
    """By its record: another process may be at it."""
    assert fit.settings.out is not None
    return read_metrics(fit.settings.out).get("iterations_asked") == fit.settings.iterations


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"`{path}` is damaged ({error}): delete its folder to fit anew") from error


def tabulate(fits: Sequence[Fit], out: pathlib.Path, environment: dict[str, Any]) -> None:
    """Of several images whose truth is known: a table, `scores.csv` and `scores.json`.

    An image that is not finished yet, by whichever process, is missing there.

    Raises:
      InputError: a record is damaged, or a file cannot be written.
    """
    folders = list(dict.fromkeys(fit.folder for fit in fits))
    if len(folders) == 1:
        return
    rows, written = _rows(folders), None
    while rows and rows != written:  # another process may have finished the last meanwhile
        mean = scores.mean([figures for _, figures in rows])
        scores.write_csv(out / "scores.csv", [*rows, ("mean", mean)])
        record = {
            "images": [{"name": name, **figures} for name, figures in rows],
            "missing": sorted({folder.name for folder in folders} - {name for name, _ in rows}),
            "mean": mean,
            **environment,
        }
        reports.write_json(out / "scores.json", record)
        rows, written = _rows(folders), rows
    if rows:
        baseline = list(rows[0][1])[-1]
        print(scores.summary([*rows, ("mean", mean)], beside=baseline))


def _rows(folders: Sequence[pathlib.Path]) -> list[tuple[str, scores.Figures]]:
    """Of the finished images with a known truth: their figures, the last of them the baseline's."""
    rows = []
    for folder in folders:
        record = read_metrics(folder)
        if "psnr" in record:
            names = ("psnr", "ssim", "psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y", record["baseline"])
            rows.append((folder.name, {name: record[name] for name in names if name in record}))
    return rows
