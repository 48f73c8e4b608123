"""Deep Image Prior's speed against PyTorch, in one run: 4x, the released network, one image.

    python -m benchmarks.dip --sizes 128x128 320x480 --json FILE
    python -m benchmarks.dip --precisions float32 tf32 bfloat16 --losses mse charbonnier
    python -m benchmarks.dip --sizes 1024x1024 --remat --alone

Ours is the program of `dip.fit`, of several iterations a call; the peers are PyTorch eager as it
comes, with channels-last memory, and `torch.compile` with both, their metrics off. Before anything
is timed, both compute the loss of the same weights and latent in float32, which must agree to 1e-4.
Without PyTorch (the extra `torch`), or with `--alone`, ours is timed by itself. Every size is
measured with every loss and precision; several fits at once are `benchmarks.fits`'.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ceilings, ours, peers, work
from jaxsr import reports, weights
from jaxsr.models import SkipUNet
from jaxsr.options import Given

Loss = Literal["mse", "l1", "charbonnier"]
Precision = Literal["float32", "tf32", "bfloat16"]

parse_size = functools.partial(peers.parse_size, multiple=32, least=64)


@dataclasses.dataclass(frozen=True)
class Options:
    """Deep Image Prior's iterations a second, against PyTorch in the same run."""

    sizes: tuple[str, ...] = ("128x128", "320x480")
    """Image sizes, HEIGHTxWIDTH in pixels, multiples of 32, at least 64."""
    json: Given[pathlib.Path] = None
    """File for the results, with machine and versions."""
    losses: tuple[Loss, ...] = ("charbonnier",)
    """Losses of the fit."""
    precisions: Given[tuple[Precision, ...]] = None
    """Arithmetic of the convolutions, in all programs alike. Default: float32, and on a GPU
    tf32."""
    remat: bool = False
    """Recompute activations for the gradient (`SkipUNet(remat=True)`)."""
    iterations: Given[int] = None
    """Iterations in one measurement (one call). Default: at 128x128 a thousand on a GPU, ten on a
    CPU, fewer in proportion to the pixels, but at least two, and on a CPU at least as many as a
    fit takes in a call: about eight up to half a megapixel, four at one."""
    rounds: int = 7
    """Measurements of each program; their median is reported."""
    alone: bool = False
    """Leave PyTorch out even where it is installed (for memory, or in a hurry)."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to measure."""

    size: tuple[int, int]
    loss: Loss
    precision: str
    remat: bool

    @property
    def name(self) -> str:
        """Of its row."""
        height, width = self.size
        name = f"dip {height}x{width} {self.loss} {self.precision}"
        return name + (" remat" if self.remat else "")


def measure(
    case: Case, options: Options, ceiling: Callable[[str], ceilings.Ceilings], *, alone: bool
) -> dict[str, Any]:
    """The figures of one case, as they stand in the JSON file; times in seconds an iteration.

    The `ceiling` of the precision is asked for last, so that its arrays, which are larger than a
    small fit, are no part of the memory that the first fit took.
    """
    iterations = options.iterations or default_iterations(case.size)
    programs: dict[str, Callable[[], Any]] = {}
    difference = params = None
    if not alone:
        programs, params, difference = _peers(case, iterations)
    dtype = jnp.bfloat16 if case.precision == "bfloat16" else None
    with jax.default_matmul_precision("tensorfloat32" if case.precision == "tf32" else "highest"):
        model = SkipUNet(dtype=dtype, remat=case.remat)
        fit = ours.fit_of(case.size, model=model, loss=case.loss, params=params)
        program = fit.compiled(iterations)
    figures = peers.compare(
        program.call,
        programs,
        unit="iteration",
        units=iterations,
        rounds=options.rounds,
    )
    half = case.precision == "bfloat16"
    counted = work.dip_iteration(fit.state.params, case.size, value_bytes=2 if half else 4)
    seconds = figures["ours_seconds_per_iteration"]
    best = ceiling(case.precision)
    return {
        "name": case.name,
        "size": f"{case.size[0]}x{case.size[1]}",
        **{key: getattr(case, key) for key in ("loss", "precision", "remat")},
        "compile_seconds": program.seconds,
        "program_bytes": program.nbytes,
        "loss_disagreement": difference,
        **figures,
        "seconds_per_megapixel": seconds * 1e6 / (case.size[0] * case.size[1]),
        "gflop_per_iteration": counted.gflop,
        **best.of_products(counted.gflop / seconds),
        "gbytes_per_iteration": counted.gbytes,
        "share_of_copy_ceiling": counted.gbytes / seconds / best.gbytes_per_second,
    }


def _peers(
    case: Case, iterations: int
) -> tuple[dict[str, Callable[[], Any]], dict[str, Any], float]:
    """PyTorch's programs of so many iterations, their start, how far the losses differ there.

    In float32 the loss is that of each program's own first step, else of eager float32 alone.
    """
    from benchmarks import torch_peer

    network = torch_peer.skip_unet()
    params = weights.skip_unet_from_torch(torch_peer.parameters_as_numpy(network))
    torch_peer.configure(threads=reports.cores())
    with jax.default_matmul_precision("highest"):
        exact = ours.fit_of(case.size, model=SkipUNet(), loss=case.loss, params=params)
        latent, target = np.asarray(exact.state.latent), np.asarray(exact.target)
        loss_there = exact.forward_loss()
        peer = torch_peer.fit_of(network, latent, target, loss=case.loss)
        difference = peers.disagreement(loss_there, peer.loss_at(peer.latent).item())
    torch_peer.allow_tf32(case.precision == "tf32")
    programs: dict[str, Callable[[], Any]] = {}
    for name, form in torch_peer.FORMS.items():
        peer = torch_peer.fit_of(
            network, latent, target, loss=case.loss, precision=case.precision, **form
        )
        noise_std, peer.noise_std = peer.noise_std, 0.0  # a first step whose loss is known
        loss = torch_peer.first(functools.partial(peer.run, 1), compiled=form["compiled"])
        peer.noise_std = noise_std
        if loss is None:
            continue
        if case.precision == "float32":
            difference = max(difference, peers.disagreement(loss_there, loss))
        programs[name] = functools.partial(peer.run, iterations)
    return programs, params, difference


def default_iterations(size: tuple[int, int], fits: int = 1) -> int:
    """Iterations in one measurement where none are asked for."""
    pixels = size[0] * size[1] * fits
    if jax.default_backend() == "cpu":
        return max(2, round(10 * 128**2 / pixels), min(8, round(4 * 2**20 / pixels)))
    return max(2, round(1000 * 128**2 / pixels))


def run(options: Options) -> dict[str, Any]:
    """Measures every case, printing as it goes; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [parse_size(text) for text in options.sizes]
    peers.check_counts(iterations=options.iterations, rounds=options.rounds)
    precisions = peers.precisions(options.precisions)
    alone = peers.is_alone(options.alone)
    told: dict[str, dict[str, float]] = {}

    @functools.cache
    def ceiling(precision: str) -> ceilings.Ceilings:
        found = ceilings.measure(precision)
        told[precision] = dataclasses.asdict(found)
        return found

    cases = itertools.product(sizes, options.losses, precisions)
    return peers.collect(
        "dip",
        (
            functools.partial(
                measure,
                Case(size, loss, precision, options.remat),
                options,
                ceiling,
                alone=alone,
            )
            for size, loss, precision in cases
        ),
        json=options.json,
        alone=alone,
        rounds=options.rounds,
        ceilings=told,
    )


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
