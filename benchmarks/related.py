"""The related work's networks beside LapSRN: how large each is, and how fast.

    python -m benchmarks.related --json FILE

SRCNN, FSRCNN, VDSR and DRCN (section 2 of "Robust Loss with Deep Image Prior") as published, LapSRN
as the paper has it. One luma image at a time goes from the device through each, all that it returns
stays there; a megapixel is one of the enlarged image. All is float32. How well they restore after
one recipe is for `experiments.lapsrn --network` and `experiments.evaluate`.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, Literal

import jax

from benchmarks import lapsrn, ours_lapsrn, peers
from jaxsr import pretrained
from jaxsr.errors import InputError
from jaxsr.options import Given

NETWORKS = {name.lower(): network for name, network in pretrained.NETWORKS.items()}


@dataclasses.dataclass(frozen=True)
class Options:
    """Parameters and megapixels a second of networks for luma."""

    sizes: tuple[str, ...] = ("320x480",)
    """Sizes of the enlarged image, HEIGHTxWIDTH in pixels, multiples of the factor."""
    factor: Literal[2, 4, 8] = 4
    """Of the enlargement."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """Which, by name."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    calls: Given[int] = None
    """Images in one measurement. Default: 3 on a CPU, 100 elsewhere."""
    rounds: int = 7
    """Measurements of each network; their median is reported."""


def inference(name: str, size: tuple[int, int], options: Options) -> dict[str, Any]:
    """The figures of one network and size, as they stand in the JSON file."""
    model = NETWORKS[name](factor=options.factor)
    calls = lapsrn.units(options.calls, cpu=3, elsewhere=100)
    made = ours_lapsrn.enlargement(model, size)
    images = functools.partial(made.run, calls)
    figures = peers.compare(images, {}, unit="image", units=calls, rounds=options.rounds)
    megapixels = size[0] * size[1] / 1e6
    return {
        "name": f"inference {name} x{options.factor} {size[0]}x{size[1]}",
        "network": name,
        "factor": options.factor,
        "size": f"{size[0]}x{size[1]}",
        "parameters": sum(x.size for x in jax.tree.leaves(made.variables)),
        "megapixels_per_second": megapixels * figures["images_per_second"],
        "compile_seconds": made.compile_seconds,
        **figures,
    }


def say(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    size = (
        f"{result['parameters']:,} parameters, {result['megapixels_per_second']:.3g} megapixels/s"
    )
    return f"{peers.report(result)}; {size}"


def run(options: Options) -> dict[str, Any]:
    """Measures every network, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    for name in options.networks:
        if name not in NETWORKS:
            raise InputError(f"`networks` (={name}) must be of {', '.join(NETWORKS)}")
    multiple = options.factor
    sizes = [peers.parse_size(text, multiple=multiple, least=multiple) for text in options.sizes]
    peers.check_counts(calls=options.calls, rounds=options.rounds)
    return peers.collect(
        "related",
        [
            functools.partial(inference, n, size, options)
            for size in sizes
            for n in options.networks
        ],
        json=options.json,
        alone=True,
        say=say,
        precision="float32",
        rounds=options.rounds,
    )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
