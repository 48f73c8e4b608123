"""The folder of one fit: what is written when, and how a stopped run is taken up again."""

import contextlib
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments.bar import Bar
from experiments.problem import TITLES, Problem
from experiments.record import as_config, asked_for, claim, prepare, read_metrics, whole
from jaxsr import dip, images, operators, reports
from jaxsr.checkpoints import Checkpoints
from jaxsr.files import atomic

# Settings that may differ when a run is taken up again: the image is known by its pixels instead,
# `remat` changes no value, and a device is lost or found.
_FREE = ("out", "hr", "lr", "mask", "blur_kernel", "name", "remat", "device")
RECORDS = ("metrics.json", "report.html", "history.csv", "comparison.png", "psnr.png")
APART = 10.0  # seconds of iterations between checkpoints at least: each costs half a second


def pauses(iterations: int, every: int, snapshots: tuple[int, ...]) -> list[int]:
    """The iterations after which something is kept."""
    return sorted(
        {*range(every, iterations + 1, every), *(s for s in snapshots if s <= iterations)}
    )


class RunFolder:
    """The output folder of `experiments.dip`; a context manager.

    Opening it refuses a folder of other settings, and writes what is known before the fit.

    Raises:
      InputError: the folder holds something else, or cannot be written.
    """

    def __init__(self, path: pathlib.Path, settings: Any, problem: Problem) -> None:
        self.path, self.problem = path, problem
        config = as_config(settings) | {"name": problem.name, "input_sha256": problem.digest}
        self._seed, self._asked = config["seed"], config["iterations"]
        self._detects, self._averages = bool(config["patience"]), bool(config["average"])
        defaults, parts = as_config(type(settings)()), ("snapshots",)
        prepare(path, config, free=_FREE, grows="iterations", parts=parts, absent=defaults)
        with contextlib.ExitStack() as closing:
            checkpoints = Checkpoints(path / "checkpoints", alone=True)
            self._checkpoints = closing.enter_context(checkpoints)
            claim(path, config)
            known = {problem.words.observed: problem.observed, "hr": problem.hr}
            for name, pixels in known.items():
                if pixels is not None and not (path / f"{name}.png").exists():
                    images.write(path / f"{name}.png", pixels)
            if not (path / f"{problem.baseline_name}.png").exists():  # it is computed when asked
                images.write(path / f"{problem.baseline_name}.png", problem.baseline)
            closing.pop_all()
        self._seconds = self._saved = 0.0  # that the iterations took, over all calls; when saved
        self._rollbacks: int | None = 0  # in the calls before this one; None where unknown

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.close()

    def finished(self, iterations: int) -> bool:
        """Whether a report of so many iterations is there."""
        return asked_for(read_metrics(self.path)) == iterations

    def restore(self, start: Callable[[], dip.State]) -> tuple[dip.State, dip.History] | None:
        """The latest checkpoint's state and history; None where there is none."""
        step = self._checkpoints.latest_step()
        if step is None:
            return None
        history = {name: np.zeros(step, np.float32) for name in self._columns()}
        like = {"state": jax.eval_shape(start), "history": history}
        tree = self._checkpoints.restore(like)
        before = self._spent().get(str(step), {})
        self._seconds = self._saved = before.get("seconds", math.nan)
        self._rollbacks = before.get("rollbacks")
        print(f"resuming {self.path} from iteration {step}")
        return tree["state"], tree["history"]

    def _columns(self) -> tuple[str, ...]:
        scores = ("psnr", "psnr_y", "psnr_output", "psnr_y_output")
        known = scores if self.problem.hr is not None else ()
        return ("loss", "psnr_fit", *known, *(("variance",) if self._detects else ()))

    @contextlib.contextmanager
    def progress(self, iterations: int) -> Iterator[Bar]:
        """A bar of so many iterations on the terminal."""
        done = self._checkpoints.latest_step() or 0
        label = f"{self.problem.name}, seed {self._seed}"
        with tqdm.tqdm(
            total=iterations, initial=done, desc=label, unit="it", dynamic_ncols=True
        ) as bar:
            yield Bar(bar)

    def keep(self, progress: dip.Progress, every: int, snapshots: tuple[int, ...]) -> None:
        """A checkpoint every `every` iterations, APART; the image after those of `snapshots`."""
        step = int(progress.state.step)
        self._seconds += progress.seconds
        if step in snapshots:
            self._write(f"snapshots/{step:06d}.png", progress.state.average)
        if step % every == 0 and not self._seconds - self._saved < APART:  # also if unknown: NaN
            self._save(progress)

    def _save(self, progress: dip.Progress | dip.DIPResult) -> None:
        self._saved, step = self._seconds, int(progress.state.step)
        # Before the checkpoint: a kill between the two leaves an entry that nothing reads.
        entry = {"seconds": self._seconds, "rollbacks": self._all_rollbacks(progress)}
        reports.write_json(self.path / "spent.json", self._spent() | {str(step): entry})
        self._checkpoints.save(step, {"state": progress.state, "history": progress.history})

    def _spent(self) -> dict[str, dict[str, Any]]:
        """What was spent up to each checkpoint, by its step; unknown where the file is damaged."""
        try:
            spent = json.loads((self.path / "spent.json").read_text(encoding="utf-8"))
            return {
                step: {"seconds": float(entry["seconds"]), "rollbacks": entry["rollbacks"]}
                for step, entry in spent.items()
            }
        except (OSError, ValueError, AttributeError, KeyError, TypeError, OverflowError):
            return {}

    def _all_rollbacks(self, progress: dip.Progress | dip.DIPResult) -> int | None:
        return None if self._rollbacks is None else self._rollbacks + progress.rollbacks

    def _write(self, name: str, image: jax.Array) -> None:
        images.write(self.path / name, self._pixels(image), alpha=self.problem.alpha)

    def _pixels(self, image: jax.Array) -> np.ndarray:
        """The result's part of the network's canvas, (H, W, C)."""
        return np.asarray(operators.crop(*self.problem.size)(image))[0]

    def write_images(self, result: dip.DIPResult) -> None:
        """Of a fit that ended, or was stopped, the images, then (if it fits) the checkpoint.

        The records of a shorter fit go before they would be beside other images.
        """
        if int(result.state.step):
            for record in RECORDS:
                (self.path / record).unlink(missing_ok=True)
            stem = self.problem.words.result
            for name, image in ((stem, result.image), (f"{stem}_last", result.last)):
                if np.isfinite(image).all():  # huge weights may be finite where the image is not
                    self._write(f"{name}.png", image)
            with atomic(self.path / f"{stem}.npy") as temporary:
                np.save(temporary, self._pixels(result.image))
            self._save(result)

    def write_report(self, result: dip.DIPResult, environment: dict[str, Any]) -> None:
        """History, curves, comparison and, last, the metrics: they mark the run as finished."""
        from jaxsr import figures, plots  # here: no fit's start waits for matplotlib

        problem = self.problem
        history = {name: result.history[name] for name in self._columns()}
        reports.write_csv(self.path / "history.csv", history)
        image = self._pixels(result.image)
        title = TITLES[problem.baseline_name]
        shown = {problem.words.title: problem.observed, title: problem.baseline, "DIP": image}
        scored: dict[str, Any] = {}
        captions, baseline = dict[str, str](), dict[str, float]()
        truth, reference = problem.hr, problem.reference()
        if truth is not None and reference is not None:
            shown["ground truth"] = truth
            last = self._pixels(result.last)
            candidates = {"DIP": image, problem.baseline_name: problem.baseline}
            if np.isfinite(last).all():  # huge weights may be finite where the image is not
                candidates["last"] = last
            scores: dict[str, Any] = {
                name: problem.protocol.score(candidate, truth, problem.factor)
                for name, candidate in candidates.items()
            }
            beside = scores[problem.baseline_name]
            scored = {**scores.pop("DIP"), "baseline": problem.baseline_name, **scores}
            captions = {title: _caption(beside), "DIP": _caption(scored)}
            level = problem.score(jnp.asarray(problem.baseline)[None], reference)["psnr"]
            baseline = {title: float(level)}
        # A closer look where the baseline has detail: noise, holes and the truth do not decide.
        closer = figures.most_detailed(problem.baseline)
        figures.comparison(self.path / "comparison.png", shown, captions, zoom=closer)
        columns = {"psnr": "running average", "psnr_output": "output"}
        if problem.hr is None:
            columns["psnr_fit"] = "fit to the observation"
        if not self._averages:
            del columns["psnr"]  # the average is the output
        plots.curves(
            self.path / "psnr.png",
            {problem.name: history},
            columns=columns,
            ylabel="PSNR (dB)",
            baseline=baseline,
        )
        record = {
            "protocol": problem.protocol.name if problem.hr is not None else None,
            "protocol_description": problem.description if problem.hr is not None else None,
            **scored,
            "iterations": len(history["loss"]),
            "iterations_asked": self._asked,
            "rollbacks": self._all_rollbacks(result),
            **self._stopping(result),
            "iterations_per_second": result.iterations / result.seconds if result.seconds else None,
            "compile_seconds": result.compile_seconds,
            "seconds": self._seconds,
            **environment,
            "seed": self._seed,
        }
        reports.write_json(self.path / "metrics.json", record)

    def _stopping(self, result: dip.DIPResult) -> dict[str, Any]:
        """Where the least variance was found; beside it the last image, and the best, had we known.

        The PSNR of `at_the_end` and of the oracle are as in history.csv: of unrounded images.
        """
        if result.state.detection is None:
            return {}
        found: dict[str, Any] = {"stopped_at": int(result.state.detection.iteration)}
        for name in ("psnr", "psnr_y"):
            if name in result.history:
                column = result.history[name]
                found[f"{name}_at_the_stop"] = float(column[found["stopped_at"] - 1])
                found[f"{name}_at_the_end"] = float(column[-1])
                found[f"{name}_at_the_peak_oracle"] = float(column.max())
        return found

    def summary(self) -> str:
        """One line: the gain over the baseline, by which protocol, and where the files are."""
        metrics, name = read_metrics(self.path), self.problem.baseline_name
        with whole(self.path):
            where = f"{metrics['iterations']} iterations, files in {self.path}"
            if name not in metrics:
                return where
            psnr, base = float(metrics["psnr"]), float(metrics[name]["psnr"])
            return (
                f"PSNR {psnr:.2f} dB, {psnr - base:+.2f} over {TITLES[name]}'s {base:.2f} "
                f"({metrics['protocol']}: {metrics['protocol_description']}); {where}"
            )


def _caption(figures: dict[str, Any]) -> str:
    return f"{figures['psnr']:.2f} dB, SSIM {figures['ssim']:.4f}"
