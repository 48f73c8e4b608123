"""How much of an experiment to do now: for which seeds, for how many minutes."""

import time
from collections.abc import Callable, Sequence

from jaxsr.errors import InputError

SEEDS = 2**32  # below which they are: as many as a key is made of


def check_seed(seed: int) -> None:
    """Refuses a seed that no key is made of.

    Raises:
      InputError: it is out of range.
    """
    if not 0 <= seed < SEEDS:
        raise InputError(f"`seed` (={seed}) must be in [0, 2^32)")


def check(seeds: Sequence[int], minutes: float | None) -> None:
    """Refuses seeds or a budget out of range.

    Raises:
      InputError: one is.
    """
    if not seeds or min(seeds) < 0 or max(seeds) >= SEEDS:
        raise InputError(f"`seeds` (={seeds}) must be one or more in [0, 2^32)")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise InputError(f"`budget` (={minutes}) must be above 0, and finite")


def spent(minutes: float | None) -> Callable[[], bool]:
    """Tells whether so many minutes are over since this call; None: never."""
    end = time.monotonic() + 60 * (minutes or float("inf"))
    return lambda: time.monotonic() > end
