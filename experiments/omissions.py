"""What an experiment had to leave out."""

import sys


class Omissions:
    """What could not be computed, each told in one line, once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._told)

    def add(self, what: str, why: object) -> None:
        """Tells it, on the error stream."""
        line = f"left out {what}: {why}"
        if line not in self._told:
            print(line, file=sys.stderr, flush=True)
        self._told.add(line)
