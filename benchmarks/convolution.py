"""One convolution and its gradients by every lowering: is the one that we choose the fastest?

    python -m benchmarks.convolution --sizes 128x128 16x16 --json FILE
    python -m benchmarks.convolution --taps 5 --channels 64 --features 32 --json FILE

Exact float32. `ours` is what the networks run: on a CPU what `jaxsr.convolution.lowering` chooses,
elsewhere `lax`. `lax in a loop` shows what XLA's CPU back end makes of a convolution and its
gradients inside a `fori_loop`, where Deep Image Prior has all of its own; each of the others runs
in such a loop too, but for PyTorch's and `lax outside`.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import Array, lax

from benchmarks import peers, timing
from jaxsr import convolution, im2col, reports, winograd
from jaxsr.errors import InputError
from jaxsr.options import Given

Gradients = tuple[Array, Array]
Way = Callable[[Array, Array, Array], tuple[Array, Gradients]]


@dataclasses.dataclass(frozen=True)
class Options:
    """A convolution and its gradients by every lowering."""

    sizes: tuple[str, ...] = ("128x128", "64x64", "32x32", "16x16")
    """Of the output, HEIGHTxWIDTH in pixels, multiples of 4, at least 4."""
    channels: int = 128
    """Of the image."""
    features: Given[int] = None
    """Of the output; as many as channels if not given."""
    taps: int = 3
    """The filters' side in pixels; the way `winograd` is for 3."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    megapixels: Given[float] = None
    """Convolved in one measurement, in iterations of the loop. By default 0.05 on a CPU and 2 on a
    GPU, where a program must outlast its start."""
    rounds: int = 5
    """Measurements of each way; their median is reported."""
    alone: bool = False
    """Leave PyTorch out even where it is installed."""


def differentiated(convolve: Callable[[Array, Array], Array]) -> Way:
    """The way of a function that JAX takes the gradients of."""

    def way(x: Array, w: Array, dy: Array) -> tuple[Array, Gradients]:
        y, pull = jax.vjp(convolve, x, w)
        dx, dw = pull(dy)
        return y, (dx, dw)

    return way


def plain(x: Array, w: Array) -> Array:
    """As JAX has it."""
    return lax.conv_general_dilated(
        x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


WORDS: dict[Callable[..., Any], str] = {  # for what `jaxsr.convolution.lowering` chooses
    winograd.convolve: "winograd",
    winograd.gradients: "winograd",
    convolution._narrow_forward: "products of taps",
    convolution._narrow_backward: "products of taps",
    convolution._large_forward: "lax",
    convolution._large_backward: "3x3 filters",
}
# Axes of x, w and dy as PyTorch has them, and back of y, dx and dw.
AXES, BACK = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)), ((0, 2, 3, 1), (0, 2, 3, 1), (2, 3, 1, 0))
SLOW = "lax in a loop"  # on a CPU: measured by one iteration, after the others
IN_A_LOOP: dict[str, Way] = {
    "ours": differentiated(convolution.conv),
    "winograd": lambda x, w, dy: (winograd.convolve(x, w), winograd.gradients(x, w, dy)),
    "im2col": lambda x, w, dy: (im2col.convolve(x, w), im2col.gradients(x, w, dy)),
    SLOW: differentiated(plain),
}


def looped(
    way: Way, iterations: int, *, rate: float = 1e-6
) -> Callable[[Array, Array, Array], Any]:
    """So many iterations, each of which needs the one before, moved by a little of its results."""

    def iteration(_: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, w, dy = carry
        y, (dx, dw) = way(x, w, dy)
        return x - rate * dx, w - rate * dw, dy - rate * y

    return jax.jit(lambda *arrays: lax.fori_loop(0, iterations, iteration, arrays))


def outside(arrays: Sequence[Array], iterations: int) -> Callable[[], Any]:
    """One call an iteration, of a program without a loop."""
    program = jax.jit(IN_A_LOOP[SLOW])

    def run() -> Any:
        for _ in range(iterations):
            last = program(*arrays)
            if jax.default_backend() == "cpu":  # which may compute several at once
                jax.block_until_ready(last)
        return last  # a GPU computes them in their order

    return run


def torch_eager(
    arrays: Sequence[Array], iterations: int, expected: Sequence[Array]
) -> Callable[[], Any]:
    """The same in PyTorch, once it has given the expected result and gradients."""
    import numpy as np
    import torch

    from benchmarks import torch_peer

    torch_peer.configure(threads=reports.cores())
    place = torch_peer.placement(channels_last=False)
    x, w, dy = (
        torch.tensor(np.asarray(a).transpose(order)).to(**place)
        for a, order in zip(arrays, AXES, strict=True)
    )
    x.requires_grad_()
    w.requires_grad_()

    y = torch.nn.functional.conv2d(x, w)
    found = zip((y, *torch.autograd.grad(y, (x, w), dy)), BACK, expected, strict=True)
    for tensor, order, wanted in found:
        peers.disagreement(tensor.detach().cpu().numpy().transpose(order), wanted)

    def run() -> None:
        for _ in range(iterations):
            torch.autograd.grad(torch.nn.functional.conv2d(x, w), (x, w), dy)
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def measure(size: tuple[int, int], options: Options, alone: bool) -> dict[str, Any]:
    """The figures of one size, as they stand in the JSON file."""
    height, width = size
    keys = jax.random.split(jax.random.key(0), 3)
    channels, features, taps = options.channels, options.features or options.channels, options.taps
    shapes = (
        (1, height + taps - 1, width + taps - 1, channels),
        (taps, taps, channels, features),
        (1, height, width, features),
    )
    arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    on_cpu = jax.default_backend() == "cpu"
    quick = {name: way for name, way in IN_A_LOOP.items() if name != SLOW or not on_cpu}
    if taps != 3:
        del quick["winograd"]
    expected = jax.tree.leaves(jax.jit(IN_A_LOOP[SLOW])(*arrays))
    for way in quick.values():
        for actual, wanted in zip(jax.tree.leaves(jax.jit(way)(*arrays)), expected, strict=True):
            peers.disagreement(actual, wanted)
    named = f"{channels} channels" + f" to {features}" * (features != channels)
    megapixels = options.megapixels or (0.05 if on_cpu else 2)
    iterations = max(1, round(megapixels * 1e6 / (height * width)))
    programs: dict[str, Callable[[], Any]] = {
        name: functools.partial(looped(way, iterations), *arrays) for name, way in quick.items()
    }
    programs["lax outside"] = outside(arrays, iterations)
    if not alone:
        programs["PyTorch eager"] = torch_eager(arrays, iterations, expected)
    timed = functools.partial(timing.interleaved, rounds=options.rounds, pause=peers.pause())
    times = timed(programs, units=iterations)
    if on_cpu:
        times |= timed({SLOW: functools.partial(looped(IN_A_LOOP[SLOW], 1), *arrays)})
    return {
        "name": f"convolution {height}x{width}, {named}, {taps}x{taps} filters",
        "unit": "convolution",
        "ours_seconds_per_convolution": times["ours"].median,
        "ours_spread": times["ours"].spread,
        "chosen": chosen(*arrays[:2]),
        "ways": {
            name: {"seconds_per_convolution": time.median, "spread": time.spread}
            for name, time in times.items()
        },
    }


def chosen(x: Array, w: Array) -> str:
    """The way that is ours here, forward and, where that is another, for the gradients."""
    if jax.default_backend() != "cpu":
        return "lax"
    ways = [WORDS.get(way, "im2col") for way in convolution.lowering(x, w, 1)]
    return " and ".join(dict.fromkeys(ways))


def say(result: Mapping[str, Any]) -> str:
    """A line on a size."""
    times = result["ways"]
    line = ", ".join(f"{x} {1e3 * times[x]['seconds_per_convolution']:.2f}" for x in times)
    return f"{result['name']}, ms forward and backward: {line}; ours is {result['chosen']}"


def run(options: Options) -> dict[str, Any]:
    """Measures every size, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [peers.parse_size(text, multiple=4, least=4) for text in options.sizes]
    peers.check_counts(channels=options.channels, features=options.features)
    peers.check_counts(taps=options.taps, rounds=options.rounds)
    if options.megapixels is not None and not 0 < options.megapixels < float("inf"):
        raise InputError(f"`megapixels` (={options.megapixels}) must be above 0")
    alone = peers.is_alone(options.alone)
    with jax.default_matmul_precision("highest"):
        return peers.collect(
            "convolution",
            [functools.partial(measure, size, options, alone) for size in sizes],
            json=options.json,
            alone=alone,
            say=say,
            rounds=options.rounds,
        )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
