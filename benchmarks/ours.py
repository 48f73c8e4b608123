"""Deep Image Prior in jaxsr, to be measured: one random image under the released operator."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import machine, timing
from jaxsr import dip, losses, operators
from jaxsr.dip import solver
from jaxsr.models import SkipUNet

FACTOR = 4
KERNEL: operators.Kernel = "lanczos2"  # the released code's


class Compiled(NamedTuple):
    """A program and what it costs.

    seconds: of compiling it.
    nbytes: of memory that it needs, as the compiler counts, without workspaces of a GPU's library.
    """

    call: Callable[[], jax.Array]
    seconds: float
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Fit:
    """One size's problem, ready to run in JAX."""

    apply_fn: Callable[..., Any]
    operator: operators.Operator
    loss: losses.Loss
    state: dip.State
    target: jax.Array  # (1, H / FACTOR, W / FACTOR, 3), noise: speed does not depend on it

    def forward_loss(self) -> float:
        """The loss at the latent without noise."""

        @jax.jit
        def forward(params: Any, latent: jax.Array) -> jax.Array:
            return self.loss(self.operator(self.apply_fn(params, latent)), self.target).mean()

        return float(forward(self.state.params, self.state.latent))

    def compiled(self, iterations: int, *, fits: int = 1) -> Compiled:
        """A fit's program, each call of which goes on from the last.

        As in `dip.fit` the number of iterations is an argument: were it part of the program, a GPU
        would not have to ask after each whether there is another. Several fits at once are one
        program under `vmap`, from as many keys of the noise.
        """
        chunk, state = self._chunk(iterations), jax.tree.map(jnp.copy, self.state)
        if fits > 1:
            chunk = jax.vmap(chunk, (0, None, None, None))
            state = jax.tree.map(lambda x: jnp.stack([x] * fits), state)
            state = state._replace(key=jax.random.split(self.state.key, fits))
        program, seconds = self._compiled(chunk, state, iterations)
        return Compiled(
            self._calls(program, state, iterations), seconds, machine.program_bytes(program)
        )

    def each(self, iterations: int, keys: jax.Array) -> list[Callable[[], jax.Array]]:
        """As `compiled`, one call a key of the noise, from one program on the device of the fit."""
        program, _ = self._compiled(self._chunk(iterations), self.state, iterations)
        (device,) = self.target.devices()
        states = [self.state._replace(key=jax.device_put(key, device)) for key in keys]
        return [self._calls(program, jax.tree.map(jnp.copy, x), iterations) for x in states]

    def on(self, device: jax.Device) -> "Fit":
        """The same fit, there."""
        state, target = jax.device_put((self.state, self.target), device)
        return dataclasses.replace(self, state=state, target=target)

    def _chunk(self, length: int) -> Callable[..., Any]:
        return functools.partial(
            solver.loop,
            length=length,
            apply_fn=self.apply_fn,
            operator=self.operator,
            loss=self.loss,
            config=dip.Config(),
        )

    def _compiled(
        self, chunk: Callable[..., Any], state: dip.State, iterations: int
    ) -> tuple[Any, float]:
        program = jax.jit(chunk, donate_argnums=0)
        return timing.compiled(program, state, self.target, None, iterations)

    def _calls(
        self, program: Callable[..., Any], state: dip.State, iterations: int
    ) -> Callable[[], jax.Array]:
        def forward() -> jax.Array:
            nonlocal state
            state, history = program(state, self.target, None, iterations)
            loss: jax.Array = history["loss"]
            return loss

        return forward


def fit_of(size: tuple[int, int], *, model: SkipUNet, loss: str, params: Any = None) -> Fit:
    """The fit of one random image of `size`; `params` stand in for the model's own start."""
    apply_fn: Callable[..., Any] = model.apply
    key, target_key = jax.random.split(jax.random.key(0))
    start = functools.partial(
        dip.init,
        init_fn=model.init if params is None else lambda *_: jax.tree.map(jnp.array, params),
        apply_fn=apply_fn,
        size=size,
        config=dip.Config(),
    )
    state = jax.jit(start)(key)  # else some hundred programs of one operation each
    target = jax.random.uniform(target_key, (1, size[0] // FACTOR, size[1] // FACTOR, 3))
    operator = operators.downsample(FACTOR, kernel=KERNEL)
    return Fit(apply_fn, operator, losses.LOSSES[loss], state, target)
