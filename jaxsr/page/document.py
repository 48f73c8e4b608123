"""The page itself: its data, and how a template, a style and two scripts become one text."""

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from jaxsr.page.tables import Table, comparison, elements

Role = Literal["input", "baseline", "result", "truth"]
_ORDER = ("input", "baseline", "result", "truth")


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image to compare with others of its name and size.

    name: of the scene. label: what made it, such as "bicubic".
    size: width and height at which it is shown; an `input` may have fewer pixels.
    png: the bytes of the file.
    psnr, ssim: as recorded, where they were. protocol: what they mean.
    """

    name: str
    label: str
    role: Role
    size: tuple[int, int]
    png: bytes
    psnr: float | None = None
    ssim: float | None = None
    protocol: str = ""

    @property
    def caption(self) -> str:
        """The figures in words; empty without."""
        if self.psnr is None or self.ssim is None:
            return ""
        return f"{self.psnr:.3f} dB, SSIM {self.ssim:.4f} ({self.protocol})"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Columns of a history by what they are, such as "PSNR (dB)"; None where not finite.

    With "log" in its name a column is drawn on a logarithmic axis.

    name: of the run. scene: what it is of; curves of one scene can be looked at alone.
    count: what is counted along it, from `every` in steps of `every`.
    levels: by column, what a dashed line marks, such as {"bicubic": 26.3}; finite.
    """

    name: str
    scene: str
    count: str
    columns: Mapping[str, Sequence[float | None]]
    every: int = 1
    levels: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    command: what made it. settings, results: what went in and what was measured; they may be
      nested. note: what is left out of the page. parts: what went into its parts, by name; those
      with the same settings stand side by side.
    """

    name: str
    command: str
    settings: Mapping[str, Any]
    results: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    curves: Sequence[Curve] = ()
    tables: Sequence[Table] = ()
    note: str = ""
    parts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def render(runs: Sequence[Run]) -> str:
    """The page of some runs, whose names differ, as HTML text."""
    names = [run.name for run in runs]
    groups, sources = _groups(runs)
    curves = [dataclasses.asdict(curve) for run in runs for curve in run.curves if curve.columns]
    shown = elements(table for run in runs for table in run.tables)
    notes = [f"<p>{html.escape(f'{run.name}: {run.note}')}</p>" for run in runs if run.note]
    style, script = _asset("page.css"), _asset("viewer.js") + _asset("curves.js")
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(", ".join(names) if len(names) < 4 else f"{len(names)} runs"),
        commands=html.escape(", ".join(dict.fromkeys(run.command for run in runs))),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_json({"groups": groups, "images": sources, "curves": curves}),
        notes="\n".join(notes),
        no_images="" if groups else " hidden",
        no_curves="" if curves else " hidden",
        no_tables="" if shown else " hidden",
        tables="\n".join(shown),
        settings=_settings(runs),
    )


def _asset(name: str) -> str:
    return (importlib.resources.files("jaxsr.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: Any) -> str:
    """JSON that cannot end the element that holds it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _groups(runs: Iterable[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """The pictures of each name and size, every one once, and the distinct images as URIs."""
    found: dict[tuple[str, tuple[int, int]], dict[Any, tuple[str, Picture]]] = {}
    for run in runs:
        for picture in run.pictures:
            group = found.setdefault((picture.name, picture.size), {})
            key = picture.label, picture.png, picture.caption
            group.setdefault(key, (run.name, picture))
    sources: dict[bytes, int] = {}
    groups = []
    names = [name for name, _ in found]
    for (name, (width, height)), group in found.items():
        pictures = sorted(group.values(), key=lambda pair: _ORDER.index(pair[1].role))
        labels = [picture.label for _, picture in pictures]
        shown = [
            {
                "label": p.label if labels.count(p.label) == 1 else f"{p.label} · {run}",
                "caption": p.caption or ("the reference" if p.role == "truth" else ""),
                "image": sources.setdefault(p.png, len(sources)),
            }
            for run, p in pictures
        ]
        left, right = _first_pair(pictures)
        title = name if names.count(name) == 1 else f"{name} ({width}×{height})"
        groups.append({"name": title, "width": width, "height": height, "pictures": shown})
        groups[-1] |= {"left": left, "right": right}
    uris = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in sources]
    return groups, uris


def _first_pair(pictures: Sequence[tuple[str, Picture]]) -> tuple[int, int]:
    """Baseline and result, by run and picture; of several runs the results of the first two."""
    roles = [picture.role for _, picture in pictures]
    results: dict[str, int] = {}  # the first of each run
    for i, (run, picture) in enumerate(pictures):
        if picture.role == "result":
            results.setdefault(run, i)
    if len(results) > 1:
        left, right, *_ = results.values()
        return left, right
    right = roles.index("result") if results else len(roles) - 1
    return (roles.index("baseline") if "baseline" in roles else 0), right


def _settings(runs: Sequence[Run]) -> str:
    """For each command a column for each run: what went in and, folded, what came out."""
    parts = []
    for command in dict.fromkeys(run.command for run in runs):
        alike = [run for run in runs if run.command == command]
        parts.append(comparison(command, [(run.name, run.settings) for run in alike]))
        for run in alike:
            kinds: dict[tuple[str, ...], list[tuple[str, Mapping[str, Any]]]] = {}
            for name, own in ((name, own) for name, own in run.parts.items() if own):
                kinds.setdefault((*own,), []).append((name, own))
            for kind in kinds.values():
                parts.append(comparison(f"{run.name}: {', '.join(n for n, _ in kind)}", kind))
        results = [(run.name, run.results) for run in alike]
        folded = comparison(f"{command}: results", results)
        parts.append(f"<details><summary>All that was recorded</summary>{folded}</details>")
    return "\n".join(parts)
