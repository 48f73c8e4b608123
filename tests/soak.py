"""`make soak`: a run over a folder is killed again and again; nothing may be lost or done twice.

    python -m tests.soak --kills 50 --seed 0

Three images by two seeds, each fit with a checkpoint every 20 iterations, by `tests.small_dip`. The
command is killed (SIGKILL), at its first checkpoint, then after random times, and given again,
until it ends by itself after the last of the kills. After each it must hold that a finished fit's
files are as they were, that no fit's latest checkpoint is an earlier one than before, and that no
file is half written; at the end, that all results equal, byte by byte, those of a run that nobody
disturbed.
"""

import argparse
import hashlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments import problem
from jaxsr import images

EVERY = 20
RESULTS = ("sr.png", "sr.npy", "sr_last.png", "history.csv", "lr.png", "hr.png")


def start(folder: pathlib.Path, out: str, iterations: int) -> subprocess.Popen[bytes]:
    """The command over the folder's images."""
    options = ("--hr", "in", "--out", out, "--seeds", "2", "--factor", "2", "--at-once", "2")
    length = ("--iterations", str(iterations), "--checkpoint-every", str(EVERY))
    root = pathlib.Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with open(folder / f"{out}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.small_dip", *options, *length],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def latest(fit: pathlib.Path) -> int:
    """The step of a fit's latest checkpoint; 0 where there is none."""
    steps = [int(path.name) for path in (fit / "checkpoints").glob("*") if path.name.isdigit()]
    return max(steps, default=0)


def begun(out: pathlib.Path) -> bool:
    """Whether a fit has a checkpoint."""
    return any(latest(fit) for fit in out.glob("*/seed*"))


def state(out: pathlib.Path) -> dict[str, tuple[int, dict[str, tuple[int, str]]]]:
    """Of every fit: its latest checkpoint, and, once it is finished, its files, by content.

    Raises:
      ValueError: a file is half written.
    """
    found = {}
    for config in sorted(out.glob("*/seed*/config.json")):
        fit = config.parent
        json.loads(config.read_text())
        for path in fit.glob("[!.]*.png"):  # a hidden one is what a kill left
            images.read(path)
        files = {}
        if (fit / "metrics.json").exists():
            json.loads((fit / "metrics.json").read_text())
            for name in (*RESULTS, "metrics.json"):
                content = hashlib.sha256((fit / name).read_bytes()).hexdigest()
                files[name] = ((fit / name).stat().st_mtime_ns, content)
        found[str(fit.relative_to(out))] = (latest(fit), files)
    return found


def soak(
    kills: int, seed: int, folder: pathlib.Path, *, names: str = "abc", iterations: int = 200
) -> dict[str, int]:
    """Counts of what was seen, over images of these names.

    Raises:
      AssertionError: something was lost, or done twice.
    """
    random = np.random.default_rng(seed)
    (folder / "in").mkdir()
    photograph = problem.photograph()
    for i, name in enumerate(names):
        images.write(folder / "in" / f"{name}.png", photograph[20 * i : 20 * i + 64, 8:72])
    began = time.monotonic()
    code = start(folder, "whole", iterations).wait()
    length = time.monotonic() - began
    assert code == 0, (folder / "whole.log").read_text()[-2000:]

    before: dict[str, tuple[int, dict[str, tuple[int, str]]]] = {}
    counts = {"kills": 0, "kills after a fit was finished": 0, "kills within a fit": 0}
    for i in itertools.count():
        process = start(folder, "killed", iterations)
        try:
            if counts["kills"] == 0:  # within a fit
                late: float | None = 0
                while process.poll() is None and not begun(folder / "killed"):
                    time.sleep(0.01)
            else:  # the last is left alone; the others die at any time of an undisturbed run
                late = None if counts["kills"] == kills else random.uniform(0, length)
            code = process.wait(late)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            counts["kills"] += 1
            code = None
        after = state(folder / "killed")
        for fit, (step, files) in before.items():
            assert after[fit][0] >= step, f"{fit} fell back from {step} to {after[fit][0]}"
            assert not files or after[fit][1] == files, f"{fit} was done twice"
        counts["kills after a fit was finished"] += code is None and any(
            f for _, f in after.values()
        )
        counts["kills within a fit"] += code is None and any(s and not f for s, f in after.values())
        before = after
        assert code in (0, None), (folder / "killed.log").read_text()[-2000:]
        if code == 0 and counts["kills"] >= kills:
            break
        if code == 0:  # all is finished: once more from the start
            (folder / "killed").rename(folder / f"finished{i}")
            compare(folder / f"finished{i}", folder / "whole")
            before = {}
    compare(folder / "killed", folder / "whole")
    return counts


def compare(found: pathlib.Path, expected: pathlib.Path) -> None:
    """All results of one run against those of another."""
    names = [path for name in RESULTS for path in expected.glob(f"*/seed*/{name}")]
    fits = len([*expected.glob("*/seed*")])
    assert len(names) == fits * len(RESULTS) > 0
    names += [*expected.glob("*/sr.png"), *expected.glob("*/spread.png")]
    names += expected.glob("scores.csv")
    for path in names:
        other = found / path.relative_to(expected)
        assert other.read_bytes() == path.read_bytes(), f"{other} differs"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for what, count in soak(options.kills, options.seed, pathlib.Path(temporary)).items():
            print(f"{count:4d} {what}")
    print("nothing was lost or done twice")
