"""A network drawn from the module itself: its layers, what they give, and their parameters."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from jaxsr.figures import Path, save, style
from jaxsr.models import LapSRN, SkipUNet

Place = tuple[float, float]

_COLOURS = {
    "convolution": "#cfe2f3",
    "transposed convolution": "#fce5cd",
    "skip connection": "#d9ead3",
    "enlargement, concatenation, norm": "#eeeeee",
}
_ARROW: dict[str, Any] = {
    "arrowstyle": "-|>",
    "mutation_scale": 8,
    "color": "0.35",
    "shrinkA": 0,
    "shrinkB": 0,
}
_LINE: dict[str, Any] = {"color": "0.35", "linewidth": 1}
_WIDTH, _HEIGHT = 1.0, 0.5  # of a box


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a submodule gives, (H, W, C), how many parameters it has, and its filters' sides."""

    shape: tuple[int, int, int]
    parameters: int
    filters: tuple[int, int] | None = None  # None: it has none


def layers(model: Any, *shape: int) -> dict[str, Layer]:
    """The submodules that a call on an input (N, H, W, C) runs, by name; nothing is computed.

    Args:
      model: a Flax module without arguments but the input.
      shape: of the input.
    """
    x = jax.ShapeDtypeStruct(shape, jnp.float32)

    def trace(x: jax.Array) -> Any:
        return model.init_with_output(jax.random.key(0), x, capture_intermediates=True)

    outputs, variables = jax.eval_shape(trace, x)
    found = {}
    for name, inner in variables["intermediates"].items():
        if name != "__call__":
            (output,) = inner["__call__"]
            parameters = variables["params"].get(name, {})
            leaves = jax.tree.leaves(parameters)
            sides = [leaf.shape[:2] for leaf in leaves if leaf.ndim == 4]
            size = sum(leaf.size for leaf in leaves)
            found[name] = Layer(output.shape[1:], size, sides[0] if sides else None)
    return found


def lapsrn(path: Path, model: LapSRN, *, side: int) -> None:
    """Draws LapSRN on a low resolution of `side` pixels a side: features above, images below.

    Convolutions in a row that are alike are one box.

    Raises:
      InputError: the file cannot be written.
    """
    found = layers(model, 1, side, side, 1)
    boxes: dict[str, Place] = {"input": (1, 1)}
    arrows = [("low resolution", "input")]
    image, features, x = "low resolution", "input", 1.0
    sums: dict[str, Place] = {}
    counts: dict[str, int] = {}
    for level in range(model.levels):
        convs = [name for name in found if name.startswith(f"level_{level}_conv_")]
        ordered = [f"level_{level}_conv_{i}" for i in range(len(convs))]
        alike = [[*names] for _, names in itertools.groupby(ordered, key=found.__getitem__)]
        counts |= {first: 1 + len(others) for first, *others in alike}
        chain = [first for first, *_ in alike] + [f"level_{level}_up"]
        for name in chain:
            x += 1.35
            boxes[name] = (x, 1)
            arrows.append((features, name))
            features = name
        detail, total = f"level_{level}_detail", f"image of level {level}"
        boxes[detail] = (x, 0)
        arrows.append((features, detail))
        sums[total] = (x, -1)
        arrows.append((detail, total))
        if model.residual:
            enlarged = f"level_{level}_image"
            boxes[enlarged] = (x - 1.35 * len(chain) / 2, -1)
            arrows += [(image, enlarged), (enlarged, total)]
        image = total
    ends = {
        "low resolution": (1.0 if model.residual else -0.35, -1 if model.residual else 1),
        **sums,
    }
    last = f"{side}x{side}x1"
    notes = {"low resolution": last}
    for level, name in enumerate(sums):
        height, width, _ = found[f"level_{level}_detail"].shape
        notes[name] = f"{height}x{width}x1" + (", sum" if model.residual else "")
    _draw(path, f"LapSRN, {model.factor}x", found, boxes, ends, notes, arrows, counts)


def skip_unet(path: Path, model: SkipUNet, *, side: int, latent_channels: int = 32) -> None:
    """Draws the skip U-Net on a latent of `side` pixels a side: down on the left, up on the right.

    Raises:
      InputError: the file cannot be written.
    """
    found = layers(model, 1, side, side, latent_channels)
    boxes: dict[str, Place] = {}
    arrows = []
    before, depth = "latent", len(model.down)
    ends: dict[str, Place] = {"latent": (0, 0)}
    right = {"join": 5.4, "up": 6.75, "mix": 8.1}
    for i in range(depth):
        y = -1.1 * i
        boxes |= {f"halve_{i}": (1.35, y - 1.1), f"down_{i}": (2.7, y - 1.1)}
        arrows += [(before, f"halve_{i}"), (f"halve_{i}", f"down_{i}")]
        boxes |= {f"{name}_{i}": (x, y) for name, x in right.items()}
        arrows += [(f"join_{i}", f"up_{i}"), (f"up_{i}", f"mix_{i}")]
        if model.skip[i]:
            boxes[f"skip_{i}"] = (4.05, y)
            arrows += [(before, f"skip_{i}"), (f"skip_{i}", f"join_{i}")]
        below = f"mix_{i + 1}" if i + 1 < depth else f"down_{i}"
        arrows.append((below, f"join_{i}"))
        before = f"down_{i}"
    boxes["image"] = (9.45, 0)
    arrows.append(("mix_0", "image"))
    notes = {"latent": f"{side}x{side}x{latent_channels}"}
    _draw(path, "Skip U-Net", found, boxes, ends, notes, arrows)


def _draw(
    path: Path,
    title: str,
    found: Mapping[str, Layer],
    boxes: Mapping[str, Place],
    ends: Mapping[str, Place],
    notes: Mapping[str, str],
    arrows: Sequence[tuple[str, str]],
    counts: Mapping[str, int] | None = None,  # of layers that a box stands for, where several
) -> None:
    places = {**boxes, **ends}
    across, up = ([place[i] for place in places.values()] for i in (0, 1))
    total = sum(layer.parameters for layer in found.values())
    with style("default"):
        size = (1.15 * (max(across) - min(across) + 1.8), 1.2 * (max(up) - min(up) + 1.8))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        axes = figure.add_subplot()
        for name, place in boxes.items():
            layer = found[name]
            note = f"{_times(layer.shape)}\n{layer.parameters:,}"
            if layer.filters:
                note = f"{_times(layer.shape)}\n{_times(layer.filters)}: {layer.parameters:,}"
            label, count = name, (counts or {}).get(name, 1)
            if count > 1:
                label, note = f"{count} of {name.rpartition('_')[0]}", f"{note} each"
            _box(axes, place, label, note, _colour(name))
        for name, place in ends.items():
            _box(axes, place, name, notes[name], "white")
        for start, end in arrows:
            _arrow(axes, places[start], places[end])
        used = {_colour(name) for name in boxes}
        kinds = [Patch(fc=c, ec="0.4", label=kind) for kind, c in _COLOURS.items() if c in used]
        axes.legend(handles=kinds, loc="lower right", frameon=False, fontsize=8, ncols=len(kinds))
        axes.set_title(f"{title}: {total:,} parameters", fontsize=12, loc="left")
        axes.set(xlim=(min(across) - 0.7, max(across) + 0.7))
        axes.set(ylim=(min(up) - 0.8, max(up) + 0.5))
        axes.set_axis_off()
        save(path, figure)


def _times(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _colour(name: str) -> str:
    if name.startswith("skip"):
        return _COLOURS["skip connection"]
    if name.startswith("join"):
        return _COLOURS["enlargement, concatenation, norm"]
    return _COLOURS["transposed convolution" if name.endswith(("_up", "_image")) else "convolution"]


def _box(axes: Axes, place: Place, name: str, note: str, colour: str) -> None:
    x, y = place[0] - _WIDTH / 2, place[1] - _HEIGHT / 2
    style = "round,pad=0.06"
    axes.add_patch(
        FancyBboxPatch((x, y), _WIDTH, _HEIGHT, boxstyle=style, facecolor=colour, edgecolor="0.4")
    )
    axes.text(*place, f"{name}\n{note}", ha="center", va="center", fontsize=8, linespacing=1.3)


def _arrow(axes: Axes, start: Place, end: Place) -> None:
    """Straight in a row or column; otherwise by the gap between two rows, or round the corner."""
    (x0, y0), (x1, y1) = start, end
    wide, high = _WIDTH / 2 + 0.07, _HEIGHT / 2 + 0.07
    if y0 == y1:
        right = 1 if x1 > x0 else -1
        start, end = (x0 + right * wide, y0), (x1 - right * wide, y1)
    else:
        up = 1 if y1 > y0 else -1
        start, end = (x0, y0 + up * high), (x1, y1 - up * high)
        if x1 > x0 and up == 1:
            axes.plot([x0 + wide, x1], [y0, y0], **_LINE)
            start = x1, y0
        elif x0 != x1:
            gap = (y0 + y1) / 2
            axes.plot([x0, x0, x1], [start[1], gap, gap], **_LINE)
            start = x1, gap
    axes.add_patch(FancyArrowPatch(start, end, **_ARROW))
