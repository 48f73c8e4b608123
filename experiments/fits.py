"""What a ledger keeps of a finished fit of `experiments.dip`, so that its folder may go."""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.record import read_metrics, whole
from jaxsr.errors import InputError

EVERY = 10
DIGITS = 6


def history(folder: pathlib.Path) -> dict[str, Any]:
    """The columns of a run's history, thinned and rounded: `history` in `experiments.ledger`.

    Raises:
      InputError: the file is missing or damaged.
    """
    path = folder / "history.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            (_, *names), *lines = csv.reader(file)
        kept = [[_rounded(x) for x in values] for _, *values in lines[EVERY - 1 :: EVERY]]
        columns = zip(*kept, strict=True) if kept else [()] * len(names)
        return {"every": EVERY, **dict(zip(names, map(list, columns), strict=True))}
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"`{path}` is damaged ({error}): delete its folder to fit anew") from error


def kept(folder: pathlib.Path) -> dict[str, Any]:
    """Of a run: `rollbacks` and `history`, see `experiments.ledger`.

    Raises:
      InputError: a file is missing or damaged.
    """
    return {"rollbacks": read_metrics(folder).get("rollbacks"), "history": history(folder)}


def thinned(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a history at hand, of arrays."""
    kept = {
        name: [_rounded(x) for x in values[EVERY - 1 :: EVERY]] for name, values in columns.items()
    }
    return {"every": EVERY, **kept}


def _rounded(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def cost(folder: pathlib.Path) -> tuple[float, dict[str, Any]]:
    """The seconds of a run, see `experiments.ledger`, and on what and by what it computed.

    Raises:
      InputError: its metrics are damaged.
    """
    metrics = read_metrics(folder)
    with whole(folder):
        if "seconds" not in metrics:
            # Of a version that kept no total: exact where the fit was never resumed.
            metrics["seconds"] = metrics["iterations"] / metrics["iterations_per_second"]
        environment = {name: metrics[name] for name in ("device", "versions")}
        environment |= {name: metrics[name] for name in ("commit",) if name in metrics}
        return float(metrics["seconds"]), environment
