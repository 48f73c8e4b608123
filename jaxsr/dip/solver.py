"""The solver: one iteration of Deep Image Prior, and a compiled loop of them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxsr.dip import stopping
from jaxsr.dip.config import Config, require_config
from jaxsr.dip.optimiser import adam, require_optimiser
from jaxsr.dip.stopping import Detection
from jaxsr.errors import (
    InputError,
    require_array,
    require_functions,
    require_integers,
    require_number,
    require_size,
)
from jaxsr.losses import Loss
from jaxsr.metrics import psnr
from jaxsr.operators import Operator

Params = Any
Score = Callable[[Array, Array], Mapping[str, Array]]
Regulariser = Callable[[Array], Array]


# A fixed decay would carry the first, poor outputs along (Shamir and Zhang, ICML 2013).
POLYNOMIAL = 20


class State(NamedTuple):
    """All that a fit is, between two iterations; a checkpoint of it resumes to the same bits.

    (On a GPU only as far as its kernels are deterministic, and chosen alike in both processes.)

    Resuming from a state inside a window that `fit` later repeats gives other bits: save at its
    `pauses`.
    """

    params: Params  # the network's variables
    opt_state: optax.OptState
    latent: Array  # z, (N, H, W, latent_channels)
    key: Array  # of the noise; iteration t uses fold_in(key, t)
    step: Array  # iterations done, ()
    average: Array  # of the outputs, (N, H, W, C)
    detection: Detection | None = None  # of the least variance, where it is asked for


def rgb_score(image: Array, reference: Array) -> dict[str, Array]:
    """PSNR over all pixels and channels, in dB, peak 1."""
    return {"psnr": psnr(image, reference)}


def init(
    key: Array,
    *,
    init_fn: Callable[..., Any],
    apply_fn: Callable[..., Any],
    size: tuple[int, int],
    config: Config,
    batch: int = 1,
    dtype: Any = jnp.float32,
    optimiser: optax.GradientTransformation | None = None,
) -> State:
    """The state before the first iteration.

    Args:
      key: consumed.
      init_fn: (key, latent) -> params, such as a Flax module's `init`.
      apply_fn: (params, latent) -> images, such as a Flax module's `apply`.
      size: height and width of the latent, hence of the images.
      config: the solver's settings.
      batch: images fitted by the one network.
      dtype: of the latent, a float type; `fit` passes the observation's.
      optimiser: as in `step`.

    Raises:
      InputError: `size` is not two integers of at least 1, or `batch` one; a function, config or
        optimiser is none; or the network does not give one array.
    """
    require_size(size)
    require_integers(batch=batch)
    require_config(config)
    require_functions(init_fn=init_fn, apply_fn=apply_fn)
    require_optimiser(optimiser)
    params_key, latent_key, noise_key = jax.random.split(key, 3)
    shape = (batch, *size, config.latent_channels)
    latent = jax.random.uniform(latent_key, shape, dtype, maxval=0.1)
    params = init_fn(params_key, latent)
    image: Any = jax.eval_shape(apply_fn, params, latent)
    if not isinstance(image, jax.ShapeDtypeStruct):
        raise InputError("`apply_fn` must give one array, of images (N, H, W, C)")
    wide = jnp.promote_types(image.dtype, jnp.float32)  # a mean in bfloat16 would stand still
    return State(
        params=params,
        opt_state=(optimiser or adam(config)).init(params),
        latent=latent,
        key=noise_key,
        step=jnp.zeros((), jnp.int32),
        average=jnp.zeros(image.shape, wide),
        detection=stopping.start(image.shape, wide) if config.patience else None,
    )


def step(
    state: State,
    observation: Array,
    reference: Array | None = None,
    *,
    apply_fn: Callable[..., Any],
    operator: Operator,
    loss: Loss,
    config: Config,
    regulariser: Regulariser | None = None,
    score: Score = rgb_score,
    optimiser: optax.GradientTransformation | None = None,
) -> tuple[State, dict[str, Array]]:
    """One iteration.

    Args:
      state: as `init` or `step` returned it.
      observation: y, what the operator made of the unknown image.
      reference: the true image, if known; reported on, never used.
      apply_fn: the network.
      operator: A, images -> observations.
      loss: E, (A x, y) -> array, of which the mean counts: elementwise, or a single number (a
        spectral or perceptual loss, say).
      config: the solver's settings.
      regulariser: R, images -> a number, added to the loss.
      score: (image, reference) -> named scalars; of `loss`, `psnr_fit` and `variance` the solver's
        own stand.
      optimiser: in the place of `adam(config)`, the one that `init` was given. Line searches and
        others of optax that ask for the loss's value or function are given them.

    Returns:
      The next state, and of this iteration: `loss`, `psnr_fit` (dB, of A x against y); with a
      detection, `variance`; with a reference, each score of the running average and, as
      `<name>_output`, of the output itself.
    """
    noise = jax.random.normal(
        jax.random.fold_in(state.key, state.step), state.latent.shape, state.latent.dtype
    )
    latent = state.latent + config.noise_std * noise

    def objective(params: Params) -> tuple[Array, tuple[Array, Array]]:
        image = apply_fn(params, latent)
        seen = operator(image)
        value = require_array("`loss`", loss(seen, observation)).mean()
        if regulariser is not None:
            value = value + require_number("`regulariser`", regulariser(image))
        return value, (image, seen)

    (value, (image, seen)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    update = optax.with_extra_args_support(optimiser or adam(config)).update
    extra = {"value": value, "grad": gradient, "value_fn": lambda params: objective(params)[0]}
    updates, opt_state = update(gradient, state.opt_state, state.params, **extra)
    count = (state.step + 1).astype(state.average.dtype)
    weight = jnp.maximum(1 - config.average, POLYNOMIAL / (count + POLYNOMIAL - 1))
    average = state.average + weight * (image - state.average)
    record: dict[str, Array] = {}
    if reference is not None:
        scores = score(average, reference)
        if not isinstance(scores, Mapping):
            raise InputError(f"`score` must give numbers by their names (it gives {scores})")
        record |= scores
        record |= {f"{name}_output": x for name, x in score(image, reference).items()}
    record |= {"loss": value, "psnr_fit": psnr(seen, observation)}
    detection = state.detection
    if detection is not None:
        detection = stopping.update(detection, image, average, state.step + 1)
        record["variance"] = stopping.bias_corrected(detection.variance, state.step + 1)
    params = optax.apply_updates(state.params, updates)
    after = State(params, opt_state, state.latent, state.key, state.step + 1, average, detection)
    return after, record


def loop(
    state: State,
    observation: Array,
    reference: Array | None,
    iterations: int | Array,
    *,
    length: int,
    loop_fn: Callable = lax.fori_loop,
    **functions: Any,
) -> tuple[State, dict[str, Array]]:
    """`iterations` times `step`, to be jitted; the records are of `length`, 0 where not reached.

    `loop_fn` is called as `lax.fori_loop` is, `functions` are `step`'s.
    """
    # Under jit the step is traced once, for its records and for the loop's body.
    one: Callable[..., tuple[State, dict[str, Array]]]
    one = jax.jit(functools.partial(step, **functions), inline=True)
    record = jax.eval_shape(one, state, observation, reference)[1]
    history = {name: jnp.zeros((length, *x.shape), x.dtype) for name, x in record.items()}

    def body(i: Array, carry: tuple[State, dict[str, Array]]) -> tuple[State, dict[str, Array]]:
        state, history = carry
        state, record = one(state, observation, reference)
        return state, {name: column.at[i].set(record[name]) for name, column in history.items()}

    return loop_fn(0, iterations, body, (state, history))


_FUNCTIONS = ("apply_fn", "operator", "loss", "config", "regulariser", "score", "optimiser")
_STATIC = ("iterations", "length", "loop_fn", *_FUNCTIONS)
_run_counted = jax.jit(loop, static_argnames=_STATIC, donate_argnames="state")


def run(
    state: State,
    observation: Array,
    reference: Array | None = None,
    *,
    iterations: int,
    apply_fn: Callable[..., Any],
    operator: Operator,
    loss: Loss,
    config: Config,
    regulariser: Regulariser | None = None,
    score: Score = rgb_score,
    optimiser: optax.GradientTransformation | None = None,
    loop_fn: Callable = lax.fori_loop,
) -> tuple[State, dict[str, Array]]:
    """`iterations` times `step`, as one compiled program. The state is donated: it is used up.

    Args:
      iterations: static; `config.iterations` is not looked at.
      operator: each has a program of its own, kept until `jax.clear_caches()` (`fit` keeps few).
      loop_fn: in the place of `lax.fori_loop`. The others are those of `step`.

    Returns:
      The last state, and `step`'s records as arrays of length `iterations`.

    Raises:
      InputError: `iterations` is no integer from 1.
    """
    require_integers(iterations=iterations)
    options = {"length": iterations, "loop_fn": loop_fn, "config": config, "optimiser": optimiser}
    options |= {"apply_fn": apply_fn, "operator": operator, "loss": loss, "score": score}
    options |= {"regulariser": regulariser}
    return _run_counted(state, observation, reference, iterations, **options)
