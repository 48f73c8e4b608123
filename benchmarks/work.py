"""How much a network computes, counted from its parameters, however it is computed.

Arithmetic is the multiplications and additions of the convolutions by their definition (Winograd's
method needs fewer). Traffic is the least that single operations move: each reads its inputs and
writes its output once. Both, divided by measured seconds they compare with
the machine's measured ceilings (`benchmarks.ceilings`).
"""

from typing import Any, NamedTuple

import jax


class Work(NamedTuple):
    """Of one iteration or image.

    gflop: multiplications and additions, in 1e9.
    gbytes: read and written, in 1e9 bytes.
    """

    gflop: float
    gbytes: float


def dip_iteration(params: Any, size: tuple[int, int], *, value_bytes: int = 4) -> Work:
    """One iteration of Deep Image Prior by the skip U-Net: forward, backward and Adam.

    Args:
      params: of `jaxsr.models.SkipUNet`.
      size: of the latent, (height, width).
      value_bytes: of an activation: 4 for float32, 2 for bfloat16.
    """
    network = params["params"]
    flop = values = 0
    for name, part in network.items():
        if name.startswith("join_"):
            scale = int(name.split("_")[1])
            joined = size[0] * size[1] // 4**scale * part["scale"].size
            values += 7 * joined  # norm: reads and writes forward, reads twice and writes backward,
            continue  # and the concatenation before it
        kernel = (part if name == "image" else part["conv"])["conv"]["kernel"]
        scale = 0 if name == "image" else int(name.split("_")[1])
        halves = name.startswith("halve_")
        out = size[0] * size[1] // 4 ** (scale + name.startswith(("halve_", "down_")))
        inputs, outputs = out * 4**halves * kernel.shape[2], out * kernel.shape[3]
        # Forward, the filter's gradient and, but for those that read the latent, the input's.
        products = 2 if name in ("halve_0", "skip_0") else 3
        flop += products * 2 * out * kernel.size
        values += products * (inputs + outputs)
        values += 0 if name == "image" else 5 * outputs  # norm and activation, as above
        if name.startswith("mix_") and scale:
            values += 2 * 5 * outputs  # doubled, forward and backward: one read, four written
    parameters = sum(array.size for array in jax.tree.leaves(network))
    adam = 4 * 7 * parameters  # reads gradient, weight and moments, writes the last three: float32
    return Work(flop / 1e9, (value_bytes * values + adam) / 1e9)


def lapsrn_pass(variables: Any, pixels: int) -> float:
    """GFLOP of LapSRN on so many pixels of low resolution; a training step takes 3 times those."""
    total = 0
    for name, part in variables["params"].items():
        doublings = 0 if name == "input" else int(name.split("_")[1]) + name.endswith("detail")
        total += 2 * part["kernel"].size * pixels * 4**doublings
    return total / 1e9
