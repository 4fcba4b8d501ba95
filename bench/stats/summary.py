"""Summary of a run's records: results of each configuration, their ranking, and its significance.

Pure functions over a run and its records, without printing and without torch. `bench.stats.effects` has the
comparisons paired by seed. `bench.stats.significance` has the tests and intervals, and `bench.stats.wording` the
sentences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, compress
from typing import Any

import numpy as np

from fusetune.bench.results import STATUSES, Record, RunInfo, ThreadsChoice, TrainingOutcome
from fusetune.bench.spec import AUTO, by_field, freeze
from fusetune.bench.stats import significance
from fusetune.bench.stats.caveats import Caveat, caveats_of, provenances
from fusetune.bench.stats.curves import CurvePoint, curve_metric, median_curve
from fusetune.bench.stats.device_kinds import on_one_kind
from fusetune.bench.stats.diagnosis import Diagnosis, merge
from fusetune.bench.stats.effects import (
    Effect,
    Gain,
    gain,
    main_effect,
)
from fusetune.bench.stats.places import Places, places_of
from fusetune.bench.stats.scaling import Scaling, scaling_of
from fusetune.bench.stats.significance import ALPHA, Verdict
from fusetune.bench.stats.trial_columns import TrialColumns, value_columns
from fusetune.bench.units import METRICS
from fusetune.tuner.training import Target

# Metric of the target -> score that ranks trials without a time to target.
SCORES: dict[str, str] = {
    "val_accuracy": "best_val_accuracy",
    "val_loss": "best_val_loss",
    "test_accuracy": "test_accuracy",
    "test_loss": "test_loss",
    "train_accuracy": "final_train_accuracy",
    "train_loss": "final_train_loss",
}
TROUBLES = ("diverged", "out_of_memory", "failed")
_CLOCKS = ("setup_s", "first_step_s", "compile_s", "training_s", "evaluation_s")
_LEAST_FREEDOM = 3  # with fewer degrees of freedom a standard deviation is too uncertain


@dataclass(frozen=True)
class Spread:
    """Median and range of a metric over one configuration's trials. A missed target counts as infinite."""

    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Configuration:
    """The results of the trials that differ only in the seed.

    Args:
        rank: 1 is first.
        factors: factor name -> value.
        n: number of recorded trials.
        reached: number of trials that reached the target. None without a target.
        statuses: status -> number of trials, in the order of `bench.results.records.STATUSES`.
        metrics: metric -> spread over the trials that have it. The `*_to_target` metrics are over all n.
        is_baseline: whether this is the spec's `train` configuration.
        contended: number of trials that were timed while other processes used the processor.
        records: of the trials, by seed.
        curve_metric: what the curve is of: the target's metric, or the validation accuracy without a target.
    """

    rank: int
    factors: dict[str, Any]
    n: int
    reached: int | None
    statuses: dict[str, int]
    metrics: dict[str, Spread]
    is_baseline: bool
    contended: int = 0
    records: Sequence[Record] = field(default=(), repr=False, compare=False)
    curve_metric: str = "val_accuracy"

    @cached_property
    def curve(self) -> tuple[CurvePoint, ...]:
        """The medians over the seeds at each epoch. Computed when asked for: a plot shows few of many."""
        return median_curve(self.records, self.curve_metric)


@dataclass(frozen=True)
class Trouble:
    """Trials of one configuration that diverged, ran out of memory or failed for the same reason."""

    factors: dict[str, Any]
    seeds: tuple[int, ...]
    status: str
    reason: str
    wanted_bytes: float | None
    limit_bytes: float | None


@dataclass(frozen=True)
class Comparison:
    """The first place against another configuration, with Holm's adjusted p-value.

    The verdict is `pass` if the first place is ahead. It is `fail` if it is behind although its median is better. Else
    it is `can't tell`.
    """

    rank: int
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class FirstPlace:
    """The significance of the first place.

    Args:
        comparisons: one per other configuration, by rank.
        n: the smaller number of trials of the first and the second.
        least_n: the fewest seeds with which the comparisons can be significant.
        smallest_visible: the ratio of times that n seeds detect with a power of 80 %. None if no ratio is, or if the
            spread between seeds is unknown.
        verdict: `pass` when the first place is ahead of every other, else `can't tell`.
    """

    comparisons: tuple[Comparison, ...]
    n: int
    least_n: int
    smallest_visible: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Summary:
    """The content of a report on trainings.

    Args:
        run: the run.
        directory: the run's directory, or None.
        target: the spec's target, or None.
        score_metric: the metric that ranks trials without a time to target.
        configurations: by rank.
        troubles: trials that diverged, ran out of memory or failed, by rank.
        diagnoses: the trainings' diagnoses, by rank.
        first: the significance of the first place. None with fewer than two configurations.
        gain: the gain of the first place over `train`. None without records.
        effects: one per factor with at least two levels.
        fused_paths: the implementations that fused optimizers and activations used, without duplicates.
        auto_rates: a line per trial on the rate of `base_lr: auto`.
        threads: the number of threads of the trials, and the reason. Empty if the records lack it.
        recorded, planned: number of trials.
        trials_s: total time of all trials in seconds, with set-up, compilation and evaluation.
        caveats: warnings for the top of the report.
        scaling: one per configuration on several devices.
        places: nodes and devices of a cluster. None where no trial ran on one.
    """

    run: RunInfo
    directory: str | None
    target: Target | None
    score_metric: str
    configurations: tuple[Configuration, ...]
    troubles: tuple[Trouble, ...]
    diagnoses: tuple[Diagnosis, ...]
    first: FirstPlace | None
    gain: Gain | None
    effects: tuple[Effect, ...]
    fused_paths: tuple[str, ...]
    auto_rates: tuple[str, ...]
    threads: str
    recorded: int
    planned: int
    trials_s: float
    caveats: tuple[Caveat, ...] = ()
    scaling: tuple[Scaling, ...] = ()
    places: Places | None = None


@dataclass(frozen=True)
class _Cell:
    """One configuration's records by seed, with their times and scores for the ranking, and their metrics.

    `log_times` are those of the times that are finite.
    """

    factors: dict[str, Any]
    records: list[Record]
    statuses: Counter[str]
    times: list[float]
    scores: list[float]
    log_times: list[float]
    metrics: dict[str, Spread]
    contended: int

    @property
    def reached(self) -> int:
        return sum(map(math.isfinite, self.times))

    @property
    def troubled(self) -> int:
        return sum(self.statuses[status] for status in TROUBLES)


def summarize(run: RunInfo, records: Sequence[Record], directory: str | None = None) -> Summary:
    """Return a run's summary: ranking, significance of the first place, its gain, and each factor's main effect.

    A configuration's time to target is the median over its seeds. A seed that missed the target counts as infinite, for
    whatever reason, such as divergence, memory or failure. Configurations are ranked by that time, then by the share of
    seeds that reached the target, then by the median score.

    Args:
        run: the run, with spec (factors, target), baseline, trials, and the provenance for the report's header.
        records: the records of the run, possibly none, in any order.
        directory: the run's directory, for the resume command.

    Returns:
        The summary, which does not depend on the order of the records.

    Example:
        >>> from fusetune.bench.results import WrittenSpec
        >>> spec = WrittenSpec({"factors": {"batch_size": [64, 128]}})
        >>> run = RunInfo(spec=spec, baseline={"batch_size": 64}, trials=2)
        >>> records = [
        ...     Record("a", {"batch_size": 64}, 0, "ok", values={"best_val_accuracy": 0.5}),
        ...     Record("b", {"batch_size": 128}, 0, "ok", values={"best_val_accuracy": 0.6}),
        ... ]
        >>> summarize(run, records).configurations[0].factors
        {'batch_size': 128}
    """
    target = run.spec.target
    score_metric = SCORES[target.metric if target else "val_accuracy"]
    caveats, places, all_records = caveats_of(run, records), places_of(records), records
    records, _ = on_one_kind(records)
    columns = TrialColumns(records, score_metric)
    values = columns.values if records is all_records else value_columns(all_records)[0]
    levels = {name: _levels(name, values, columns.configurations) for name, values in run.spec.levels.items()}
    baseline = freeze(run.baseline)
    cells = _ranked(_cells(records, columns, score_metric, with_target=target is not None), levels)
    return Summary(
        run=run,
        directory=directory,
        target=target,
        score_metric=score_metric,
        configurations=tuple(
            _configuration(rank, cell, target, is_baseline=freeze(cell.factors) == baseline)
            for rank, cell in enumerate(cells, start=1)
        ),
        troubles=tuple(trouble for cell in cells for trouble in _troubles(cell)),
        diagnoses=tuple(diagnosis for cell in cells for diagnosis in merge(cell.records)),
        first=judge_first(cells) if len(cells) > 1 else None,
        gain=_gain(cells, baseline, score_metric, with_target=target is not None) if cells else None,
        effects=tuple(
            main_effect(
                name,
                values,
                run.baseline,
                columns,
                with_target=target is not None,
            )
            for name, values in levels.items()
            if records and len(values) > 1
        ),
        fused_paths=_fused_paths(run.spec.implementation, records),
        auto_rates=tuple(_auto_rates(records)),
        threads=_threads(records),
        recorded=len(records),
        planned=run.trials,
        trials_s=_seconds(values),
        caveats=caveats,
        scaling=scaling_of([record for cell in cells for record in cell.records]),
        places=places,
    )


def _seconds(values: Mapping[str, np.ndarray]) -> float:
    """Return the seconds that all trials took together."""
    clocks = (values[clock] for clock in _CLOCKS if clock in values)
    return math.fsum(chain.from_iterable(clock[~np.isnan(clock)].tolist() for clock in clocks))


def _fused_paths(default: str, records: Iterable[Record]) -> tuple[str, ...]:
    """Return the paths of trials with `implementation: fused`, with the reason where that is plain PyTorch."""
    found = set()
    for record in records:
        path = record.provenance.get("path")
        if path is None:
            continue
        implementation = by_field(record.factors).get("train.implementation", default)
        if implementation == "fused" and isinstance(path, Mapping):
            ways = ", ".join(f"{part} by {way}" for part, way in path.items())
            reason = record.provenance.get("path_reason")
            found.add(f"{ways}: {reason}" if reason else ways)
    return tuple(sorted(found))


def _auto_rates(records: Iterable[Record]) -> Iterator[str]:
    """Yield a line per trial with the learning rate of a range test, and its interval."""
    for record in records:
        chosen = record.outcome.base_lr_auto if isinstance(record.outcome, TrainingOutcome) else None
        if chosen is not None:
            span = f" ({chosen.interval[0]:.3g}..{chosen.interval[1]:.3g})" if chosen.interval else ""
            yield f"{chosen.base_lr:.3g}{span} for {record.trial}"


def _threads(records: Iterable[Record]) -> str:
    """Return the number of threads of the trials, and the reason. Records of one run agree."""
    found = {
        f"{choice.threads} ({'auto: ' if choice.asked == AUTO else ''}{choice.reason})"
        for provenance in provenances(records)
        if (given := provenance.get("threads_choice")) and (choice := ThreadsChoice.from_dict(given))
    }
    return "; ".join(sorted(found))


def _levels(factor: str, named: Iterable[Any], configurations: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return a factor's levels in the spec, then others that ran, such as `train`'s in one-at-a-time designs."""
    found = {freeze(value): value for value in named}
    others = {freeze(factors[factor]): factors[factor] for factors in configurations}
    found |= {key: others[key] for key in sorted(others.keys() - found.keys(), key=repr)}
    return list(found.values())


def _cells(
    records: Sequence[Record], columns: TrialColumns, score_metric: str, *, with_target: bool
) -> list[_Cell]:
    """Group the records that differ only in the seed."""
    is_troubled = np.array([record.status in TROUBLES for record in records], bool)
    times = (
        np.where(columns.reached, columns.time, math.inf) if with_target else np.full(len(records), math.inf)
    )
    sign = -1 if METRICS[score_metric].better == "higher" else 1
    scores = np.where(is_troubled | np.isnan(columns.score), math.inf, sign * columns.score)
    order = np.lexsort((columns.seed, columns.configuration))
    starts = np.searchsorted(columns.configuration[order], np.arange(len(columns.configurations) + 1))
    groups = list(map(slice, starts[:-1].tolist(), starts[1:].tolist()))
    statuses = [records[place].status for place in order.tolist()]
    spreads = _spreads(columns, order, groups)
    times, scores, contended = times[order], scores[order], columns.contended[order]
    log_times = columns.log_time[order]
    return [
        _Cell(
            factors=records[order[group.start]].factors,
            records=[records[place] for place in order[group].tolist()],
            statuses=Counter(statuses[group]),
            times=times[group].tolist(),
            scores=scores[group].tolist(),
            log_times=log_times[group][np.isfinite(times[group])].tolist(),
            metrics=metrics,
            contended=int(contended[group].sum()),
        )
        for group, metrics in zip(groups, spreads, strict=True)
    ]


def _spreads(columns: TrialColumns, order: np.ndarray, groups: Sequence[slice]) -> list[dict[str, Spread]]:
    """Return the spread of each metric that a trial has, for each group of the trials in that order."""
    found: list[dict[str, Spread]] = [{} for _ in groups]
    starts = [group.start for group in groups]
    for metric in METRICS:
        if metric not in columns.values:
            continue
        of_target = "_to_target" in metric
        has = np.isfinite(columns.values[metric][order])
        if of_target:
            has &= columns.reached[order]
        numbers, counts = columns.numbers(metric, order), np.add.reduceat(has, starts, dtype=np.int64)
        for group, count, spreads in zip(groups, counts.tolist(), found, strict=True):
            if not count:
                continue
            values = numbers[group]
            if count < len(values):
                known = list(compress(values, has[group].tolist()))
                values = [*known, *[math.inf] * (len(values) - count)] if of_target else known
            spreads[metric] = _spread(values)
    return found


def _spread(values: Sequence[float]) -> Spread:
    """Return the spread of one or more values."""
    ordered = sorted(values)
    return Spread(significance.median(ordered), ordered[0], ordered[-1], len(ordered))


def _ranked(cells: list[_Cell], levels: Mapping[str, list[Any]]) -> list[_Cell]:
    """Sort by time to target, share of seeds that reached it, score, and finally the order of levels in the spec."""

    places = {
        name: {level: at for at, level in reversed(list(enumerate(map(freeze, values))))}
        for name, values in levels.items()
    }

    def place(cell: _Cell) -> tuple[Any, ...]:
        troubled = cell.troubled / len(cell.records)
        worst = max(map(STATUSES.index, cell.statuses))
        named = tuple(at[freeze(cell.factors[name])] for name, at in places.items())
        share = cell.reached / len(cell.records)
        return (
            significance.median(cell.times),
            -share,
            significance.median(cell.scores),
            troubled,
            worst,
            named,
        )

    return sorted(cells, key=place)


def _configuration(rank: int, cell: _Cell, target: Target | None, *, is_baseline: bool) -> Configuration:
    return Configuration(
        rank=rank,
        factors=cell.factors,
        n=len(cell.records),
        reached=cell.reached if target else None,
        statuses={status: cell.statuses[status] for status in STATUSES if cell.statuses[status]},
        metrics=cell.metrics,
        is_baseline=is_baseline,
        contended=cell.contended,
        records=cell.records,
        curve_metric=curve_metric(target),
    )


def _troubles(cell: _Cell) -> list[Trouble]:
    """Return the troubles of a cell's trials, grouped by reason."""
    if not cell.troubled:
        return []
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in cell.records:
        if record.status in TROUBLES:
            groups.setdefault((record.status, record.reason), []).append(record)
    return [
        Trouble(
            cell.factors,
            tuple(record.seed for record in group),
            status,
            reason,
            max((r.values["wanted_bytes"] for r in group if "wanted_bytes" in r.values), default=None),
            group[0].values.get("limit_bytes"),
        )
        for (status, reason), group in groups.items()
    ]


def judge_first(cells: Sequence[_Cell]) -> FirstPlace:
    """Compare the first cell with every other by exact Mann-Whitney tests.

    The first place is selected by the same data, so any pair could have been the one compared. Holm's correction is
    therefore over all pairs of configurations. A correction over the winner's own comparisons is too weak. With 8 equal
    configurations and 8 seeds, it gives a significant winner in 9 % of runs.
    """
    from fusetune.bench.stats.all_pairs import first_against_each

    samples = [cell.times if cells[0].reached else cell.scores for cell in cells]
    pairs = math.comb(len(cells), 2)
    comparisons = tuple(
        Comparison(rank, p, _verdict(samples[0], samples[rank - 1], p))
        for rank, p in enumerate(first_against_each(samples), start=2)
    )
    n = min(len(samples[0]), len(samples[1]))
    return FirstPlace(
        comparisons=comparisons,
        n=n,
        least_n=significance.least_n(pairs),
        smallest_visible=_smallest_visible(cells, n, pairs),
        verdict="pass" if all(c.verdict == "pass" for c in comparisons) else "can't tell",
    )


def _verdict(first: Sequence[float], other: Sequence[float], p: float) -> Verdict:
    """Return the verdict on `first` from an adjusted p-value and Mann and Whitney's U. Lower values are better."""
    if p > ALPHA:
        return "can't tell"
    ours, theirs = np.sort(first), np.array(other)
    # Twice Mann and Whitney's U of the other: the pairs in which it is higher, of equal ones a half each.
    doubled_u = int(sum(np.searchsorted(ours, theirs, side).sum() for side in ("left", "right")))
    return "pass" if doubled_u > len(ours) * len(theirs) else "fail"


def _smallest_visible(cells: Sequence[_Cell], n: int, comparisons: int) -> float | None:
    """Return the ratio of times that n seeds detect, from the pooled variance of log times between seeds."""
    shift = significance.smallest_visible_shift(n, comparisons)
    squares, freedom = 0.0, 0
    for cell in cells:
        logs = cell.log_times
        if logs:
            mean = math.fsum(logs) / len(logs)
            squares += math.fsum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
    if shift is None or freedom < _LEAST_FREEDOM or squares == 0:
        return None
    return math.exp(shift * math.sqrt(squares / freedom))


def _gain(cells: Sequence[_Cell], baseline: Hashable, score_metric: str, *, with_target: bool) -> Gain:
    """Return the first place's gain over the cell of the `train` configuration."""
    if freeze(cells[0].factors) == baseline:
        return Gain("first is train")
    train = next((cell.records for cell in cells if freeze(cell.factors) == baseline), [])
    return gain(cells[0].records, train, score_metric=score_metric, with_target=with_target)
