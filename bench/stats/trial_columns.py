"""Trials as columns: the numbers that comparisons need, as arrays with one element a record.

A run can have 100,000 records. Each is looked at once here, and every comparison then works on whole arrays.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from fusetune.bench.results import Record
from fusetune.bench.spec import freeze
from fusetune.bench.stats import significance
from fusetune.bench.stats.significance import LEAST_PAIRS, Estimate
from fusetune.tuner.measure import is_contended


def reached(record: Record) -> bool:
    """Whether the trial reached its target and did not diverge afterwards."""
    return record.status == "ok" and "time_to_target_s" in record.values


def contended(record: Record) -> bool:
    """Whether a trial was timed while other processes used the processor."""
    return is_contended(record.values.get("processor_missing"))


class TrialColumns:
    """The numbers of some trials, by their position. NaN: the trial does not have that number.

    Args:
        records: n trials.
        score_metric: the metric of `score`.

    Attributes:
        configurations: the factors of each configuration.
        configuration, seed: int64 of shape (n,), where a configuration is a position in `configurations`.
        reached, contended: bool of shape (n,).
        time: float64 of shape (n,), seconds to the target. NaN where it was not reached.
        log_time, log_steps, log_time_per_step: float64 of shape (n,), natural logarithms of seconds and steps to the
            target, and of their ratio. NaN where it was not reached.
        log_step_time: float64 of shape (n,), of the median step time in seconds. Older records have only the mean.
        score: float64 of shape (n,).

    Example:
        >>> values = {"time_to_target_s": 1.0, "steps_to_target": 10}
        >>> columns = TrialColumns([Record("a", {"batch_size": 64}, 0, "ok", values=values)], "best_val_accuracy")
        >>> columns.log_time.tolist(), columns.score.tolist(), columns.configurations
        ([0.0], [nan], [{'batch_size': 64}])
    """

    def __init__(self, records: Sequence[Record], score_metric: str) -> None:
        self.configurations, positions = distinct_factors(records)
        self.configuration = np.array(positions, np.int64)
        self.seed = np.array([record.seed for record in records], np.int64)
        self.reached = np.array([reached(record) for record in records], bool)
        self.contended = np.array([contended(record) for record in records], bool)
        times, steps = (
            [
                r.values[name] if has else math.nan
                for r, has in zip(records, self.reached.tolist(), strict=True)
            ]
            for name in ("time_to_target_s", "steps_to_target")
        )
        self.time = np.array(times, float)
        self.log_time, self.log_steps = _logs(times), _logs(steps)
        self.log_time_per_step = _logs([time / count for time, count in zip(times, steps, strict=True)])
        self.log_step_time = _logs([_median_step(record.values) for record in records])
        self.score = np.array([record.values.get(score_metric, math.nan) for record in records], float)

    def pairs(self, ours: np.ndarray, theirs: np.ndarray, partner: np.ndarray) -> TrialPairs:
        """Return the pairs of one of our trials and one of theirs that have the same seed.

        Args:
            ours, theirs: int64 positions of trials, each with a configuration and a seed of its own on its side.
            partner: int64 of shape (configurations,), the configuration to which one of ours is compared. -1: none.
        """
        seeds = np.unique(self.seed)
        keys = self.configuration * len(seeds) + np.searchsorted(seeds, self.seed)
        order = theirs[np.argsort(keys[theirs])]
        wanted = partner[self.configuration[ours]] * len(seeds) + keys[ours] % max(1, len(seeds))
        places = np.searchsorted(keys[order], wanted)
        has = places < len(order)
        has[has] = keys[order[places[has]]] == wanted[has]
        return TrialPairs(self, order[places[has]], ours[has])

    def last_of_each(self) -> np.ndarray:
        """Return the positions of the trials, of several with one configuration and seed that of the last."""
        order = np.lexsort((np.arange(len(self.seed)), self.seed, self.configuration))
        configuration, seed = self.configuration[order], self.seed[order]
        is_last = np.ones(len(order), bool)
        is_last[:-1] = (configuration[1:] != configuration[:-1]) | (seed[1:] != seed[:-1])
        return order[is_last]


class TrialPairs:
    """Pairs of trials that differ in what is compared, and in nothing else.

    Args:
        columns: the trials.
        first, second: int64 of shape (pairs,), their positions.
    """

    def __init__(self, columns: TrialColumns, first: np.ndarray, second: np.ndarray) -> None:
        self._columns, self._first, self._second = columns, first, second

    def __len__(self) -> int:
        return len(self._first)

    def split(self) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
        """Return first / second of time, steps and step time, over the pairs where both reached the target."""
        columns = self._columns
        both = columns.reached[self._first] & columns.reached[self._second]
        time, steps, step_time = (
            significance.ratio_of_logs(self._differences(column, both).tolist())
            for column in (columns.log_time, columns.log_steps, columns.log_time_per_step)
        )
        return time, steps, step_time

    def step_time(self) -> Estimate | None:
        """Return first / second of the median step time, over the pairs where both have one.

        Pairs with a contended trial are left out if at least three others remain.
        """
        columns = self._columns
        both = ~np.isnan(columns.log_step_time[self._first] - columns.log_step_time[self._second])
        quiet = both & ~columns.contended[self._first] & ~columns.contended[self._second]
        kept = quiet if quiet.sum() >= LEAST_PAIRS else both
        return significance.ratio_of_logs(self._differences(columns.log_step_time, kept).tolist())

    def score(self) -> Estimate | None:
        """Return second - first of the score, over the pairs where both have one."""
        differences = self._columns.score[self._second] - self._columns.score[self._first]
        return significance.mean_difference(differences[~np.isnan(differences)].tolist())

    def _differences(self, column: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Return first - second of a column, of some pairs."""
        found: np.ndarray = column[self._first[kept]] - column[self._second[kept]]
        return found


def distinct_factors(records: Iterable[Record]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the factors of each configuration, in the order of its first record, and each record's position in it.

    Example:
        >>> distinct_factors([Record("a", {"x": 1}, 0, "ok"), Record("b", {"x": 1.0}, 1, "ok")])
        ([{'x': 1}], [0, 0])
    """
    found: dict[Hashable, int] = {}
    factors: list[dict[str, Any]] = []
    # Records that were read for a report share their factors, which are then frozen once.
    by_object: dict[int, int] = {}
    positions = []
    for record in records:
        position = by_object.get(id(record.factors))
        if position is None:
            position = found.setdefault(freeze(record.factors), len(factors))
            if position == len(factors):
                factors.append(record.factors)
            by_object[id(record.factors)] = position
        positions.append(position)
    return factors, positions


def _logs(values: Sequence[float]) -> np.ndarray:
    return np.array([math.log(value) if value == value else math.nan for value in values], float)


def _median_step(values: dict[str, float]) -> float:
    """Return a trial's median step time, NaN where it has none."""
    if "step_time_s" not in values:
        return math.nan
    return values.get("step_time_median_s", values["step_time_s"])
