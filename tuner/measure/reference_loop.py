"""A fixed piece of work, the same in every version of a program: how fast a device is at the moment.

What slows both the loop and what is measured beside it is the machine. The gate runs it before and after each process,
a cluster's device when it joins and now and then.
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


def gpu_reference_rounds(rounds: int = 20, size: int = 2048) -> tuple[float, ...]:
    """Time products of two matrices on torch's first GPU. Three rounds before are not counted. Imports torch.

        round:  y = x x, four times in float16, x of shape (size, size)

    Args:
        rounds: how often, at least 1.
        size: of the matrices. The default takes 0.3 ms on a GPU of 2020.

    Returns:
        Seconds of each round, by CUDA events.

    Memory: two matrices, 16 MiB by default.
    """
    import torch

    x = torch.full((size, size), 1.0 / size, dtype=torch.float16, device="cuda")
    marks = []
    for _ in range(rounds + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(4):
            torch.mm(x, x)
        end.record()
        marks.append((start, end))
    torch.cuda.synchronize()
    return tuple(1e-3 * start.elapsed_time(end) for start, end in marks[3:])


def _work() -> int:
    """Do the same arithmetic each time, in pure Python."""
    total = 0
    for number in range(_ADDITIONS):
        total += number & 7
    return total
