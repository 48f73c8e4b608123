"""What changed between two records of the suite, beyond what each varied by itself."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

SPREADS = 3  # median absolute deviations: two standard deviations of a normal law


class Change(NamedTuple):
    """One figure of one row.

    ratio: new to old; below 1 is faster, or smaller.
    """

    name: str
    figure: str
    old: float
    new: float

    @property
    def ratio(self) -> float:
        """New to old."""
        return self.new / self.old


def rows(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The results of a record of the suite by part and name: several parts time the same thing."""
    return {
        f"{name}: {result['name']}": result
        for name, part in record["parts"].items()
        for result in part["results"]
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Every time and peak of memory that is in both and changed beyond the spread.

    Times changed if their medians are further apart than SPREADS times both spreads together,
    memory if by over 2 %, which it varies by from run to run.
    """
    before, found = rows(old), []
    for name, result in rows(new).items():
        if name not in before:
            continue
        for figure, spread in _figures(result):
            if not isinstance(before[name].get(figure), float | int):
                continue
            change = Change(name, figure, before[name][figure], result[figure])
            if figure == "peak_bytes":
                allowed = 0.02 * change.old
            else:
                allowed = SPREADS * (spread + before[name].get("ours_spread", 0))
            if abs(change.new - change.old) > allowed:
                found.append(change)
    return found


def _figures(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names of what is compared in a row, with the row's own spread."""
    if "unit" in result:
        yield f"ours_seconds_per_{result['unit']}", result["ours_spread"]
    if "peak_bytes" in result:
        yield "peak_bytes", 0.0


def elsewhere(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the machines and versions of two records, a line each."""
    before, now = _environment(old), _environment(new)
    named = [x for x in {**now, **before} if now.get(x) != before.get(x)]
    return [f"{x}: {before.get(x)} -> {now.get(x)}" for x in named]


def _environment(record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in record["parts"].values():
        for group in ("device", "versions"):
            values = part.get("environment", {}).get(group, {})
            found |= {f"{group} {name}": value for name, value in values.items()}
    return found


def table(found: list[Change]) -> str:
    """One line a change."""
    if not found:
        return "nothing changed beyond the spread"
    width = max(len(change.name) for change in found)
    return "\n".join(
        f"{change.name:<{width}}  {change.figure}  {change.old:.4g} -> {change.new:.4g}  "
        f"({change.ratio:.2f}x)"
        for change in found
    )
