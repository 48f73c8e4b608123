"""The one exception that bad input raises, a rule that many settings share, too little memory."""

import contextlib
import numbers
from collections.abc import Iterator


class InputError(ValueError):
    """What the user gave cannot be used. One line, quoting the value and the rule it breaks."""


def require_integers(**values: object) -> None:
    """Refuses values, given by their names, that are no integers (of Python or NumPy).

    Raises:
        InputError: one is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputError(f"`{name}` (={value}) must be an integer")


@contextlib.contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Work on something that may be too large for the device.

    Raises:
      InputError: it is, or the device failed otherwise.
    """
    import jax  # here: the data sets, whose rules these are, too, need none of it

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        large = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in reason
        said = "is too large for this machine" if large else "failed on this device"
        raise InputError(f"{what} {said}: {reason}") from error
