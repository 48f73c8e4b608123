"""LapSRN as a benchmark runs it, or a relative: an image's program, and one of training steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks import timing
from jaxsr import training
from jaxsr.models.luma import Network

PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32"}


class Enlargement(NamedTuple):
    """A compiled call of a network, and what it is called with."""

    program: Callable[..., Any]
    variables: Any
    low: Array  # (1, h, w, 1), noise: speed does not depend on it
    compile_seconds: float

    def run(self, calls: int) -> Array:
        """So many images, each finished before the next begins; the last level of the last."""
        for _ in range(calls):
            images = jax.block_until_ready(self.program(self.variables, self.low))
        last: Array = images[-1]
        return last


def enlargement(model: Network, size: tuple[int, int], precision: str = "float32") -> Enlargement:
    """To an image of this size; float32 is exact."""
    key, image_key = jax.random.split(jax.random.key(0))
    height, width = (side // model.factor for side in size)
    low = jax.random.uniform(image_key, (1, height, width, 1))
    with jax.default_matmul_precision(PRODUCTS[precision]):
        variables = jax.jit(model.init)(key, low)
        program, seconds = timing.compiled(jax.jit(model.apply), variables, low)
    return Enlargement(program, variables, low, seconds)


def training_steps(model: Network, config: training.Config) -> Any:
    """A number of steps on the same patches, as one program: state and loss before the last."""

    def steps(state: training.State, images: Array, count: int) -> tuple[training.State, Array]:
        def body(_: Any, carry: tuple[training.State, Array]) -> tuple[training.State, Array]:
            state, metrics = training.step(carry[0], images, model=model, config=config)
            return state, metrics["loss"]

        return lax.fori_loop(0, count, body, (state, jnp.zeros((), images.dtype)))

    return jax.jit(steps, donate_argnums=0)
