"""Trials as columns: the numbers that comparisons need, as arrays with one element a record.

A run can have 100,000 records. Each is looked at once here, and every comparison then works on whole arrays.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from fusetune.bench.results import Layout, PackedValues, Record
from fusetune.bench.spec import freeze
from fusetune.bench.stats import significance
from fusetune.bench.stats.significance import LEAST_PAIRS, Estimate
from fusetune.tuner.measure import CONTENDED

_MOST_EXACT = 2**53  # below it, float64 has every whole number and no other one is rounded to it


def reached(record: Record) -> bool:
    """Whether the trial reached its target and did not diverge afterwards."""
    return record.status == "ok" and "time_to_target_s" in record.values


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
        values: metric -> float64 of shape (n,).

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
        self.values, self._types = value_columns(records)
        self._records = records
        nothing = np.full(len(records), math.nan)
        time, steps, step_time, median_step, missing, self.score = (
            self.values.get(name, nothing)
            for name in (
                "time_to_target_s",
                "steps_to_target",
                "step_time_s",
                "step_time_median_s",
                "processor_missing",
                score_metric,
            )
        )
        ended_well = np.array([record.status == "ok" for record in records], bool)
        self.reached = ended_well & ~np.isnan(time)
        self.contended = missing > CONTENDED
        self.time = np.where(self.reached, time, math.nan)
        steps = np.where(self.reached, steps, math.nan)
        self.log_time, self.log_steps = _logs(self.time), _logs(steps)
        self.log_time_per_step = _logs(self.time / steps)
        has_median = ~np.isnan(step_time) & ~np.isnan(median_step)
        self.log_step_time = _logs(np.where(has_median, median_step, step_time))
        self._seeds = np.unique(self.seed)
        self._keys = self.configuration * len(self._seeds) + np.searchsorted(self._seeds, self.seed)

    def numbers(self, metric: str, places: np.ndarray) -> list[float]:
        """Return a metric's values of the trials at some positions, as their records have them: 1 is not 1.0.

        What is in the place of one that a trial does not have means nothing.
        """
        found = self.values[metric][places]
        if self._types[metric] == {"d"}:
            return found.tolist()  # type: ignore[no-any-return]
        found = np.nan_to_num(found)
        if self._types[metric] == {"q"} and np.abs(found).max(initial=0) < _MOST_EXACT:
            return found.astype(np.int64).tolist()  # type: ignore[no-any-return]
        return [self._records[place].values.get(metric, math.nan) for place in places.tolist()]

    def pairs(self, ours: np.ndarray, theirs: np.ndarray, partner: np.ndarray) -> TrialPairs:
        """Return the pairs of one of our trials and one of theirs that have the same seed.

        Args:
            ours, theirs: int64 positions of trials, each with a configuration and a seed of its own on its side.
            partner: int64 of shape (configurations,), the configuration to which one of ours is compared. -1: none.
        """
        keys, seeds = self._keys, len(self._seeds)
        order = theirs[np.argsort(keys[theirs])]
        wanted = partner[self.configuration[ours]] * seeds + keys[ours] % max(1, seeds)
        places = np.searchsorted(keys[order], wanted)
        has = places < len(order)
        has[has] = keys[order[places[has]]] == wanted[has]
        return TrialPairs(self, order[places[has]], ours[has])

    @cached_property
    def last_of_each(self) -> np.ndarray:
        """The positions of the trials, of several with one configuration and seed that of the last."""
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


def value_columns(records: Sequence[Record]) -> tuple[dict[str, np.ndarray], dict[str, set[str]]]:
    """Return the values of all records by metric, and the types that they have there.

    Returns:
        Metric -> float64 of shape (records,), with NaN where a record lacks it, and metric -> codes of its types, see
        `bench.results.packed_values`.

    Example:
        >>> columns, types = value_columns([Record("a", {}, 0, "ok", values={"steps": 3}), Record("b", {}, 1, "ok")])
        >>> columns["steps"].tolist(), types["steps"]
        ([3.0, nan], {'q'})
    """
    # The records of a run have few different sets of metrics and types.
    groups: dict[tuple[Layout, str], tuple[list[int], list[bytes]]] = {}
    for place, record in enumerate(records):
        values, other = record.values, ""
        if not isinstance(values, PackedValues):
            try:
                values = PackedValues(values)
            except (KeyError, ValueError):  # another type, or beyond 64 bits
                values, other = PackedValues({name: float(value) for name, value in values.items()}), "other"
        places, cells = groups.setdefault((values.layout, other), ([], []))
        places.append(place)
        cells.append(values.cells)
    columns: dict[str, np.ndarray] = {}
    types: dict[str, set[str]] = {}
    for (layout, other), (places, cells) in groups.items():
        block = b"".join(cells)
        for at, name in enumerate(layout.names):
            columns.setdefault(name, np.full(len(records), math.nan))[places] = layout.column(block, at)
            types.setdefault(name, set()).add(other or layout.codes[at])
    return columns, types


def _logs(values: np.ndarray) -> np.ndarray:
    """Return natural logarithms, NaN of NaN. Those of Python and of numpy differ in the last digit."""
    return np.array([math.log(value) if value == value else math.nan for value in values.tolist()], float)
