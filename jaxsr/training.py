"""Training of networks for luma: one state, a pure step, and the PSNR on whole images.

The optimiser is Adam with weight decay as an L2 term (added to the gradient before Adam, as in
PyTorch), and a learning rate that is halved in steps (Indulkar and Upadhyay, section 3.2).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import NamedSharding

from jaxsr import losses, operators
from jaxsr.datasets import patches
from jaxsr.errors import InputError, as_float, require_floats, require_functions, require_integers
from jaxsr.metrics import psnr
from jaxsr.models.luma import Network

MOST_STEPS = 2**31  # below which they are counted

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """How to train; the defaults are recipe `paper`, for 4x.

    Attributes:
      level_weights: of each level's loss, coarse to fine.
      batch: patches in a step.
      parts: in which a batch's gradient is computed, one after another and summed: less memory and,
        where memory is slow, less time.
      size: of a patch, in pixels a side.
      learning_rate: of Adam, at the start.
      halve_every: steps after which it is halved, again and again; below MOST_STEPS.
      weight_decay: of all parameters, as an L2 term.

    Raises:
      InputError: a number is out of its range.
    """

    level_weights: tuple[float, ...] = (1.0, 1.0)
    batch: int = 16
    parts: int = 1
    size: int = 128
    learning_rate: float = 1e-3
    halve_every: int = 300
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        try:
            weights = tuple(map(float, self.level_weights))
        except (TypeError, ValueError):
            raise InputError(f"`level_weights` (={self.level_weights!r}) must be numbers") from None
        object.__setattr__(self, "level_weights", weights)
        require_integers(batch=self.batch, parts=self.parts)
        require_integers(size=self.size, halve_every=self.halve_every)
        for name in ("learning_rate", "weight_decay"):
            object.__setattr__(self, name, as_float(name, getattr(self, name)))
        decay = self.weight_decay
        if not 0 <= decay < float("inf"):
            raise InputError(f"`weight_decay` (={decay}) must be at least 0, and finite")
        if self.halve_every >= MOST_STEPS:
            raise InputError(f"`halve_every` (={self.halve_every}) must be below {MOST_STEPS}")
        if self.batch % self.parts:
            raise InputError(f"`parts` (={self.parts}) must divide the batch (={self.batch})")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"`learning_rate` (={self.learning_rate}) must be above 0, and finite")
        if not weights or not all(0 <= w < float("inf") for w in weights) or not any(weights):
            raise InputError(f"`level_weights` (={weights}) must be finite, at least 0, one above")


class State(NamedTuple):
    """All that training goes on from; a pytree.

    Attributes:
      variables: of the network, {"params": ...}.
      opt_state: of the optimiser.
      key: what all patches are drawn from, together with `step`.
      step: () int32, how many were taken.
    """

    variables: Any
    opt_state: optax.OptState
    key: Array
    step: Array


def schedule(config: Config) -> optax.Schedule:
    """The learning rate by step: learning_rate / 2^floor(step / halve_every)."""
    # In integers: XLA takes a quotient of floats for a product, which may be late by a step.
    return lambda step: jnp.ldexp(jnp.asarray(config.learning_rate), -(step // config.halve_every))


def optimiser(config: Config) -> optax.GradientTransformation:
    """Adam (beta 0.9 and 0.999, epsilon 1e-8) after the L2 term."""
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.adam(schedule(config)))


def init(key: Array, *, model: Network, config: Config, dtype: Any = jnp.float32) -> State:
    """A new network before its first step. Key consumed.

    Raises:
      InputError: the patches are no multiple of the network's factor, or the weights not one a
        level.
    """
    if config.size % model.factor:
        raise InputError(f"`size` (={config.size}) must be a multiple of the factor {model.factor}")
    if len(config.level_weights) != (levels := len(model.enlargements)):
        given = config.level_weights
        raise InputError(f"`level_weights` (={given}) must be {levels} numbers, one a level")
    init_key, data_key = jax.random.split(key)
    side = config.size // model.factor
    variables = jax.jit(model.init)(init_key, jnp.zeros((1, side, side, 1), dtype))
    return State(variables, optimiser(config).init(variables), data_key, jnp.int32(0))


def image_pyramid(images: Array, *, model: Network) -> tuple[Array, list[Array]]:
    """What the network gets and what its levels should answer, by MATLAB's bicubic.

    (N, H, W, 1) to (N, H / factor, W / factor, 1) and one image for each of the levels.
    """

    def shrink(factor: int) -> Array:
        if factor == 1:
            return images
        return operators.downsample(factor, kernel="matlab-bicubic")(images)

    return shrink(model.factor), [shrink(model.factor // e) for e in model.enlargements]


def step(
    state: State,
    images: Array,
    *,
    model: Network,
    config: Config,
    loss: losses.Loss = losses.charbonnier,
    sharding: NamedSharding | None = None,
) -> tuple[State, Metrics]:
    """One step on high-resolution luma patches (batch, size, size, 1).

    Args:
      state: before the step.
      images: the patches, in [0, 1]; of any float type, computed in that of the parameters.
      model, config: of the training.
      loss: elementwise.
      sharding: how each part of the batch, of the images' rank, lies on a `Mesh` (automatic axes).

    Returns:
      the next state, and `loss`, the weighted sum before the step.

    Raises:
      InputError: the patches hold no floats, or are not so many that `parts` divides them; or
        `loss` is no function.
    """

    def objective(variables: Any, images: Array) -> Array:
        low, targets = image_pyramid(images, model=model)
        predictions: Any = model.apply(variables, low)
        return losses.pyramid(predictions, targets, weights=config.level_weights, loss=loss)

    def add(total: tuple[Array, Any], part: Array) -> tuple[tuple[Array, Any], None]:
        if sharding is not None:
            part = lax.with_sharding_constraint(part, sharding)
        found = jax.value_and_grad(objective)(state.variables, part)
        return jax.tree.map(lambda sum_, x: sum_ + x / config.parts, total, found), None

    require_functions(loss=loss)
    require_floats("the patches", images.dtype, within=" in [0, 1]")
    if len(images) % config.parts:
        raise InputError(f"`parts` (={config.parts}) must divide the {len(images)} patches")
    images = jnp.asarray(images, _dtype(state.variables))
    parts = images.reshape(config.parts, -1, *images.shape[1:])
    zero = jax.tree.map(jnp.zeros_like, (images[0, 0, 0, 0], state.variables))
    (value, gradient), _ = lax.scan(add, zero, parts)
    updates, opt_state = optimiser(config).update(gradient, state.opt_state, state.variables)
    variables = optax.apply_updates(state.variables, updates)
    return State(variables, opt_state, state.key, state.step + 1), {"loss": value}


@functools.partial(
    jax.jit,
    static_argnames=("length", "model", "config", "loss", "sharding"),
    donate_argnames="state",
)
def run(
    state: State,
    bank: patches.Bank,
    steps: int | Array,
    *,
    length: int,
    model: Network,
    config: Config,
    loss: losses.Loss = losses.charbonnier,
    sharding: NamedSharding | None = None,
) -> tuple[State, Metrics]:
    """`steps` times `step` on fresh patches of the bank; the state is donated.

    One compiled program does any number of them up to `length`.

    Returns:
      the last state, and `step`'s metrics as arrays of `length`, 0 after `steps`.
    """
    dtype = _dtype(state.variables)
    settings: dict[str, Any] = {"model": model, "config": config, "loss": loss}

    def body(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, history = carry
        key = jax.random.fold_in(state.key, state.step)
        images = patches.sample(key, bank, batch=config.batch, size=config.size, dtype=dtype)
        state, metrics = step(state, images, sharding=sharding, **settings)
        return state, {name: column.at[i].set(metrics[name]) for name, column in history.items()}

    history = {"loss": jnp.zeros(length, dtype)}
    return lax.fori_loop(0, steps, body, (state, history))


def _dtype(variables: Any) -> Any:
    return jax.tree.leaves(variables)[0].dtype


@functools.partial(jax.jit, static_argnames="model")
def eval_step(variables: Any, images: Array, *, model: Network) -> Array:
    """PSNR (dB) of each of some luma images (N, H, W, 1), restored from their low resolution.

    Sides are multiples of the factor, at least three times it. Luma is not rounded; results are
    clipped to [0, 1]; `factor` pixels a side are left out.
    """

    def one(image: Array) -> Array:
        low, _ = image_pyramid(image[None], model=model)
        predictions: Any = model.apply(variables, low)
        return psnr(jnp.clip(predictions[-1], 0, 1), image[None], shave=model.factor)

    return lax.map(one, images)


def mean_psnr(variables: Any, stacks: Sequence[Array | np.ndarray], *, model: Network) -> float:
    """The mean of `eval_step` (dB) over the images, at least one, of stacks of one size each."""
    variables = jax.device_put(variables)
    found = [eval_step(variables, jnp.asarray(stack), model=model) for stack in stacks]
    return float(jnp.concatenate(found).mean())
