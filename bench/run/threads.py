"""How many threads the workers of a run use: as the spec says, or measured before the first trial (`threads: auto`).

One number holds for all configurations of a run, because their times are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fusetune.bench.machine import cpu_quota, usable_cores
from fusetune.bench.results import Record

if TYPE_CHECKING:
    from fusetune.bench.spec import Trial
    from fusetune.bench.workers import Executor

# The configurations that are timed: those with the smallest, the middle and the largest batch.
MOST_CONFIGURATIONS = 3
_TIMED = "step_time_s with threads="


def most_threads(jobs: int, *, cores: int | None = None, quota: float | None = None) -> int:
    """Return the most threads that a worker can use: its share of the cores, or of the container's quota.

    Example:
        >>> most_threads(2, cores=8, quota=5.0), most_threads(4, cores=2)
        (2, 1)
    """
    cores = cores or usable_cores()
    quota = quota or cpu_quota() or cores
    return max(1, int(min(cores, quota)) // jobs)


def timed_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that stand for the others: of the smallest, the middle and the largest number of samples."""
    by_size: dict[int, Trial] = {}
    for trial in trials:
        by_size.setdefault(trial.spec.train.batch_size, trial)
    ordered = [by_size[size] for size in sorted(by_size)]
    if len(ordered) <= MOST_CONFIGURATIONS:
        return ordered
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def samples_of(times: dict[int, list[float]]) -> dict[str, list[float]]:
    """Return step times by number of threads as the samples of a record."""
    return {f"{_TIMED}{count}": seconds for count, seconds in times.items()}


def times_of(record: Record) -> dict[int, list[float]]:
    """Return the step times by number of threads that a record has."""
    return {
        int(name.removeprefix(_TIMED)): seconds
        for name, seconds in record.samples.items()
        if name.startswith(_TIMED)
    }


def measure_threads(
    trials: Sequence[Trial], worker: Executor, most: int, on_progress: Callable[[dict[str, Any]], None]
) -> tuple[int, str, dict[int, float]]:
    """Time a few configurations in `worker`, and return the number of threads, why, and the speedups.

    Args:
        trials: of the run. `most` is at least 2.
        worker: not bound to a number of threads.
        most: threads at most.
        on_progress: takes the worker's progress.
    """
    from fusetune.tuner.measure import candidate_counts, choose_thread_count

    counts = candidate_counts(most)
    found = []
    for trial in timed_trials(trials):
        job = replace(trial, rehearsal=True, thread_counts=tuple(counts))
        times = times_of(worker.run(job, on_progress))
        if set(times) == set(counts):
            found.append(times)
    if not found:
        return most, "no step could be timed", {}
    choice = choose_thread_count(found)
    return choice.threads, choice.reason, choice.speedups
