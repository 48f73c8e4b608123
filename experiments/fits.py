"""What a ledger keeps of a finished fit of `experiments.dip`, so that its folder may go."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.record import read_metrics, whole
from jaxsr import reports
from jaxsr.errors import InputError

EVERY = 10
DIGITS = 6


def kept(folder: pathlib.Path) -> dict[str, Any]:
    """Of a run: `rollbacks` and `history`, see `experiments.ledger`.

    Raises:
      InputError: a file is missing or damaged.
    """
    try:
        columns = reports.read_csv(folder / "history.csv")
    except InputError as error:
        raise InputError(f"{error}; delete its folder to fit anew") from error
    columns.pop("iteration", None)
    return {"rollbacks": read_metrics(folder).get("rollbacks"), "history": thinned(columns)}


def thinned(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A history, thinned and rounded: `history` in `experiments.ledger`."""
    kept = {
        name: [_rounded(x) for x in values[EVERY - 1 :: EVERY]] for name, values in columns.items()
    }
    return {"every": EVERY, **kept}


def _rounded(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def environment(folders: Iterable[pathlib.Path]) -> dict[str, Any]:
    """On what and by what finished fits were computed; where they differ, a list of what there was.

    None among these is what a fit does not tell.

    Raises:
      InputError: the metrics of one are damaged.
    """
    found: dict[str, list[Any]] = {
        name: [] for name in ("precision", "device", "versions", "commit")
    }
    for folder in folders:
        metrics = read_metrics(folder)
        for name, values in found.items():
            if metrics.get(name) not in values:
                values.append(metrics.get(name))
    return {n: x if len(x) > 1 else x[0] for n, x in found.items() if x not in ([], [None])}


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
        made_by = {name: metrics[name] for name in ("device", "versions")}
        made_by |= {name: metrics[name] for name in ("commit",) if name in metrics}
        return float(metrics["seconds"]), made_by
