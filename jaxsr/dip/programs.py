"""The compiled programs of a fit; those of the last few problems alone are kept.

A cache of jax.jit's own keeps each program for good, and a fit's are large: after some sixty
problems a process would be out of memory maps, of which Linux gives it 65,530.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import export

from jaxsr import tracing
from jaxsr.dip.solver import State, init, loop
from jaxsr.dip.stopping import Detection

# The names by which `jax.export` writes programs over states.
for _name, _state in {**vars(optax), "State": State, "Detection": Detection}.items():
    if isinstance(_state, type) and issubclass(_state, tuple) and hasattr(_state, "_fields"):
        with contextlib.suppress(ValueError):  # another library may have registered optax's
            export.register_namedtuple_serialization(_state, serialized_name=f"jaxsr.dip.{_name}")

KEPT = 4  # of each kind, for further fits under the same operator and functions

Options = tuple[tuple[str, str | bool], ...]


def unoptimised(*arrays: Any) -> Options:
    """Compiler options of what runs once on these arrays: hardly any optimisation, on a CPU.

    On a GPU the time goes into trying kernels, which these options are not for.
    """
    return (("xla_backend_optimization_level", "0"),) if tracing.platform(arrays) == "cpu" else ()


@functools.lru_cache(maxsize=KEPT)
def initial(options: Options, **settings: Any) -> Any:
    """`init` under these settings, of a key."""
    return jax.jit(functools.partial(init, **settings), compiler_options=dict(options))


@functools.lru_cache(maxsize=KEPT)
def iterations(*, shape: tuple[int, ...], **functions: Any) -> Any:
    """`loop` of these functions, of a state that is used up; one for a latent's shape."""
    del shape  # jax.jit's own cache would grow with the sizes of a folder's images
    return jax.jit(functools.partial(loop, **functions), donate_argnames="state")


@functools.lru_cache(maxsize=KEPT)
def output(options: Options, apply_fn: Callable[..., Any], shape: tuple[int, ...]) -> Any:
    """The network; one for a latent's shape."""
    del shape
    return jax.jit(apply_fn, compiler_options=dict(options))
