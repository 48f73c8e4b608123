"""What a GPU would be given, counted on a machine without one: kernels, bytes, memory.

    python -m benchmarks.ahead --target h200.txtpb --sizes 320x480 2048x2048 --json FILE

XLA compiles for any GPU that it has a description of (some are in its repository, openxla/xla,
below xla/backends/gpu/target_config/specs); that takes JAX's plugin (the extra cuda12 or cuda13),
but no GPU. Nothing is measured: how long a kernel takes is not known, nor which one of cuDNN's is
chosen and how much memory it works in, since these are tried out on the GPU.
"""

import dataclasses
import functools
import math
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import dip, machine, ours, ours_lapsrn, peers, timing
from jaxsr import chunks, losses, operators, training
from jaxsr.dip import Config, init, solver
from jaxsr.errors import InputError
from jaxsr.models import LapSRN, SkipUNet
from jaxsr.options import Given

# Kernels are not tried; products are cuBLAS', since for its own XLA finds the tiles by trying.
COMPILER = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True)
class Options:
    """Kernels, bytes and memory of the programs that a GPU would be given, without the GPU."""

    target: pathlib.Path
    """XLA's description of the GPU, such as its h200.txtpb."""
    sizes: tuple[str, ...] = ("320x480",)
    """Of Deep Image Prior's image, HEIGHTxWIDTH in pixels, multiples of 32, at least 64."""
    precisions: tuple[dip.Precision, ...] = ("tf32",)
    """Arithmetic of the convolutions."""
    remat: bool = False
    """Recompute activations for the gradient (`SkipUNet(remat=True)`)."""
    works: tuple[Literal["dip", "training"], ...] = ("dip", "training")
    """Iterations of Deep Image Prior; steps of LapSRN's training."""
    json: Given[pathlib.Path] = None
    """File for the results, with versions."""


class Kernel(NamedTuple):
    """One kernel of a compiled loop."""

    kind: str  # of the instruction, or the library's name for it
    nbytes: int  # of its operands and results


_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(([^)]*)\)(.*)")
_ARRAY = re.compile(r"(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all")


def kernels(program: str) -> list[Kernel]:
    """Those of the (outermost) loop of a compiled program, which is given as text."""
    parts = re.split(r"\n(?=ENTRY |%)", program)  # the called before its callers
    *_, loop = re.findall(r" while\(.*body=(%[\w.-]+)", program)
    (body,) = (part for part in parts if part.startswith(f"{loop} "))
    found, nbytes = [], dict[str, int]()
    for line in body.splitlines():
        if instruction := _INSTRUCTION.match(line):
            name, shapes, kind, operands, rest = instruction.groups()
            nbytes[name] = sum(_nbytes(*array.groups()) for array in _ARRAY.finditer(shapes))
            if kind not in _FREE:
                called = re.search(r'custom_call_target="([^"]*)"', rest)
                read = sum(nbytes[operand] for operand in re.findall(r"%([\w.-]+)", operands))
                found.append(Kernel(called[1] if called else kind, read + nbytes[name]))
    return found


def _nbytes(bits: str | None, shape: str) -> int:
    sides = [int(side) for side in shape.split(",") if side]
    return math.prod(sides) * int(bits or 8) // 8  # of pred 8


def measure(name: str, loop: Callable[..., Any], *arguments: Any, on: NamedSharding) -> Any:
    """The figures of a loop, as they stand in the JSON file.

    Kernels and bytes are of one iteration, memory of the whole program.
    """
    there = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on), arguments)
    program, seconds = timing.compiled(jax.jit(loop, donate_argnums=0), *there, options=COMPILER)
    found = kernels(program.as_text())
    convolutions = [kernel for kernel in found if kernel.kind.startswith("__cudnn$conv")]
    return {
        "name": f"ahead {name}",
        "kernels": len(found),
        "convolutions": len(convolutions),
        "gbytes": sum(kernel.nbytes for kernel in found) / 1e9,
        "gbytes_of_convolutions": sum(kernel.nbytes for kernel in convolutions) / 1e9,
        "memory_bytes": machine.program_bytes(program),
        "compile_seconds": seconds,
    }


def of_dip(size: tuple[int, int], precision: str, remat: bool, on: NamedSharding) -> Any:
    """Of `dip.fit`'s program."""
    model = SkipUNet(dtype=_dtype(precision), remat=remat)
    config, key = Config(), jax.random.key(0)
    functions: dict[str, Any] = {"apply_fn": model.apply, "config": config}
    start = functools.partial(init, init_fn=model.init, size=size, **functions)
    functions |= {"operator": operators.downsample(ours.FACTOR, kernel=ours.KERNEL)}
    functions |= {"loss": losses.charbonnier, "length": chunks.LENGTH}
    low = jax.ShapeDtypeStruct((1, *(side // ours.FACTOR for side in size), 3), jnp.float32)

    def loop(state: Any, observation: jax.Array, iterations: jax.Array) -> Any:
        return solver.loop(state, observation, None, iterations, **functions)

    name = f"dip {size[0]}x{size[1]} {precision}" + (" remat" if remat else "")
    with _products(precision):
        return measure(name, loop, jax.eval_shape(start, key), low, jnp.int32(0), on=on)


def of_training(precision: str, on: NamedSharding) -> Any:
    """Of the program that `benchmarks.lapsrn` times."""
    model, config = LapSRN(dtype=_dtype(precision)), training.Config()
    start = functools.partial(training.init, model=model, config=config)
    images = jax.ShapeDtypeStruct((config.batch, config.size, config.size, 1), jnp.float32)
    state = jax.eval_shape(start, jax.random.key(0))
    with _products(precision):
        loop = ours_lapsrn.training_steps(model, config)
        return measure(f"lapsrn training {precision}", loop, state, images, jnp.int32(0), on=on)


def _dtype(precision: str) -> Any:
    return jnp.bfloat16 if precision == "bfloat16" else None


def _products(precision: str) -> Any:
    return jax.default_matmul_precision(ours_lapsrn.PRODUCTS.get(precision, "highest"))


def say(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    return (
        f"{result['name']}: {result['kernels']} kernels, {result['convolutions']} of them cuDNN's "
        f"convolutions, {result['gbytes']:.2f} GB ({result['gbytes_of_convolutions']:.2f}), "
        f"{result['memory_bytes'] / 1e9:.2f} GB of memory without cuDNN's, compiled in "
        f"{result['compile_seconds']:.1f} s"
    )


def described(target: pathlib.Path) -> NamedSharding:
    """One such GPU.

    Raises:
      InputError: there is no plugin of JAX, or the file describes no GPU to it.
      OSError: the file cannot be read.
    """
    description = target.read_text(encoding="utf-8", errors="replace")
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=description, topology="1x1x1"
        )
    except NotImplementedError as error:
        raise InputError(
            f"`target` (={target}) needs JAX's plugin: extra cuda12 or cuda13"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"`target` (={target}) must describe a GPU: {reason}") from error
    return NamedSharding(topologies.make_mesh(topology, (1,), ("x",)), PartitionSpec())


def run(options: Options) -> dict[str, Any]:
    """Counts everything; returns, and writes if asked, what was found.

    Raises:
      InputError: an option that cannot be used.
    """
    sizes = [dip.parse_size(text) for text in options.sizes]
    on = described(options.target)
    counts: list[Callable[[], Any]] = []
    for precision in options.precisions:
        if "dip" in options.works:
            one = functools.partial(of_dip, precision=precision, remat=options.remat, on=on)
            counts += [functools.partial(one, size) for size in sizes]
        if "training" in options.works:
            counts.append(functools.partial(of_training, precision, on))
    target = options.target.name
    return peers.collect("ahead", counts, json=options.json, alone=True, say=say, target=target)


if __name__ == "__main__":
    sys.exit(peers.main(Options, run))
