"""A whole fit: chunks of compiled iterations, and between them what a person needs."""

import concurrent.futures
import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxsr import chunks, tracing
from jaxsr.dip import programs
from jaxsr.dip.config import Config, require_config
from jaxsr.dip.optimiser import adam, require_optimiser
from jaxsr.dip.resuming import History, resumed
from jaxsr.dip.solver import Params, Regulariser, Score, State, rgb_score
from jaxsr.errors import InputError, require_finite, require_floats, require_functions, require_size
from jaxsr.losses import Loss
from jaxsr.operators import Operator, require_observation

WINDOW = 100  # iterations
FALL = 5.0  # dB
ROLLBACKS = 3  # in one window
_NO_ITERATION = 2**32 - 1  # which `step` never folds into a key


class Progress(NamedTuple):
    """What `on_chunk` is told. The next chunk uses up the state's arrays: keep copies."""

    state: State
    history: History  # from the first iteration to this one
    iterations: int  # in this chunk
    seconds: float  # that they took
    rollbacks: int  # so far


class DIPResult(NamedTuple):
    """What a fit gives; images are (N, H, W, C)."""

    image: Array  # the running average of the outputs; with `patience` at their least variance
    last: Array  # the network's output for the latent without noise
    params: Params
    history: History  # loss, psnr_fit and the scores: arrays of one number an iteration
    finite: bool  # False: the loss or a parameter overflowed; all here is from before that window
    state: State  # of which `image` and `params` are: `run` would use them up, `resume` does not
    compile_seconds: float  # until the first iteration: tracing, compiling, the initial state
    iterations: int  # done by this call, not by what it resumed
    seconds: float  # that they took, compilation and what was rolled back left out
    rollbacks: int  # in this call
    over: bool = True  # all iterations done, or `patience` spent; False: stopped, or overflowed


def fit(
    key: Array,
    observation: ArrayLike,
    operator: Operator,
    *,
    init_fn: Callable[..., Any],
    apply_fn: Callable[..., Any],
    size: tuple[int, int],
    loss: Loss,
    config: Config,
    regulariser: Regulariser | None = None,
    reference: ArrayLike | None = None,
    score: Score = rgb_score,
    optimiser: optax.GradientTransformation | None = None,
    on_chunk: Callable[[Progress], bool | None] | None = None,
    pauses: Iterable[int] = (),
    resume: tuple[State, History] | None = None,
    traces: str | os.PathLike[str] | None = None,
) -> DIPResult:
    """Fit a network to an observation, in chunks of compiled iterations (`jaxsr.chunks`).

    Adam may throw a fit off. So it is rolled back: where its PSNR against the observation has
    fallen by over 5 dB from the start of a window to its end, the window is done again with fresh
    noise, at most 3 times (the released denoising has the rule). Windows end after every 100
    iterations, at the `pauses`, and at the end, also where `patience` is it. The first, at whose
    start there is nothing to fall from, stays.

    Not under `jit`, `vmap`, `grad` or `jax.disable_jit`: there, `init` and `run`.

    Args:
      key: consumed; with `resume` not looked at: the state holds its own.
      observation: y, (N, h, w, C), of a float type.
      operator: A, (N, H, W, C) -> (N, h, w, C); like the other functions hashable, since it is a
        static argument of `jax.jit`. A number that it reads from outside is that of its first fit.
      init_fn: (key, latent) -> params, such as a Flax module's `init`.
      apply_fn: (params, latent) -> images (N, H, W, C), such as a Flax module's `apply`.
      size: (H, W).
      loss, config, regulariser, score: as in `step`.
      reference: the true image, if known; reported on, never used.
      optimiser: in the place of Adam at `config.learning_rate`; make it once, since another object
        is another program.
      on_chunk: called between chunks, which end by the clock and at `pauses`; a true answer ends
        the fit there.
      pauses: iterations after which a chunk ends, so that `on_chunk` sees their states.
      resume: state and history of an earlier fit under the same arguments, to go on from;
        `config.iterations` and `config.patience` may have grown. Or, to begin from a latent or
        parameters of your own, `init`'s state with them, and {}.
      traces: a folder of these functions alone (and what they hold), where the programs are kept as
        traced: the next process starts seconds sooner. `jaxsr.tracing` compares all else, this
        package's code among it. Nothing is kept where `jax.export` has no name for the optimiser's
        state: all but a few of optax's have one.

    Raises:
      InputError: the observation is not (N, h, w, C), holds no floats or some that are not finite
        (nor may the reference), or is not of the shape that the operator gives; `size` is not two
        integers of at least 1, a pause no integer from 1; a function, config or optimiser is none,
        or a function cannot be hashed; state, history and arguments are not of one fit; or key,
        observation or reference is traced.
    """
    given = jax.tree.leaves((key, observation, reference))
    if any(isinstance(x, jax.core.Tracer) for x in given):
        raise InputError("`fit` runs outside of `jit`, `vmap` and `grad`: there, `init` and `run`")
    functions: dict[str, Any] = {"apply_fn": apply_fn, "operator": operator, "loss": loss}
    functions |= {"score": score, "init_fn": init_fn}
    functions |= {} if regulariser is None else {"regulariser": regulariser}
    require_functions(hashable=True, **functions)
    if on_chunk is not None:
        require_functions(on_chunk=on_chunk)
    require_optimiser(optimiser)
    require_config(config)
    require_size(size)
    stops = chunks.ends(config.iterations, every=WINDOW, pauses=pauses)
    observation = jnp.asarray(observation)
    reference = None if reference is None else jnp.asarray(reference)
    if observation.ndim != 4:
        raise InputError(f"the observation (of shape {observation.shape}) must be (N, h, w, C)")
    require_floats("the observation", observation.dtype)
    if reference is not None:
        require_finite("the reference", reference)
    # The total is no part of the program: without it, a fit that grows finds it in the cache.
    program_config = dataclasses.replace(config, iterations=1, patience=None)
    options, began = programs.unoptimised(key, observation), time.perf_counter()
    if resume is None:
        settings = {
            "size": tuple(size),
            "config": dataclasses.replace(program_config, patience=1 if config.patience else None),
            "batch": observation.shape[0],
            "dtype": str(observation.dtype),
        }
        own = {"init_fn": init_fn, "apply_fn": apply_fn, "optimiser": optimiser}
        fresh = programs.initial(options, **own, **settings)
        known: Any = ("init", settings)
        traced = tracing.trace(
            fresh, key, folder=traces, known=known, compiler_options=dict(options)
        )
        shapes, history = traced.out_info, History()
    else:
        shapes, history = resumed(*resume, size, config, optimiser or adam(config))
    require_observation(observation, operator, shapes.average)
    functions = {"apply_fn": apply_fn, "operator": operator, "loss": loss, "score": score}
    functions |= {"regulariser": regulariser, "optimiser": optimiser}
    functions |= {"config": program_config, "length": chunks.LENGTH}
    program = programs.iterations(shape=shapes.latent.shape, **functions)
    known = ("run", program_config, chunks.LENGTH, regulariser is None, optimiser is None)
    inputs = (shapes, observation, reference, 0)
    run = tracing.trace(program, *inputs, folder=traces, known=known, donate_argnums=(0,))
    columns = sorted(run.out_info[1])
    if history and sorted(history) != columns:
        these = ", ".join(sorted(history))
        raise InputError(f"`resume`: the history (of {these}) must be of {', '.join(columns)}")
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled = beside.submit(run.lower().compile)
        # Compiled beside the loop, and hardly optimised: it runs once.
        state = _copy(resume[0]) if resume else traced.lower().compile()(key)
        chunk = compiled.result()
    base = _copy(state := jax.device_put(state, chunk.input_shardings[0][0]))
    compile_seconds, seconds = time.perf_counter() - began, 0.0
    first = done = int(state.step)
    count, finite, rollbacks, repeats = 1, True, 0, 0
    opened, before = done, seconds  # the window's start, of which `base` is the state
    while done < (end := _end(state, config)):
        count = min(count, next(s for s in stops if s > done) - done, end - done)
        began = time.perf_counter()
        state, records = jax.block_until_ready(chunk(state, observation, reference, count))
        elapsed = time.perf_counter() - began
        records = {name: np.asarray(column)[:count] for name, column in records.items()}
        finite = bool(np.isfinite(records["loss"]).all()) and _all_finite(state.params)
        if not finite:
            state, done, seconds = base, opened, before
            history = _until(records | history, opened)
            break
        history = {n: np.concatenate([history.get(n, x[:0]), x]) for n, x in records.items()}
        done, seconds = done + count, seconds + elapsed
        if done in stops or done == _end(state, config):
            fit_psnr = history["psnr_fit"]
            fell = opened > 0 and fit_psnr[-1] < fit_psnr[opened - 1] - FALL
            if fell and repeats < ROLLBACKS:
                rollbacks, repeats = rollbacks + 1, repeats + 1
                base = base._replace(key=jax.random.fold_in(base.key, _NO_ITERATION))
                state, done, seconds = _copy(base), opened, before
                history = _until(history, opened)
            else:
                opened, base, before, repeats = done, _copy(state), seconds, 0
        if on_chunk and on_chunk(Progress(state, history, count, elapsed, rollbacks)):
            break
        count = chunks.following(count, elapsed)

    return DIPResult(
        image=state.average if state.detection is None else state.detection.best,
        last=programs.output(options, apply_fn, state.latent.shape)(state.params, state.latent),
        params=state.params,
        history=history,
        finite=finite,
        state=state,
        compile_seconds=compile_seconds,
        iterations=done - first,
        seconds=seconds,
        rollbacks=rollbacks,
        over=finite and done >= _end(state, config),
    )


def _end(state: State, config: Config) -> int:
    """The iteration after which the fit ends, for all that is known in this state."""
    if state.detection is None or config.patience is None:
        return config.iterations
    return min(config.iterations, max(int(state.detection.iteration), 1) + config.patience)


def _until(history: History, done: int) -> History:
    return {name: column[:done] for name, column in history.items()}


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _all_finite(tree: Any) -> bool:
    # On the host, which gets some megabytes a chunk: a program would take half a second to compile.
    return all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(tree)))
