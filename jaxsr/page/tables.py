"""Tables of a page: figures of images, and settings beside one another, as HTML text."""

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = tuple[str, Sequence[float | str | None]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a name and its cells: figures, words, or None where missing.

    columns: the first is that of the names. mean: the row below the others, where there is one.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    mean: Row | None = None


def elements(tables: Iterable[Table]) -> list[str]:
    """The tables as HTML; those that share caption and columns and have no mean are one."""
    alike: dict[Any, Table] = {}
    for table in tables:
        key = table.caption, *table.columns, len(alike) if table.mean else None
        above = alike[key].rows if key in alike else ()
        alike[key] = dataclasses.replace(table, rows=[*above, *table.rows])
    return [_element(table) for table in alike.values()]


def comparison(caption: str, records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Records, by name, side by side as HTML: what at least one holds; what differs is marked.

    They may be nested.
    """
    flat = [dict(_flat(record)) for _, record in records]
    rows = []
    for name in dict.fromkeys(name for values in flat for name in values):
        cells = [f"<td>{_value(values.get(name))}</td>" for values in flat]
        if any(values.get(name) is not None for values in flat):
            row = _row(name, cells)
            rows.append(row.replace("<tr>", '<tr class="differs">') if len({*cells}) > 1 else row)
    return _framed(caption, ["", *(name for name, _ in records)], rows)


def _element(table: Table) -> str:
    rows = [_figures(row, table.columns) for row in table.rows]
    return _framed(
        table.caption,
        table.columns,
        rows,
        _figures(table.mean, table.columns) if table.mean else "",
    )


def _figures(row: Row, columns: Sequence[str]) -> str:
    name, cells = row
    return _row(name, [_cell(x, head) for x, head in zip(cells, columns[1:], strict=True)])


def _cell(value: float | str | None, column: str) -> str:
    if value is None:
        return '<td class="missing">missing</td>'
    if isinstance(value, str):
        return f"<td>{_text(value)}</td>"
    digits = "+.3f" if column == "gain" else ".4f" if column.endswith("SSIM") else ".3f"
    return f'<td><data value="{float(value)!r}">{value:{digits}}</data></td>'


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f'<data value="{float(value)!r}">{value:.7g}</data>'
    listed = isinstance(value, list | tuple)
    return _text(", ".join(map(str, value)) if listed else value)


def _flat(record: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{_text(name)}</th>{"".join(cells)}</tr>'


def _framed(caption: str, heads: Iterable[str], rows: Iterable[str], foot: str = "") -> str:
    """A table in a frame that scrolls, also from the keyboard."""
    caption = _text(caption)
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    parts = [
        f'<p class="caption">{caption}</p>',
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}">',
        f'<table aria-label="{caption}">',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody>",
        f"<tfoot>{foot}</tfoot>" if foot else "",
        "</table>",
        "</div>",
    ]
    return "\n".join(filter(None, parts))


def _text(value: Any) -> str:
    return html.escape(str(value))
