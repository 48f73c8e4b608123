"""How things are timed.

Compilation is timed apart from running; before each measurement the program runs unmeasured, since
the memory that it had may have gone back to the system meanwhile; a measurement ends only when the
device is done; programs that are compared take turns in one process, in an order that reverses
every round, so that a slow minute of the machine slows all of them; the median is told with its
spread.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per unit of work (an iteration, an image), one figure a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the rounds took no longer."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The median absolute deviation from the median, in seconds per unit."""
        return statistics.median(abs(value - self.median) for value in self.seconds)


def compiled(
    function: Any, *args: Any, options: Mapping[str, Any] | None = None, **static: Any
) -> tuple[Any, float]:
    """Compiles a jitted function for `args`, under the compiler's options; returns the program and
    the seconds that took.

    Tracing, lowering and compiling count, running does not. A persistent compilation cache, where
    the caller has switched it on, makes the figure that of a warm start.
    """
    start = time.perf_counter()
    program = function.lower(*args, **static).compile(dict(options) if options else None)
    return program, time.perf_counter() - start


def once(program: Callable[[], Any], *, clock: Clock = time.perf_counter) -> float:
    """Seconds of one call, until every array it returns is there."""
    start = clock()
    jax.block_until_ready(program())
    return clock() - start


def interleaved(
    programs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    units: int = 1,
    pause: float = 0.0,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Times programs in turns: a, b, c, then c, b, a, and so on.

    Args:
      programs: calls without arguments; work that JAX does not know of must be finished on return.
      rounds: measurements of each program, at least 1.
      units: units of work in one call; the figures are seconds per unit.
      pause: seconds to sleep before a program's turn, for the threads of the one before to settle
        (OpenMP's spin for a while after their last task).
      clock: seconds, increasing; the tests bring their own.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    order = list(programs)
    for _ in range(rounds):
        for name in order:
            time.sleep(pause)
            jax.block_until_ready(programs[name]())
            seconds[name].append(once(programs[name], clock=clock) / units)
        order.reverse()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(peer: Timing, ours: Timing) -> tuple[float, float]:
    """How many times as long the peer takes: of medians, and the spread over rounds."""
    pairs = Timing(tuple(p / o for p, o in zip(peer.seconds, ours.seconds, strict=True)))
    return peer.median / ours.median, pairs.spread
