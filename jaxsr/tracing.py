"""A jitted function's trace, kept in a file: another process reads it there instead of tracing.

Tracing is Python, seconds of it for a network and its gradient, and no compilation cache saves
them: that knows a program by what tracing made of it. The file holds just this, as StableHLO
(`jax.export`); machine code stays the compilation cache's.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import jax
from jax import export

import jaxsr
from jaxsr.errors import InputError
from jaxsr.files import atomic

PROGRAMS = 8  # kept in memory, so that what is traced again in a process is compiled once
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "opt-einsum")
_SUM = hashlib.sha256().digest_size  # bytes: the file starts with the rest's

# Where something is computed, or kept, is no part of a trace.
_PLACES = ("jax_default_device", "jax_compilation_cache_dir", "jax_num_cpu_devices")


def trace(
    jitted: Any,
    *args: Any,
    folder: str | os.PathLike[str] | None = None,
    known: object = None,
    donate_argnums: tuple[int, ...] = (),
    compiler_options: Mapping[str, str | bool] | None = None,
) -> jax.stages.Traced:
    """`jitted.trace(*args)`: from a file where it is there and whole, else kept there.

    The folder stands for the function and all that it holds, which nothing can compare. A file in
    it stands for what is `known`, the arguments' shapes and types and over how many devices they
    lie, JAX's settings, its platform, the versions of packages, and this one's code as it was
    imported: where one of them is another, so is the file.

    Args:
      jitted: what `jax.jit` made; not called where the file is.
      args: arrays, or their shapes. Of pytrees that `jax.export` cannot write nothing is kept.
      folder: None keeps nothing. Where it cannot be written, it is done without.
      known: of the function, by its `repr`.
      donate_argnums, compiler_options: those of `jitted` once more, which a file does not tell.
    """
    traced: jax.stages.Traced
    if folder is None:
        traced = jitted.trace(*args)
        return traced
    path = pathlib.Path(folder) / _name(known, args)
    content = _read(path)
    if content is None:
        exported = export.export(jitted, platforms=_lowered_for(args))(*args)
        try:
            content = bytes(exported.serialize())
        except (TypeError, ValueError):  # of a pytree that has no name there
            traced = jitted.trace(*args)
            return traced
        _write(path, content)
    options = tuple((compiler_options or {}).items())
    return _program(content, donate_argnums, options).trace(*args)


def platform(args: tuple[Any, ...]) -> str:
    """Where a function of these arguments is computed: where one is bound to, else by default."""
    for leaf in jax.tree.leaves(args):
        if isinstance(leaf, jax.Array) and getattr(leaf, "committed", False):
            return next(iter(leaf.devices())).platform
    chosen = getattr(jax.config, "jax_default_device", None)
    if isinstance(chosen, jax.Device):
        return chosen.platform
    return str(chosen) if chosen else jax.default_backend()


def _lowered_for(args: tuple[Any, ...]) -> tuple[str, ...] | None:
    """As `jax.export` calls it, which tells cuda from rocm; None is its own choice, the default."""
    there = platform(args)
    return None if there == jax.default_backend() else ({"gpu": "cuda"}.get(there, there),)


def _name(known: object, args: tuple[Any, ...]) -> str:
    leaves, structure = jax.tree.flatten(args)
    shapes = [
        (
            getattr(x, "shape", ()),
            str(getattr(x, "dtype", type(x))),
            bool(getattr(x, "weak_type", False)),
            x.sharding.num_devices if getattr(x, "sharding", None) else 1,
        )
        for x in leaves
    ]
    settings = {name: str(getattr(jax.config, name, None)) for name in sorted(jax.config.values)}
    for place in _PLACES:
        settings.pop(place, None)
    here = platform(args), _versions(), _CODE, settings
    return hashlib.sha256(repr((known, str(structure), shapes, here)).encode()).hexdigest()[:32]


def code(package: types.ModuleType) -> str:
    """SHA-256 of a package's Python files as they are now."""
    sha256 = hashlib.sha256()
    root = pathlib.Path(package.__path__[0])
    for path in sorted(root.rglob("*.py")):
        sha256.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return sha256.hexdigest()


_CODE = code(jaxsr)


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@functools.lru_cache(maxsize=PROGRAMS)
def _program(content: bytes, donate_argnums: tuple[int, ...], options: tuple[Any, ...]) -> Any:
    exported = export.deserialize(bytearray(content))

    def call(*args: Any) -> Any:
        return exported.call(*args)

    call.__name__ = exported.fun_name  # in profiles
    return jax.jit(call, donate_argnums=donate_argnums, compiler_options=dict(options) or None)


def _read(path: pathlib.Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, content = content[:_SUM], content[_SUM:]
    return content if hashlib.sha256(content).digest() == checksum else None


def _write(path: pathlib.Path, content: bytes) -> None:
    with contextlib.suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
