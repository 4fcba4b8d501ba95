"""One process of a recording: every workload, timed in rounds. It prints one line of JSON and ends.

`python -m fusetune.bench.gate_bench.suite` is what `record` starts again and again.
"""

from __future__ import annotations

import json

import torch

from fusetune.bench.gate_bench.workloads import WORKLOADS, Work
from fusetune.bench.terminal import say
from fusetune.tuner.measure import Stopwatch

# The first rounds fill caches and are not kept.
BURN_IN, ROUNDS = 5, 60


def time_rounds(work: Work, stopwatch: Stopwatch) -> list[float]:
    """Return the seconds of each call, those of the burn-in left out.

    Example:
        >>> ticks = iter(range(1000))
        >>> set(time_rounds(lambda: None, Stopwatch("cpu", clock=lambda: next(ticks) / 4)))
        {0.25}
    """
    stopwatch.resume()
    for _ in range(BURN_IN + ROUNDS):
        work()
        stopwatch.lap()
    return stopwatch.laps_s()[BURN_IN:]


def main() -> None:
    """Time all workloads, in their order, by one thread."""
    torch.set_num_threads(1)
    say(json.dumps({name: time_rounds(make(), Stopwatch("cpu")) for name, make in WORKLOADS.items()}))


if __name__ == "__main__":
    main()
