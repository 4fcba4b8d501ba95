"""What a change does, all else and the seed equal: the gain over `train`, and each factor's main effect."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench import significance
from bench.records import Record
from bench.significance import Estimate

Obstacle = Literal[
    "no target", "none reached", "first is train", "train not run", "train never reached", "no shared seed"
]


@dataclass(frozen=True)
class Gain:
    """The first place over the spec's `train` configuration, paired by seed; ratios above 1 favour the first place.

    time = steps x step_time holds exactly: all three are geometric means over the same seeds, and a seed's step time
    is its time to target over its steps to target.

    Args:
        obstacle: why there is no split; None when there is one.
        time, steps, step_time: train / first. Without a split, step_time alone may be known, over all steps.
        steps_share: part of log(time) that fewer steps explain, 0..1; None when one of the two works against.
        score: first - train of the summary's score metric.
    """

    obstacle: Obstacle | None
    time: Estimate | None = None
    steps: Estimate | None = None
    step_time: Estimate | None = None
    steps_share: float | None = None
    score: Estimate | None = None


@dataclass(frozen=True)
class Level:
    """One value of a factor against the factor's reference, over trials equal in all else and in the seed.

    Args:
        value: the level.
        is_reference: whether the others are compared with this one.
        reached, n: trials of this level that reached the target (None without one), and all of them.
        pairs: matched pairs there are, whether or not they reached the target; 0 for the reference itself.
        time, steps: reference / level over the pairs where both reached; above 1 the level is better.
        step_time: the same; over all pairs when no pair reached.
        score: level - reference of the summary's score metric, over the pairs where both have it.
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


@dataclass(frozen=True)
class Effect:
    """The main effect of one factor; the first level is the reference."""

    factor: str
    levels: tuple[Level, ...]


def freeze(value: Any) -> Hashable:
    """Make a factor value comparable; a mapping that only names something equals the bare name."""
    if isinstance(value, Mapping):
        if set(value) == {"name"}:
            return freeze(value["name"])
        return tuple(sorted((key, freeze(item)) for key, item in value.items()))
    return tuple(map(freeze, value)) if isinstance(value, (list, tuple)) else value


def named_levels(spec: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the factors that a spec, as run.json has it, varies: name -> the values that it names.

    Example:
        >>> named_levels({"configurations": [{"a": 1, "b": [2, 3]}, {"a": 4}]})
        {'a': [1, 4], 'b': [2, 3]}
    """
    found: dict[str, dict[Hashable, Any]] = {}
    for entry in spec.get("configurations") or ():
        for name, given in entry.items():
            values = given if isinstance(given, list) else [given]
            found.setdefault(name, {}).update(
                {freeze(v): v for v in values if freeze(v) not in found.get(name, {})}
            )
    listed = {name: list(values.values()) for name, values in found.items()}
    return listed or {name: values for name, values in (spec.get("factors") or {}).items() if values}


def reached(record: Record) -> bool:
    """Whether the trial counts as having reached its target; one that diverged afterwards does not."""
    return record.status == "ok" and "time_to_target_s" in record.values


def gain(first: Sequence[Record], train: Sequence[Record], *, score_metric: str, with_target: bool) -> Gain:
    """Split the first place's gain over `train` into fewer steps and faster steps.

    Args:
        first, train: the trials of the two configurations, which differ; `train` may be empty.
        score_metric: the metric whose difference is reported beside the times.
        with_target: whether the spec names a target.
    """
    by_seed = {record.seed: record for record in train}
    pairs = [(by_seed[record.seed], record) for record in first if record.seed in by_seed]
    score = _score_difference(pairs, score_metric)
    time, steps, step_time = _split(pairs)
    if time is None or steps is None or step_time is None:
        obstacle = _obstacle(first, train, with_target=with_target)
        return Gain(obstacle, step_time=_step_times(pairs), score=score)
    both_help = time.value > 1 and steps.value >= 1 and step_time.value >= 1
    share = math.log(steps.value) / math.log(time.value) if both_help else None
    return Gain(None, time, steps, step_time, share, score)


def _obstacle(first: Sequence[Record], train: Sequence[Record], *, with_target: bool) -> Obstacle:
    """Say why no seed reached the target in both configurations."""
    if not train:
        return "train not run"
    if not with_target:
        return "no target"
    if not any(map(reached, first)):
        return "none reached"
    return "no shared seed" if any(map(reached, train)) else "train never reached"


def _split(
    pairs: Iterable[tuple[Record, Record]],
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Return first / second of time, steps and step time, over the pairs where both reached the target."""
    values = [(a.values, b.values) for a, b in pairs if reached(a) and reached(b)]
    times = [(a["time_to_target_s"], b["time_to_target_s"]) for a, b in values]
    steps = [(a["steps_to_target"], b["steps_to_target"]) for a, b in values]
    step_times = [(at / as_, bt / bs) for (at, bt), (as_, bs) in zip(times, steps, strict=True)]
    return significance.ratio(times), significance.ratio(steps), significance.ratio(step_times)


def _step_times(pairs: Iterable[tuple[Record, Record]]) -> Estimate | None:
    """Return first / second of the step time, over the pairs where both have one, target or not."""
    both = [(a.values, b.values) for a, b in pairs if "step_time_s" in a.values and "step_time_s" in b.values]
    return significance.ratio([(a["step_time_s"], b["step_time_s"]) for a, b in both])


def _score_difference(pairs: Iterable[tuple[Record, Record]], metric: str) -> Estimate | None:
    """Return second - first of the score, over the pairs where both have one."""
    both = [(a.values, b.values) for a, b in pairs if metric in a.values and metric in b.values]
    return significance.difference([(b[metric], a[metric]) for a, b in both])


def main_effect(
    factor: str,
    values: Sequence[Any],
    baseline: Mapping[str, Any],
    records: Sequence[Record],
    *,
    score_metric: str,
    with_target: bool,
) -> Effect:
    """Compare each level of a factor with the reference: `train`'s value where it was run, else the first.

    Args:
        factor: its name.
        values: its levels, all that occur in `records` among them.
        baseline: factor name -> `train`'s value.
        records: all trials of the run.
        score_metric: the metric whose difference is reported beside the times.
        with_target: whether the spec names a target.
    """
    by_level: dict[Hashable, dict[Hashable, Record]] = {freeze(value): {} for value in values}
    for record in records:
        others = {name: value for name, value in record.factors.items() if name != factor}
        by_level[freeze(record.factors[factor])][freeze(others), record.seed] = record
    reference = freeze(baseline.get(factor))
    if not by_level.get(reference):
        reference = freeze(values[0])
    levels = []
    for value in sorted(values, key=lambda value: freeze(value) != reference):
        mine, theirs = by_level[freeze(value)], by_level[reference]
        pairs = [] if theirs is mine else [(theirs[key], mine[key]) for key in mine if key in theirs]
        time, steps, step_time = _split(pairs)
        levels.append(
            Level(
                value=value,
                is_reference=theirs is mine,
                reached=sum(map(reached, mine.values())) if with_target else None,
                n=len(mine),
                pairs=len(pairs),
                time=time,
                steps=steps,
                step_time=step_time or _step_times(pairs),
                score=_score_difference(pairs, score_metric),
            )
        )
    return Effect(factor, tuple(levels))
