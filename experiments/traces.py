"""Where the traced programs of a fit are kept between processes, by all that they depend on."""

import hashlib
import pathlib

import jax

import experiments
from experiments.problem import Problem
from experiments.recipes import Settings
from experiments.record import as_config
from jaxsr import tracing
from jaxsr.models import SkipUNet

# The settings that no program holds: files, for which stands what they become; data; how long. Any
# other, also one to come, is taken to be in it.
_APART = (
    *("hr", "lr", "mask", "blur_kernel", "out", "device"),
    *("seed", "degrade_seed", "iterations", "checkpoint_every"),
)


def folder(
    settings: Settings, task: Problem, network: SkipUNet, *, on: jax.Device
) -> pathlib.Path | None:
    """Below the compilation cache, by a digest of the problem and of the code of `experiments`.

    Code that a caller replaced while it runs is not seen. The library's code, shapes, versions and
    the like are told apart by `jaxsr.tracing`.

    Args:
      settings: resolved.
      task: of which the operator and the score count, not the pixels.
      network: that is fitted.
      on: the device. None is the answer, and nothing kept, where it is not of JAX's own choice, or
        there is no compilation cache.
    """
    cache = jax.config.values["jax_compilation_cache_dir"]
    enabled = cache and "://" not in cache and jax.config.values["jax_enable_compilation_cache"]
    if not enabled or on.platform != jax.default_backend():
        return None
    kept = as_config(settings)
    for name in _APART:
        del kept[name]
    channels = task.observed.shape[-1]
    image = jax.ShapeDtypeStruct((1, *task.canvas(2 ** len(network.down)), channels), "float32")
    operator = jax.jit(task.operator()).lower(image).as_text()
    known = (kept | {"patience": bool(settings.patience)}, task.score, operator, network, _CODE)
    return pathlib.Path(cache) / "traces" / hashlib.sha256(repr(known).encode()).hexdigest()[:32]


_CODE = tracing.code(experiments)  # as it is now, while it is imported
