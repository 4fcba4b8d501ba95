"""Paired effects: the gain over `train`, and each factor's main effect, with all else and the seed equal.

Step times are compared by each trial's median step, over all pairs, whether or not they reached the target. Pairs with
a contended trial are left out if at least three others remain. A factor such as a learning rate only changes numbers,
not the operations of a step. Any difference of step times between its values is noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fusetune.bench.results import Record
from fusetune.bench.spec import field_of, freeze
from fusetune.bench.stats.significance import Estimate
from fusetune.bench.stats.trial_columns import TrialColumns, TrialPairs, reached

Obstacle = Literal[
    "no target", "none reached", "first is train", "train not run", "train never reached", "no shared seed"
]

# Fields that change numbers only. No value of theirs changes the operations of a step.
_NUMBERS = {
    *("train.base_lr", "train.schedule", "train.epochs", "train.betas", "train.eps", "train.alpha"),
    *("train.lr_decay", "train.initial_accumulator_value"),
    *("data.seed", "data.validation", "data.limit"),
}
# Fields for which 0 skips an operation. Any two other values mean the same work.
_SWITCHED_OFF_BY_ZERO = {
    *("train.weight_decay", "train.momentum", "train.dampening", "train.label_smoothing", "model.dropout"),
}


@dataclass(frozen=True)
class Gain:
    """The gain of the first place over the spec's `train` configuration, paired by seed.

    Ratios above 1 favour the first place. The decomposition time = steps x step_time is exact. All three are geometric
    means over the same seeds, and a seed's step time is its time to target over its steps to target.

    Args:
        obstacle: why there is no decomposition. None when there is one.
        time, steps, step_time: train / first. Without a decomposition, only step_time may be known, over all steps.
            Its interval is not narrower than that over all pairs.
        steps_share: share of log(time) due to fewer steps, 0..1. None when one of the two factors is below 1.
        score: first - train of the summary's score metric.
        same_work: whether the two configurations have the same operations per step. step_time then has no interval.
    """

    obstacle: Obstacle | None
    time: Estimate | None = None
    steps: Estimate | None = None
    step_time: Estimate | None = None
    steps_share: float | None = None
    score: Estimate | None = None
    same_work: bool = False


@dataclass(frozen=True)
class Level:
    """One level of a factor against the reference level, over trials with equal other factors and seed.

    Args:
        value: the level.
        is_reference: whether this is the reference level.
        reached, n: trials of this level that reached the target (None without a target), and all of them.
        pairs: number of matched pairs, whether or not they reached the target. 0 for the reference itself.
        time, steps: reference / level over the pairs where both reached. Above 1 the level is better.
        step_time: reference / level of the median step time, over all pairs. None where `same_work`.
        score: level - reference of the summary's score metric, over the pairs where both have it.
        same_work: whether both levels have the same operations per step.
    """

    value: Any
    is_reference: bool
    reached: int | None
    n: int
    pairs: int
    time: Estimate | None = None
    steps: Estimate | None = None
    step_time: Estimate | None = None
    score: Estimate | None = None
    same_work: bool = False


@dataclass(frozen=True)
class Effect:
    """The main effect of one factor. The first level is the reference."""

    factor: str
    levels: tuple[Level, ...]


def gain(first: Sequence[Record], train: Sequence[Record], *, score_metric: str, with_target: bool) -> Gain:
    """Decompose the first place's gain over `train` into fewer steps and faster steps.

    Args:
        first, train: the records of the two configurations, which differ. `train` may be empty.
        score_metric: the metric whose difference is reported beside the times.
        with_target: whether the spec has a target.
    """
    by_seed = {record.seed: at for at, record in enumerate(train)}
    both = [(by_seed[r.seed], at) for at, r in enumerate(first, start=len(train)) if r.seed in by_seed]
    pairs = TrialPairs(
        TrialColumns([*train, *first], score_metric), *np.array(both, np.int64).reshape(-1, 2).T
    )
    alike = bool(len(pairs)) and all(
        same_work(name, value, train[0].factors.get(name)) for name, value in first[0].factors.items()
    )
    time, steps, step_time = pairs.split()
    over_all, score = pairs.step_time(), pairs.score()
    if time is None or steps is None or step_time is None:
        obstacle = _obstacle(first, train, with_target=with_target)
        return Gain(obstacle, step_time=None if alike else over_all, score=score, same_work=alike)
    step_time = _without_interval(step_time) if alike else _no_narrower(step_time, over_all)
    both_help = time.value > 1 and steps.value >= 1 and step_time.value >= 1
    share = math.log(steps.value) / math.log(time.value) if both_help else None
    return Gain(None, time, steps, step_time, share, score, alike)


def same_work(factor: str, value: Any, other: Any) -> bool:
    """Whether a step has the same operations with either value of a factor, so that neither can be faster.

    Example:
        >>> same_work("base_lr", 0.1, 0.5), same_work("weight_decay", 0, 0.1), same_work("batch_size", 32, 64)
        (True, False, False)
    """
    if freeze(value) == freeze(other):
        return True
    field = field_of(factor)
    if field in _NUMBERS or field.startswith("train.schedule."):
        return True
    return field in _SWITCHED_OFF_BY_ZERO and bool(value) and bool(other)


def _without_interval(estimate: Estimate) -> Estimate:
    """Return an estimate without an interval."""
    return Estimate(estimate.value, None, None, estimate.n, estimate.neutral)


def _no_narrower(estimate: Estimate, other: Estimate | None) -> Estimate:
    """Widen an interval to include the one over more pairs."""
    if other is None or estimate.low is None or estimate.high is None:
        return estimate
    if other.low is None or other.high is None:
        return _without_interval(estimate)
    low, high = min(estimate.low, other.low), max(estimate.high, other.high)
    return Estimate(estimate.value, low, high, estimate.n, estimate.neutral)


def _obstacle(first: Sequence[Record], train: Sequence[Record], *, with_target: bool) -> Obstacle:
    """Return why no seed reached the target in both configurations."""
    if not train:
        return "train not run"
    if not with_target:
        return "no target"
    if not any(map(reached, first)):
        return "none reached"
    return "no shared seed" if any(map(reached, train)) else "train never reached"


def main_effect(
    factor: str,
    values: Sequence[Any],
    baseline: Mapping[str, Any],
    columns: TrialColumns,
    *,
    with_target: bool,
) -> Effect:
    """Compare each level of a factor with the reference: `train`'s value where it was run, else the first.

    Args:
        factor: the factor's name.
        values: the factor's levels, which include all levels in the trials.
        baseline: factor name -> `train`'s value.
        columns: all trials of the run.
        with_target: whether the spec has a target.
    """
    level_of = [freeze(factors[factor]) for factors in columns.configurations]
    others_of = [
        freeze({name: value for name, value in factors.items() if name != factor})
        for factors in columns.configurations
    ]
    trials = columns.last_of_each
    by_level = {
        level: trials[
            np.isin(columns.configuration[trials], [at for at, its in enumerate(level_of) if its == level])
        ]
        for level in map(freeze, values)
    }
    reference = freeze(baseline.get(factor))
    if not len(by_level.get(reference, ())):
        reference = freeze(values[0])
    reference_value = next(value for value in values if freeze(value) == reference)
    with_reference = {
        others: at
        for at, (level, others) in enumerate(zip(level_of, others_of, strict=True))
        if level == reference
    }
    partner = np.array([with_reference.get(others, -1) for others in others_of], np.int64)
    levels = []
    for value in sorted(values, key=lambda value: freeze(value) != reference):
        is_reference = freeze(value) == reference
        mine = by_level[freeze(value)]
        pairs = columns.pairs(mine[:0] if is_reference else mine, by_level[reference], partner)
        time, steps, _ = pairs.split()
        alike = not is_reference and same_work(factor, value, reference_value)
        levels.append(
            Level(
                value=value,
                is_reference=is_reference,
                reached=int(columns.reached[mine].sum()) if with_target else None,
                n=len(mine),
                pairs=len(pairs),
                time=time,
                steps=steps,
                step_time=None if alike else pairs.step_time(),
                score=pairs.score(),
                same_work=alike,
            )
        )
    return Effect(factor, tuple(levels))
