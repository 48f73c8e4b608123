"""What checkpoints can hold, and where: typed PRNG keys as their integers, below a plain path."""

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr.errors import InputError


def require_path(folder: pathlib.Path) -> None:
    """Refuses a path that TensorStore, which writes the arrays, has no name for or would change.

    Raises:
      InputError: it is no UTF-8, or has a backslash that does not part folders.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"`{folder}` must be UTF-8 to hold checkpoints") from error
    if os.sep == "/" and "\\" in str(folder):  # which TensorStore takes for a slash
        raise InputError(f"`{folder}` must have no backslash in it to hold checkpoints")


def names(tree: Any) -> dict[str, str]:
    """Every array's path, with its dtype and shape.

    Raises:
      InputError: a leaf is no array.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, x in leaves:
        if not hasattr(x, "dtype"):
            where = jax.tree_util.keystr(path)
            raise InputError(f"`{where}` (of {type(x).__name__}) must be an array")
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def stored(x: Any) -> Any:
    """An array as Orbax takes it, which knows no typed PRNG keys."""
    return jax.random.key_data(x) if _is_key(x) else x


def target(like: Any) -> Any:
    """What to restore for an array or `jax.ShapeDtypeStruct`, and where it goes."""
    if isinstance(like, np.ndarray | np.generic):
        return np.asarray(like)
    if not _is_key(like) and jax.dtypes.canonicalize_dtype(like.dtype) != like.dtype:
        raise InputError(f"`like` (of {like.dtype}) needs `jax_enable_x64`, or NumPy arrays")
    form = jax.eval_shape(stored, like)
    sharding = getattr(like, "sharding", None) or jnp.zeros(()).sharding
    return jax.ShapeDtypeStruct(form.shape, form.dtype, sharding=sharding)


def host_target(like: Any) -> np.ndarray:
    """The same on the host."""
    form = target(like)
    return np.empty(form.shape, form.dtype)


def restored(like: Any, data: Any) -> Any:
    """The array itself, of the kind of its counterpart: the inverse of `stored`."""
    if isinstance(like, np.ndarray | np.generic):
        return data if isinstance(like, np.ndarray) else np.asarray(data)[()]
    data = jnp.asarray(data)
    if not _is_key(like):
        return data
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(jnp.empty((), like.dtype)))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
