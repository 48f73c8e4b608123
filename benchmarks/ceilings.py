"""What this machine can do at best: products of matrices, and copying. Measured, not looked up."""

import dataclasses

import jax
import jax.numpy as jnp

from benchmarks import timing


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """The best of several measurements.

    gflop_per_second: of a product of two square matrices.
    gbytes_per_second: of an array that is read, changed and written back, both ways counted.
    """

    gflop_per_second: float
    gbytes_per_second: float

    def of_products(self, gflop_per_second: float) -> dict[str, float]:
        """What a program reaches, and its share of the product's, as rows have them."""
        return {
            "gflop_per_second": gflop_per_second,
            "share_of_product_ceiling": gflop_per_second / self.gflop_per_second,
        }


def measure(precision: str, *, rounds: int = 7) -> Ceilings:
    """Both ceilings, for `float32`, `tf32` or `bfloat16` products; arrays are float32 or bfloat16.

    On a CPU matrices of 2048 and 64 Mi numbers, on a GPU of 8192 and 256 Mi, ten times in a row, so
    that starting them is not counted.
    """
    on_cpu = jax.default_backend() == "cpu"
    side, count, row = (2048, 2**26, 1) if on_cpu else (8192, 2**28, 10)
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    key = jax.random.key(0)
    a = jax.random.normal(key, (side, side), dtype)
    x = jax.random.uniform(key, (count,), dtype)
    with jax.default_matmul_precision("tensorfloat32" if precision == "tf32" else "highest"):
        product, _ = timing.compiled(jax.jit(jnp.matmul), a, a)
    # In place: a fresh output would time the kernel's handing out of pages.
    copy, _ = timing.compiled(jax.jit(lambda x: x + 1, donate_argnums=0), x)
    buffers = [x]

    def copied() -> jax.Array:
        for _ in range(row):
            buffers[0] = copy(buffers[0])
        return buffers[0]

    def multiplied() -> jax.Array:
        for _ in range(row):
            c = product(a, a)
        return c

    programs = {"product": multiplied, "copy": copied}
    times = timing.interleaved(programs, rounds=rounds, units=row)
    best = {name: min(time.seconds) for name, time in times.items()}
    return Ceilings(
        gflop_per_second=2 * side**3 / best["product"] / 1e9,
        gbytes_per_second=2 * count * jnp.dtype(dtype).itemsize / best["copy"] / 1e9,
    )
