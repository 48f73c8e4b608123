"""What a ledger keeps of a finished fit of `experiments.dip`, so that its folder may go."""

import csv
import pathlib
from typing import Any

from experiments.record import read_metrics
from jaxsr.errors import InputError

EVERY = 10
DIGITS = 6


def record(folder: pathlib.Path) -> dict[str, Any]:
    """Of a run's folder `seconds`, `device`, `versions` and `history`, see `experiments.ledger`.

    Raises:
      InputError: its metrics or its history are missing or damaged.
    """
    metrics = read_metrics(folder)
    path = folder / "history.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))[EVERY - 1 :: EVERY]
        names = [name for name in rows[0] if name != "iteration"] if rows else []
        history = {
            name: [float(f"{float(row[name]):.{DIGITS}g}") for row in rows] for name in names
        }
        return {
            "seconds": float(metrics.get("seconds", "nan")),  # of earlier versions: unknown
            "device": metrics["device"],
            "versions": metrics["versions"],
            "history": {"every": EVERY, **history},
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"`{folder}` holds a damaged fit ({error!r}): delete it to fit anew"
        ) from error


def _rounded(text: str) -> float:
    return float(f"{float(text):.{DIGITS}g}")
