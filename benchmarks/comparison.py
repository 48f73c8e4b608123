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
    before, after, found = rows(old), rows(new), []
    for name, figure in compared(old, new):
        change = Change(name, figure, before[name][figure], after[name][figure])
        if figure == "peak_bytes":
            allowed = 0.02 * change.old
        else:
            allowed = SPREADS * sum(x[name].get("ours_spread", 0) for x in (before, after))
        if abs(change.new - change.old) > allowed:
            found.append(change)
    return found


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Row and name of each figure that is in both, above 0."""
    before, after = rows(old), rows(new)
    return [
        (name, figure)
        for name in after
        if name in before
        for figure in _figures(after[name])
        if all(_is_above_0(record[name].get(figure)) for record in (before, after))
    ]


def unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The rows that only one of them has, or that failed in one, of the parts that both have."""
    states = [
        {name: "failed" if "failed" in row else "measured" for name, row in rows(record).items()}
        for record in _common(old, new)
    ]
    before, now = ({**dict.fromkeys({**states[0], **states[1]}, "missing"), **x} for x in states)
    return [f"{name}: {before[name]} -> {now[name]}" for name in now if before[name] != now[name]]


def _common(*records: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records without the parts that one of them lacks."""
    return [
        {"parts": {k: v for k, v in one["parts"].items() if all(k in x["parts"] for x in records)}}
        for one in records
    ]


def _figures(result: Mapping[str, Any]) -> Iterator[str]:
    """Names of what is compared in a row."""
    if "unit" in result:
        yield f"ours_seconds_per_{result['unit']}"
    if "peak_bytes" in result:
        yield "peak_bytes"


def _is_above_0(figure: object) -> bool:
    return isinstance(figure, float | int) and figure > 0


def elsewhere(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the machines and versions of the parts that both have, a line each."""
    before, now = map(_environment, _common(old, new))
    named = [x for x in {**now, **before} if now.get(x) != before.get(x)]
    return [f"{x}: {before.get(x)} -> {now.get(x)}" for x in named]


def _environment(record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in record["parts"].values():
        for group in ("device", "versions"):
            values = part.get("environment", {}).get(group, {})
            found |= {f"{group} {name}": value for name, value in values.items()}
    return found


def table(found: list[Change], *, of: int) -> str:
    """One line a change, of so many figures that were compared."""
    if not of:
        return "nothing to compare: no figure is in both"
    if not found:
        return f"of {of} figures none changed beyond the spread"
    width = max(len(change.name) for change in found)
    return "\n".join(
        f"{change.name:<{width}}  {change.figure}  {change.old:.4g} -> {change.new:.4g}  "
        f"({change.ratio:.2f}x)"
        for change in found
    )
