"""A search with several workers, replayed on a recorded table against a simulated clock.

An epoch takes one unit of time. Each worker trains the epoch that it asked for, tells its value, and asks again at
once, while the others' epochs are in flight. What it may ask for is what a run allows, see `bench.search.Holders`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusetune.bench.search import Holders
from fusetune.bench.search_bench.table import Table
from fusetune.tuner.search import Prior, Searcher, SearchTrial

# Half a point, as a fraction: how near to the table's best counts as found.
MARGIN = 0.005
# How much longer than ideal a search with several workers may take: see `limit`.
_SLACK = 1.3


@dataclass(frozen=True)
class ParallelReplay:
    """One search with some workers.

    Args:
        time: units until a value was within the margin of the table's best. None if not within the budget.
        epochs: epochs told by then, or None.
        gap: what the best value within the whole budget lacks to the table's best, as a fraction, 0 or more.
        trainings: begun in the whole budget.
        repeated: epochs that were trained once more, in another worker, in the whole budget.
    """

    time: float | None
    epochs: int | None
    gap: float
    trainings: int
    repeated: int


def replay_workers(
    table: Table, seed: int, prior: Prior | None, *, workers: int, budget: int, whole: bool = True
) -> ParallelReplay:
    """Replay one search.

    Args:
        table: recorded curves, of which each worker reads one epoch at a time.
        seed: of the search.
        prior: for the search, or None.
        workers: how many, 1 or more.
        budget: epochs in all.
        whole: whether to go on to the end of the budget once a value is within the margin.

    Example:
        >>> table = Table({"lr": [0.1, 1.0]}, np.array([[5, 9], [6, 7]]), 10)
        >>> [replay_workers(table, 0, None, workers=n, budget=4).time for n in (1, 2)]
        [4.0, 2.0]
    """
    searcher = Searcher(table.choices, max_epochs=table.epochs, seed=seed, prior=prior)
    holders = Holders(searcher)
    landing: list[tuple[float, int, SearchTrial]] = []
    trained_by: dict[int, int] = {}
    idle, left, now, repeated = list(range(workers)), budget, 0.0, 0
    best, found = -np.inf, None
    while True:
        waiting = []
        for worker in idle:
            trial = holders.ask(worker) if left else None
            if trial is None:
                waiting.append(worker)
                continue
            left -= 1
            again = trial.epochs if trained_by.get(trial.number, worker) != worker else 0
            repeated += again
            trained_by[trial.number] = worker
            heapq.heappush(landing, (now + 1 + again, worker, trial))
        if not landing:
            break
        now, worker, trial = heapq.heappop(landing)
        value = float(table.curve(trial.config)[trial.epochs])
        searcher.tell(trial, value)
        holders.landed(trial)
        for dropped in holders.of(worker):
            if dropped.status == "dropped":
                holders.forget(dropped)
        idle, best = sorted([*waiting, worker]), max(best, value)
        if found is None and best >= table.best - MARGIN - 1e-12:
            found = now, searcher.epochs_used
            if not whole:
                break
    time, epochs = found or (None, None)
    return ParallelReplay(time, epochs, table.best - best, len(searcher.trials), repeated)


def limit(epochs_of_one: float, workers: int, whole_training: int) -> float:
    """Return the units of time within which some workers are to find what one finds in so many epochs.

        1.3 max(epochs / workers, epochs of a whole training)

    Example:
        >>> limit(300, 4, 8), round(limit(37, 64, 8), 1)
        (97.5, 10.4)
    """
    return _SLACK * max(epochs_of_one / workers, whole_training)


def paired_difference(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference of others to ones, seed by seed, and its standard error (nan for one seed).

    Example:
        >>> paired_difference([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        (2.0, 0.5773502691896258)
    """
    apart = np.subtract(others, ones)
    error = apart.std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else np.nan
    return float(apart.mean()), float(error)
