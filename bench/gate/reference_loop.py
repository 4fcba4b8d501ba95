"""A fixed piece of work that belongs to neither side: how fast the processor is at the moment.

It runs in the gate's own process, before and after each process that is measured. What slows both the loop and the
process is the machine, not a revision.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# About 0.3 ms on a processor of 2020.
_ADDITIONS = 6_000
ROUNDS = 6


def reference_rounds(
    rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, ...]:
    """Time the reference loop. One round before, which fills caches, is not counted.

    Args:
        rounds: how often, at least 1.
        clock: returns seconds that only increase.

    Returns:
        Seconds of each round.

    Example:
        >>> ticks = iter(range(100))
        >>> reference_rounds(3, clock=lambda: next(ticks) / 10)
        (0.1, 0.1, 0.1)
    """
    _work()
    seconds = []
    for _ in range(rounds):
        began = clock()
        _work()
        seconds.append(round(clock() - began, 9))
    return tuple(seconds)


def _work() -> int:
    """Do the same arithmetic each time, in pure Python."""
    total = 0
    for number in range(_ADDITIONS):
        total += number & 7
    return total
