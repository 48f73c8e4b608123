"""The one exception that bad input raises, rules that many functions share, too little memory."""

import contextlib
import numbers
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

# What XLA says where memory runs out: where that was while it tried kernels, after much else.
_TOO_LARGE = re.compile(r"RESOURCE_EXHAUSTED|out of memory|ALLOC_FAILED", re.I)


class InputError(ValueError):
    """What the user gave cannot be used. One line, quoting the value and the rule it breaks."""


def require_integers(*, least: int = 1, **values: object) -> None:
    """Refuses values, given by their names, that are no integers (of Python or NumPy) from `least`.

    Raises:
      InputError: one is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputError(f"`{name}` (={value}) must be an integer")
        if value < least:
            raise InputError(f"`{name}` (={value}) must be at least {least}")


def as_float(name: str, value: Any) -> float:
    """The number that a value, given by its name, stands for: one of Python, NumPy or JAX.

    Raises:
      InputError: it is none.
    """
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"`{name}` (={value!r}) must be a number") from None


def require_size(size: object) -> None:
    """Refuses a size that is not (height, width), two integers of at least 1.

    Raises:
      InputError: it is not.
    """
    if not isinstance(size, Sequence) or len(size) != 2:
        raise InputError(f"`size` (={size}) must be a tuple (height, width)")
    require_integers(height=size[0], width=size[1])


def require_floats(what: str, dtype: Any, *, within: str = "") -> None:
    """Refuses an array, of which `dtype` is the type, that holds no floats.

    Integers are not scaled: whether they mean [0, 1], [0, 255] or something else is not known.

    Raises:
      InputError: it holds others.
    """
    import jax.numpy as jnp  # here: the data sets, whose rules these are, too, need none of it

    if not jnp.issubdtype(dtype, jnp.floating):  # bfloat16 among them
        raise InputError(f"{what} (of {dtype}) must hold floats{within}")


def require_finite(what: str, array: Any) -> None:
    """Refuses an array that holds others than finite numbers; one that is traced passes.

    Raises:
      InputError: it holds others.
    """
    import jax
    import jax.numpy as jnp

    finite = jnp.isfinite(array).all()  # within `jax.jit` traced even if the array is not
    if not isinstance(finite, jax.core.Tracer) and not finite:
        raise InputError(f"{what} must be finite: it holds NaN or infinite values")


def require_number(what: str, value: Any) -> Any:
    """A function's value, if it is one number, which may be traced; `what` names the function.

    Raises:
      InputError: it is not.
    """
    if getattr(value, "shape", None) != () and not isinstance(value, numbers.Number):
        raise InputError(f"{what} must give one number (it gives {value})")
    return value


def require_array(what: str, value: Any) -> Any:
    """A function's value, if it is one array, which may be traced; `what` names the function.

    Raises:
      InputError: it is not.
    """
    import jax

    if not isinstance(value, jax.Array):
        raise InputError(f"{what} must give an array (it gives {type(value).__name__})")
    return value


def require_functions(*, hashable: bool = False, **values: object) -> None:
    """Refuses values, given by their names, that cannot be called or, if so asked, hashed.

    Raises:
      InputError: one cannot.
    """
    for name, value in values.items():
        broken = "" if callable(value) else "a function"
        try:
            hash(value if hashable and not broken else None)
        except TypeError:
            broken = "hashable: a function, a partial or a frozen dataclass"
        if broken:
            raise InputError(f"`{name}` (={' '.join(repr(value).split())}) must be {broken}")


def reason(error: BaseException) -> str:
    """The line of an error that says why: the first, or that which tells of too little memory."""
    told = str(error).strip()
    if found := _TOO_LARGE.search(told):
        told = told[max(told.rfind(mark, 0, found.start()) for mark in ".:\n") + 1 :]
    return told.partition("\n")[0].strip() or type(error).__name__


@contextlib.contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Work on something that may be too large for the device, or find none.

    Raises:
      InputError: it is, or the device failed otherwise, or there is none.
    """
    import jax  # here, as above

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        large = isinstance(error, MemoryError) or _TOO_LARGE.search(str(error))
        said = "is too large for this machine" if large else "failed on this device"
        raise InputError(f"{what} {said}: {reason(error)}") from error
    except RuntimeError as error:
        if "initialize backend" not in str(error):
            raise
        asked = os.environ.get("JAX_PLATFORMS")
        rule = "must name what JAX can use here, cpu for one: it finds no device"
        raise InputError(f"`JAX_PLATFORMS` (={asked}) {rule}") from error
