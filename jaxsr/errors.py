"""The one exception that bad input raises, and a rule that many settings share."""

import numbers


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
