"""The one exception that bad input raises."""


class InputError(ValueError):
    """What the user gave cannot be used. One line, quoting the value and the rule it breaks."""
