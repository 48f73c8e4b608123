"""Deep Image Prior: fit an untrained network to one observation, by functions around one state.

    theta* = argmin E(A f_theta(z); y),   x* = f_theta*(z)

(Ulyanov, Vedaldi and Lempitsky, CVPR 2018), for any network f, any operator A and any elementwise
loss E. The released method's details are kept: Adam, a fixed latent z ~ U(0, 0.1) to which every
iteration adds fresh Gaussian noise. The result is the running average of the outputs, which the
authors' denoising uses, with Adam's bias correction, so that it needs no warm-up.

Arrays are (N, H, W, C), images in [0, 1]; f's image may be larger than what A looks at.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxsr.errors import InputError
from jaxsr.losses import Loss, total_variation
from jaxsr.metrics import psnr
from jaxsr.operators import Operator

Params = Any
History = dict[str, np.ndarray]
Score = Callable[[Array, Array], Mapping[str, Array]]

CHUNK_SECONDS = 2.0
CHUNK_LENGTH = 1024


@dataclasses.dataclass(frozen=True)
class Config:
    """The solver's settings.

    Attributes:
      iterations: in all.
      learning_rate: of Adam (betas 0.9 and 0.999, epsilon 1e-8).
      noise_std: standard deviation of the noise added to the latent in every iteration.
      average: decay of the running average of the outputs, in [0, 1); 0 keeps the last output alone.
      tv_weight: of the output's total variation, added to the loss.
      latent_channels: channels of the latent.
    """

    iterations: int = 2000
    learning_rate: float = 0.01
    noise_std: float = 0.03
    average: float = 0.99
    tv_weight: float = 0.0
    latent_channels: int = 32

    def __post_init__(self) -> None:
        rules = (
            ("iterations", self.iterations >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < float("inf"), "above 0"),
            ("noise_std", 0 <= self.noise_std < float("inf"), "at least 0"),
            ("average", 0 <= self.average < 1, "in [0, 1)"),
            ("tv_weight", 0 <= self.tv_weight < float("inf"), "at least 0"),
            ("latent_channels", self.latent_channels >= 1, "at least 1"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise InputError(f"`{name}` (={getattr(self, name)}) must be {rule}")


class State(NamedTuple):
    """All that a fit is, between two iterations; a checkpoint of it resumes to the same bits."""

    params: Params  # the network's variables
    opt_state: optax.OptState
    latent: Array  # z, (N, H, W, latent_channels)
    key: Array  # of the noise; iteration t uses fold_in(key, t)
    step: Array  # iterations done, ()
    average: Array  # of the outputs, (N, H, W, C)


class Progress(NamedTuple):
    """What `on_chunk` is told, after every chunk of iterations."""

    state: State
    history: History  # from the first iteration to this one
    iterations: int  # in this chunk
    seconds: float  # that they took


class DIPResult(NamedTuple):
    """What a fit gives; images are (N, H, W, C)."""

    image: Array  # the running average of the outputs
    last: Array  # the network's output for the latent without noise
    params: Params
    history: History  # loss, psnr_fit and the scores: arrays of one number an iteration
    finite: bool  # False: the loss or a parameter overflowed; all here is from before that chunk
    state: State
    compile_seconds: float
    iterations: int  # done by this call, not by what it resumed
    seconds: float  # that they took, compilation left out


def rgb_score(image: Array, reference: Array) -> dict[str, Array]:
    """PSNR over all pixels and channels, in dB, peak 1."""
    return {"psnr": psnr(image, reference)}


def init(
    key: Array,
    *,
    init_fn: Callable[[Array, Array], Params],
    apply_fn: Callable[[Params, Array], Array],
    size: tuple[int, int],
    config: Config,
    batch: int = 1,
    dtype: Any = jnp.float32,
) -> State:
    """The state before the first iteration.

    Args:
      key: consumed.
      init_fn: (key, latent) -> params, such as a Flax module's `init`.
      apply_fn: (params, latent) -> images, such as a Flax module's `apply`.
      size: height and width of the latent, hence of the images.
      config: the solver's settings.
      batch: images fitted by the one network.
      dtype: of the latent, float32 or float64.
    """
    params_key, latent_key, noise_key = jax.random.split(key, 3)
    shape = (batch, *size, config.latent_channels)
    latent = jax.random.uniform(latent_key, shape, dtype, maxval=0.1)
    params = init_fn(params_key, latent)
    image = jax.eval_shape(apply_fn, params, latent)
    return State(
        params=params,
        opt_state=_optimiser(config).init(params),
        latent=latent,
        key=noise_key,
        step=jnp.zeros((), jnp.int32),
        average=jnp.zeros(image.shape, image.dtype),
    )


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate)


def step(
    state: State,
    observation: Array,
    reference: Array | None = None,
    *,
    apply_fn: Callable[[Params, Array], Array],
    operator: Operator,
    loss: Loss,
    config: Config,
    score: Score = rgb_score,
) -> tuple[State, dict[str, Array]]:
    """One iteration.

    Args:
      state: as `init` or `step` returned it.
      observation: y, what the operator made of the unknown image.
      reference: the true image, if known; reported on, never used.
      apply_fn: the network.
      operator: A, images -> observations.
      loss: E, elementwise.
      config: the solver's settings.
      score: (image, reference) -> named scalars.

    Returns:
      The next state, and of this iteration: `loss`, `psnr_fit` (dB, of A x against y) and, with a
      reference, each score of the running average and, as `<name>_output`, of the output itself.
    """
    noise = jax.random.normal(
        jax.random.fold_in(state.key, state.step), state.latent.shape, state.latent.dtype
    )
    # The barrier keeps the compiler from drawing the noise again for each of the latent's readers.
    latent = lax.optimization_barrier(state.latent + config.noise_std * noise)

    def objective(params: Params) -> tuple[Array, tuple[Array, Array]]:
        image = apply_fn(params, latent)
        seen = operator(image)
        value = loss(seen, observation).mean()
        if config.tv_weight:
            value = value + config.tv_weight * total_variation(image)
        return value, (image, seen)

    (value, (image, seen)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = _optimiser(config).update(gradient, state.opt_state, state.params)
    count = (state.step + 1).astype(image.dtype)
    weight = (1 - config.average) / (1 - config.average**count)
    average = state.average + weight * (image - state.average)
    record = {"loss": value, "psnr_fit": psnr(seen, observation)}
    if reference is not None:
        record |= score(average, reference)
        record |= {f"{name}_output": x for name, x in score(image, reference).items()}
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state, state.latent, state.key, state.step + 1, average), record


def _run(
    state: State,
    observation: Array,
    reference: Array | None,
    iterations: int | Array,
    *,
    length: int,
    loop_fn: Callable = lax.fori_loop,
    **functions: Any,
) -> tuple[State, dict[str, Array]]:
    one = functools.partial(step, **functions)
    record = jax.eval_shape(one, state, observation, reference)[1]
    history = {name: jnp.full((length, *x.shape), jnp.nan, x.dtype) for name, x in record.items()}

    def body(i: Array, carry: tuple[State, dict[str, Array]]) -> tuple[State, dict[str, Array]]:
        state, history = carry
        state, record = one(state, observation, reference)
        return state, {name: column.at[i].set(record[name]) for name, column in history.items()}

    return loop_fn(0, iterations, body, (state, history))


_STATIC = ("length", "loop_fn", "apply_fn", "operator", "loss", "config", "score")
_run_counted = jax.jit(_run, static_argnames=("iterations", *_STATIC), donate_argnames="state")
_run_chunk = jax.jit(_run, static_argnames=_STATIC, donate_argnames="state")


def run(
    state: State,
    observation: Array,
    reference: Array | None = None,
    *,
    iterations: int,
    apply_fn: Callable[[Params, Array], Array],
    operator: Operator,
    loss: Loss,
    config: Config,
    score: Score = rgb_score,
    loop_fn: Callable = lax.fori_loop,
) -> tuple[State, dict[str, Array]]:
    """`iterations` times `step`, as one compiled program. The state is donated: do not use it again.

    Args:
      iterations: static; `config.iterations` is not looked at.
      loop_fn: called as `lax.fori_loop` is.

    The other arguments are those of `step`.

    Returns:
      The last state, and `step`'s records as arrays of length `iterations`.
    """
    return _run_counted(
        state,
        observation,
        reference,
        iterations,
        length=iterations,
        loop_fn=loop_fn,
        apply_fn=apply_fn,
        operator=operator,
        loss=loss,
        config=config,
        score=score,
    )


def fit(
    key: Array,
    observation: Array,
    operator: Operator,
    *,
    init_fn: Callable[[Array, Array], Params],
    apply_fn: Callable[[Params, Array], Array],
    size: tuple[int, int],
    loss: Loss,
    config: Config,
    reference: Array | None = None,
    score: Score = rgb_score,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    pauses: Iterable[int] = (),
    resume: tuple[State, History] | None = None,
) -> DIPResult:
    """Fit a network to an observation in chunks of about two seconds.

    Args:
      key: consumed.
      observation: y, (N, h, w, C).
      operator: A, (N, H, W, C) -> (N, h, w, C).
      init_fn: (key, latent) -> params, such as a Flax module's `init`.
      apply_fn: (params, latent) -> images (N, H, W, C), such as a Flax module's `apply`.
      size: (H, W).
      loss: elementwise.
      config: the solver's settings.
      reference: the true image, if known; reported on, never used.
      score: (image, reference) -> named scalars for the history.
      on_chunk: called between chunks; a true answer ends the fit there.
      pauses: iterations after which a chunk ends, so that `on_chunk` sees their states.
      resume: state and history of an earlier fit under the same arguments, to go on from;
        `config.iterations` may have grown.
    """
    if resume is None:
        start = functools.partial(
            init,
            init_fn=init_fn,
            apply_fn=apply_fn,
            size=size,
            config=config,
            batch=observation.shape[0],
            dtype=observation.dtype,
        )
        state = jax.jit(start)(key)
        history: History = {}
    else:
        state, history = jax.tree.map(jnp.copy, resume[0]), dict(resume[1])
    first = done = int(state.step)
    stops = sorted({*pauses, config.iterations})

    start = time.perf_counter()
    chunk = _run_chunk.lower(
        state,
        observation,
        reference,
        0,
        length=CHUNK_LENGTH,
        apply_fn=apply_fn,
        operator=operator,
        loss=loss,
        config=dataclasses.replace(config, iterations=1),
        score=score,
    ).compile()
    compile_seconds, seconds = time.perf_counter() - start, 0.0

    count, finite = 1, True
    while done < config.iterations and finite:
        count = min(count, CHUNK_LENGTH, next(s for s in stops if s > done) - done)
        start, kept = time.perf_counter(), jax.tree.map(jnp.copy, state)
        state, records = jax.block_until_ready(chunk(state, observation, reference, count))
        elapsed = time.perf_counter() - start
        records = {name: np.asarray(column[:count]) for name, column in records.items()}
        finite = bool(np.all(np.isfinite(records["loss"]))) and _all_finite(state.params)
        if not finite:
            state = kept
            break
        history = {n: np.concatenate([history.get(n, x[:0]), x]) for n, x in records.items()}
        done, seconds = done + count, seconds + elapsed
        if on_chunk and on_chunk(Progress(state, history, count, elapsed)):
            break
        count = max(1, int(count * min(10.0, CHUNK_SECONDS / elapsed)))

    last = jax.jit(apply_fn)(state.params, state.latent)
    return DIPResult(
        image=state.average,
        last=last,
        params=state.params,
        history=history,
        finite=finite,
        state=state,
        compile_seconds=compile_seconds,
        iterations=done - first,
        seconds=seconds,
    )


@jax.jit
def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
