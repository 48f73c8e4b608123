"""How many iterations a compiled loop is given at a time."""

from collections.abc import Iterable

from jaxsr.errors import require_integers

SECONDS = 2.0
# A chunk has at least FEW iterations where LONG seconds hold them: every call gets its memory anew
# from the system, which on a CPU takes up to one iteration's time.
FEW = 8
LONG = 30.0  # also how long Ctrl-C may wait
LENGTH = 1024  # iterations, at most


def following(count: int, elapsed: float) -> int:
    """The length of the chunk after one of `count` iterations in `elapsed` seconds.

    As many as take two seconds, or eight where thirty hold them, but at most ten times as many as
    before, and 1024.
    """
    each = elapsed / count
    seconds = max(SECONDS, min(LONG, FEW * each))
    return max(1, min(10 * count, int(seconds / each), LENGTH))


def ends(total: int, *, every: int, pauses: Iterable[int]) -> list[int]:
    """The iterations after which a chunk ends, for another reason: some, the pauses, the last.

    Raises:
      InputError: a pause is no integer from 1.
    """
    pauses = list(pauses)
    for pause in pauses:
        require_integers(pauses=pause)
    return sorted({*map(int, pauses), *range(every, total, every), total})
