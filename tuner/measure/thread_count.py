"""How many threads make a training step fastest on this machine now: timed in turn, and one unless more help."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from fusetune.errors import InvalidValueError
from fusetune.tuner.measure.stopwatch import Stopwatch

ROUNDS = 6
_LEAST_ROUNDS = 3
_MOST_STEPS = 1000
# More threads must be worth their waiting for each other: so much of the fastest step's speed may be left.
TOLERANCE = 0.1

Times = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads and why.

    Args:
        threads: of torch, inside an operation.
        reason: half a sentence.
        speedups: number of threads -> step time of one thread / step time of so many. Empty where none was measured.
    """

    threads: int
    reason: str
    speedups: dict[int, float]


def candidate_counts(most: int) -> list[int]:
    """Return the numbers of threads worth trying: the powers of two below `most`, and it.

    Example:
        >>> candidate_counts(1), candidate_counts(6)
        ([1], [1, 2, 4, 6])
    """
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def time_thread_counts(
    step: Callable[[], object],
    counts: Sequence[int],
    *,
    stopwatch: Stopwatch,
    set_threads: Callable[[int], object] = torch.set_num_threads,
    rounds: int = ROUNDS,
    round_s: float = 0.05,
    budget_s: float = 3.0,
) -> dict[int, list[float]]:
    """Time a step with several numbers of threads in turn: A B C, A B C, ...

    A slow moment of the machine so hits all alike. A step after each change of the number is not timed. Two steps with
    each number are a burn-in. The second says how many steps make a round of about `round_s`. torch's number of threads
    is put back at the end.

    Args:
        step: one whole training step.
        counts: numbers of threads.
        stopwatch: paused, of the device that the steps run on.
        set_threads: sets torch's number of threads.
        rounds: of each number, at most.
        round_s: seconds. A step that takes longer is a round by itself.
        budget_s: seconds of the host after which no further round begins, once there are three.

    Returns:
        number of threads -> seconds of a step in each round.

    Example:
        >>> times = time_thread_counts(lambda: sum(range(99)), [1, 2], stopwatch=Stopwatch("cpu"), round_s=1e-4)
        >>> [(count, len(seconds)) for count, seconds in times.items()]
        [(1, 6), (2, 6)]
    """
    before = torch.get_num_threads()
    begun_s = stopwatch.clock()
    times: dict[int, list[float]] = {count: [] for count in counts}
    try:
        steps = {}
        for count in counts:
            set_threads(count)
            step()
            start_s = stopwatch.now_s()
            step()
            step_s = stopwatch.now_s() - start_s
            steps[count] = (
                _MOST_STEPS if step_s <= 0 else min(_MOST_STEPS, max(1, math.ceil(round_s / step_s)))
            )
        for done in range(rounds):
            if done >= _LEAST_ROUNDS and stopwatch.clock() - begun_s > budget_s:
                break
            for count in counts:
                set_threads(count)
                step()  # the first step with another number begins threads or ends some
                start_s = stopwatch.now_s()
                for _ in range(steps[count]):
                    step()
                times[count].append((stopwatch.now_s() - start_s) / steps[count])
    finally:
        set_threads(before)
    return times


def choose_thread_count(configurations: Sequence[Times]) -> ThreadChoice:
    """Choose one number of threads for all configurations, so that their times can be compared.

        speedup(c) = exp(mean over configurations of log(median over rounds of time_1 / time_c))
        threads    = min { c : speedup(c) >= 0.9 max speedup }

    Args:
        configurations: of each, number of threads -> seconds of a step in each round. 1 is among the numbers.

    Raises:
        ValueError: no configurations.

    Example:
        >>> choose_thread_count([{1: [3.0, 3.0, 3.0], 2: [2.0, 2.0, 9.0]}]).threads
        2
        >>> choose_thread_count([{1: [1.0, 1.0, 1.0], 2: [0.95, 1.4, 0.95]}]).threads
        1
    """
    if not configurations:
        raise InvalidValueError("configurations", "there are none", to_do="Time at least one")
    speedups = {}
    for count in configurations[0]:
        logs = [
            math.log(median(one / own for one, own in zip(times[1], times[count], strict=True)))
            for times in configurations
        ]
        speedups[count] = math.exp(math.fsum(logs) / len(logs))
    fastest = max(speedups.values())
    threads = min(count for count, speedup in speedups.items() if speedup >= (1 - TOLERANCE) * fastest)
    return ThreadChoice(threads, _reason(threads, speedups), speedups)


def _reason(threads: int, speedups: Mapping[int, float]) -> str:
    """Say what was measured."""
    if len(speedups) == 1:
        return "there is one core"
    if threads > 1:
        return f"a step is {speedups[threads]:.2f}x as fast as with one thread"
    other = max((count for count in speedups if count > 1), key=lambda count: speedups[count])
    return f"{other} threads make a step {speedups[other]:.2f}x as fast, which is not worth their waiting"
