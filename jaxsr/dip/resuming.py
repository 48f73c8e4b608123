"""What a fit goes on from: a state and its history, which must be of one fit, and of this one."""

from typing import Any

import jax
import numpy as np
import optax

from jaxsr.dip.config import Config
from jaxsr.dip.solver import State
from jaxsr.errors import InputError

History = dict[str, np.ndarray]


def resumed(
    state: State,
    history: History,
    size: tuple[int, int],
    config: Config,
    optimiser: optax.GradientTransformation,
) -> tuple[State, History]:
    """The shapes of the state, and its history.

    Raises:
      InputError: they are not of one fit, or not of one under these arguments.
    """
    step, lengths = int(state.step), {len(x) for x in history.values()} or {0}
    if lengths != {step}:
        these = ", ".join(map(str, sorted(lengths)))
        rule = f"must be as long as its state has iterations (={step})"
        raise InputError(f"`resume`: the history (of length {these}) {rule}")
    if (state.detection is None) != (config.patience is None):
        has = "no" if state.detection is None else "a"
        rule = f"must fit `patience` (={config.patience})"
        raise InputError(f"`resume`: the state, with {has} detection of the least variance, {rule}")
    if (theirs := state.latent.shape[1:3]) != tuple(size):
        raise InputError(f"`size` (={size}) must be that of the state of `resume` (={theirs})")
    anew: Any = jax.tree.structure(jax.eval_shape(optimiser.init, state.params))
    if anew != jax.tree.structure(state.opt_state):
        raise InputError("`resume`: the state must be of the same `optimiser`: it is of another")
    # Without the arrays' own device, which would make another program of the same.
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state), dict(history)
