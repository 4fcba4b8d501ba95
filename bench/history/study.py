"""From recorded runs to what they say: each metric over commits, its change points, and the gaps in between.

Pure functions, but for the count of commits, which the caller hands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.gate import Metric, Rules
from fusetune.bench.history.change_points import (
    LEAST_RUNS,
    LEAST_SERIES,
    NOISE_FLOOR,
    ChangePoint,
    find_change_points,
    find_steps,
    noise_of,
    quietest,
)
from fusetune.bench.history.entries import BenchmarkEntry, Entry, MetricEntry
from fusetune.bench.history.environment import environment_changes
from fusetune.bench.history.levels import Quartiles, Run, candidates
from fusetune.bench.history.log import History

# A pause is a gap from so many times the usual one on, and from so many days or commits on.
UNUSUAL = 4
GAP_DAYS = 7
GAP_COMMITS = 10
_DAY_S = 86_400.0
# A series that takes another value more often than this share of its runs has noise.
_MOST_STEPS = 0.25
# Beyond these, numbers that somebody made up would overflow.
_FARTHEST = 1e9
_LARGEST_LOG = 700.0

# Commits from one to another, the last included; None: not known.
CountCommits = Callable[[str | None, str | None], int | None]


@dataclass(frozen=True)
class Point:
    """One run of a metric.

    Args:
        run_id: of the run.
        commit, subject: what was measured; None: not known.
        time_s: of the commit, else of the recording, in seconds since 1970.
        dirty: whether there were uncommitted changes.
        value: the median over the run's processes, in SI base units. Infinite: more than half missed their target.
        level: what change points are found in: a logarithm, the reference loop divided out where that is quieter.
        processes: how many measured it.
    """

    run_id: str
    commit: str | None
    subject: str | None
    time_s: float
    dirty: bool | None
    value: float
    level: float
    processes: int


@dataclass(frozen=True)
class Change:
    """A change point of a metric.

    Args:
        index: of the first point after it.
        effect: relative change, such as 0.05 for 5 % more.
        before, after: typical values on both sides.
        direction: `worse`, `better` or `changed`.
        commits: from the last commit before to the first after, that one included; None: not known.
        environment: what changed between these two runs besides the code, a phrase each.
        at_gap: whether it lies at a gap.
        runs: how many have the typical value after it.
    """

    index: int
    effect: float
    before: float
    after: float
    direction: str
    commits: int | None
    environment: tuple[str, ...]
    at_gap: bool
    runs: int


@dataclass(frozen=True)
class Gap:
    """A pause between two successive runs that is longer than usual.

    Args:
        index: of the first run after it.
        seconds: between the commits of both.
        commits: without runs in between; None: not known.
        others: other kinds of machines -> runs there meanwhile.
    """

    index: int
    seconds: float
    commits: int | None
    others: Mapping[str, int]


@dataclass(frozen=True)
class Series:
    """One metric of one benchmark over the runs that have it.

    Args:
        benchmark, metric, unit, better, comparison: see `bench.gate.Row`.
        points: in order.
        changes: in order.
        noise: standard deviation between runs, as a relative change.
        estimator: what a level is, such as `lower quartile / reference`.
        gap_at: indices of points that come after a gap.
        ended: runs since the last one that has this metric.
    """

    benchmark: str
    metric: str
    unit: str
    better: str
    comparison: str
    points: tuple[Point, ...]
    changes: tuple[Change, ...]
    noise: float
    estimator: str
    gap_at: tuple[int, ...] = ()
    ended: int = 0


@dataclass(frozen=True)
class HistoryStudy:
    """What the history of a spec says.

    Args:
        spec, machine: which history.
        path: of its file.
        runs: how many there are.
        first_s, last_s: times of the first and the last, in seconds since 1970.
        series: one for each metric of each benchmark, in the order of the newest run.
        gaps: between runs.
        notes: what a reader must know, a sentence each.
    """

    spec: str
    machine: str
    path: str
    runs: int
    first_s: float
    last_s: float
    series: tuple[Series, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as a JSON object. An infinite value is null."""
        content = _finite(asdict(self))
        assert isinstance(content, dict)
        return content


def study_history(
    history: History, count_commits: CountCommits, metric: str | None = None, rules: Rules | None = None
) -> HistoryStudy:
    """Find the changes and gaps of a history.

    Args:
        history: at least one run.
        count_commits: from git.
        metric: the only one that is asked for.
        rules: thresholds and directions; None: those of the gate where a spec says nothing.

    Raises:
        InputError: no run has the metric.
    """
    names = _metrics(history.entries)
    if metric is not None:
        known = {name for _, name in names}
        if metric not in known:
            raise InputError.unknown("--metric", metric, known)
        names = [each for each in names if each[1] == metric]
    steps = [count_commits(before.commit, after.commit) for before, after in pairwise(history.entries)]
    gaps = _gaps(history, steps)
    return HistoryStudy(
        spec=history.spec,
        machine=history.machine,
        path=str(history.path),
        runs=len(history.entries),
        first_s=history.entries[0].time_s,
        last_s=history.entries[-1].time_s,
        series=tuple(
            _series(history.entries, *each, gaps=gaps, count_commits=count_commits, rules=rules or Rules())
            for each in names
        ),
        gaps=gaps,
        notes=(*history.notes, *_notes(history)),
    )


def newest_worsening(study: HistoryStudy, metric: str) -> tuple[str, str] | None:
    """Return the last commit before and the first after the newest change of a metric for the worse.

    Args:
        study: of a history.
        metric: of any benchmark.

    Returns:
        Hashes. None: there is no such change between commits that are known.
    """
    found = [
        (series.points[change.index].time_s, before, after)
        for series in study.series
        if series.metric == metric
        for change in series.changes
        if change.direction == "worse"
        and (before := series.points[change.index - 1].commit) is not None
        and (after := series.points[change.index].commit) is not None
        and before != after
    ]
    return max(found)[1:] if found else None


def _metrics(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return benchmark and metric of all runs, those of the newest run first."""
    return list(
        dict.fromkeys(
            (benchmark, metric)
            for entry in reversed(entries)
            for benchmark, measured in entry.benchmarks.items()
            for metric in measured.metrics
        )
    )


def _series(
    entries: Sequence[Entry],
    benchmark: str,
    metric: str,
    *,
    gaps: Sequence[Gap],
    count_commits: CountCommits,
    rules: Rules,
) -> Series:
    """Put one metric's runs into a row and find its changes."""
    having = [
        (index, entry, measured, measured.metrics[metric])
        for index, entry in enumerate(entries)
        if (measured := entry.benchmarks.get(benchmark)) is not None and metric in measured.metrics
    ]
    newest = having[-1][3]
    better = rules.given_better(benchmark, metric) or newest.better
    # What is measured in another unit by now is another metric.
    having = [each for each in having if each[3].unit == newest.unit]
    values = [_typical(found) for *_, found in having]
    estimator, levels = _levels([(measured, found) for _, _, measured, found in having], values)
    noise = noise_of(levels)
    found = _change_points(newest, values, levels, rules.threshold(benchmark, metric, _as_metric(newest)))
    places = [index for index, *_ in having]
    gap_at = tuple(
        number
        for number, (before, after) in enumerate(pairwise(places), start=1)
        if any(before < gap.index <= after for gap in gaps)
    )
    ends = [0, *(point.index for point in found), len(values)]
    changes = []
    for number, point in enumerate(found):
        last, first = having[point.index - 1][1], having[point.index][1]
        before = median(values[ends[number] : point.index])
        after = median(values[point.index : ends[number + 2]])
        effect = _effect(point, before, after, newest)
        changes.append(
            Change(
                index=point.index,
                effect=effect,
                before=before,
                after=after,
                direction=_direction(effect, better),
                commits=count_commits(last.commit, first.commit),
                environment=environment_changes(last, first, benchmark),
                at_gap=point.index in gap_at,
                runs=ends[number + 2] - point.index,
            )
        )
    return Series(
        benchmark=benchmark,
        metric=metric,
        unit=newest.unit,
        better=better,
        comparison=newest.comparison,
        points=tuple(
            Point(
                entry.run_id,
                entry.commit,
                entry.subject,
                entry.time_s,
                entry.dirty,
                value,
                level,
                len(found.median),
            )
            for (_, entry, _, found), value, level in zip(having, values, levels, strict=True)
        ),
        changes=tuple(changes),
        noise=_as_change(noise),
        estimator=estimator,
        gap_at=gap_at,
        ended=len(entries) - 1 - places[-1],
    )


def _typical(found: MetricEntry) -> float:
    return median(math.inf if value is None else value for value in found.median)


def _levels(
    measured: Sequence[tuple[BenchmarkEntry, MetricEntry]], values: Sequence[float]
) -> tuple[str, list[float]]:
    """Return the least noisy estimator and the levels by it."""
    if measured[-1][1].comparison == "timing" and all(
        value is not None and value > 0 for _, found in measured for value in found.median
    ):
        found = candidates([_run(*each) for each in measured])
        name = quietest(found)
        return name, found[name]
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) > 0:
        # A missed target is twice as far away as the farthest one that was reached.
        beyond = math.log(2) + math.log(max(finite))
        return "median", [math.log(value) if math.isfinite(value) else beyond for value in values]
    # Zeros and negative numbers have no logarithm: relative to their size.
    scale = median(map(abs, finite)) if finite else 1.0
    relative = (value / (scale or 1.0) if math.isfinite(value) else 2.0 for value in values)
    return "median", [max(-_FARTHEST, min(_FARTHEST, level)) for level in relative]


def _run(measured: BenchmarkEntry, found: MetricEntry) -> Run:
    medians = [value for value in found.median if value is not None]
    processes = [
        Quartiles(*each) for each in zip(found.q1 or medians, medians, found.q3 or medians, strict=True)
    ]
    reference = measured.reference
    if reference is None or len(reference.q1) != len(processes):
        return processes, None
    return processes, [
        Quartiles(*each) for each in zip(reference.q1, reference.median, reference.q3, strict=True)
    ]


def _change_points(
    newest: MetricEntry, values: Sequence[float], levels: Sequence[float], threshold: float
) -> tuple[ChangePoint, ...]:
    """Return the changes: of what hardly ever takes another value each, of what has noise those beyond it."""
    switches = sum(before != after for before, after in pairwise(values))
    if newest.comparison != "timing" and switches <= max(1, _MOST_STEPS * len(values)):
        steps = find_steps(values)
        starts = [0, *(step.index for step in steps)]
        # A count is repeatable. Whether a training is, three runs with the same outcome show.
        least = 1 if newest.comparison == "exact" else LEAST_RUNS
        return tuple(
            step
            for start, step in zip(starts, steps, strict=False)
            if step.index - start >= least and abs(_ratio(step.before, step.after)) > threshold
        )
    return find_change_points(levels, threshold=max(threshold, NOISE_FLOOR))


def _effect(point: ChangePoint, before: float, after: float, newest: MetricEntry) -> float:
    """Return the relative change. Of timings it is that of the levels, from which the machine's speed is removed."""
    if newest.comparison == "timing":
        return _as_change(point.jump)
    return _ratio(before, after)


def _as_change(log: float) -> float:
    """Return the relative change of a difference of logarithms."""
    return math.expm1(min(log, _LARGEST_LOG))


def _ratio(before: float, after: float) -> float:
    """Return the relative change between two values."""
    if before == after:
        return 0.0
    if math.isinf(after) or before == 0:
        return math.copysign(math.inf, after - before)
    return -1.0 if math.isinf(before) else (after - before) / abs(before)


def _direction(effect: float, better: str) -> str:
    if better == "neither":
        return "changed"
    return "better" if (effect < 0) == (better == "lower") else "worse"


def _as_metric(entry: MetricEntry) -> Metric:
    return Metric((1.0,), entry.unit, entry.better, entry.comparison)


def _gaps(history: History, steps: Sequence[int | None]) -> tuple[Gap, ...]:
    """Return the pauses that are unusual for this history."""
    times = [entry.time_s for entry in history.entries]
    pauses = [after - before for before, after in pairwise(times)]
    skipped = [None if step is None else max(0, step - 1) for step in steps]
    known = [step for step in skipped if step is not None]
    long_s = max(GAP_DAYS * _DAY_S, UNUSUAL * median(pauses)) if pauses else math.inf
    many = max(GAP_COMMITS, UNUSUAL * median(known)) if known else math.inf
    return tuple(
        Gap(
            index,
            pause,
            commits,
            {
                kind: count
                for kind, others in history.others
                if (count := sum(times[index - 1] < time < times[index] for time in others))
            },
        )
        for index, (pause, commits) in enumerate(zip(pauses, skipped, strict=True), start=1)
        if pause > long_s or (commits is not None and commits >= many)
    )


def _notes(history: History) -> list[str]:
    entries = history.entries
    notes = []
    if len(entries) < LEAST_SERIES:
        few = f"{len(entries)} run{'' if len(entries) == 1 else 's'}"
        notes.append(
            f"Changes of noisy metrics are looked for from {LEAST_SERIES} runs on, and here are {few}."
        )
    if dirty := sum(bool(entry.dirty) for entry in entries):
        notes.append(
            f"{dirty} of {len(entries)} runs had uncommitted changes, so their commit is not all that ran."
        )
    if unknown := sum(entry.commit is None for entry in entries):
        notes.append(f"The commit of {unknown} of {len(entries)} runs is not known.")
    for kind, times in history.others:
        if times:
            said = "1 run on {0} is not joined: --machine {0} shows it."
            if len(times) > 1:
                said = f"{len(times)} runs on {{0}} are not joined: --machine {{0}} shows them."
            notes.append(said.format(kind))
    for name, measured in entries[-1].benchmarks.items():
        if measured.failures:
            notes.append(
                f"In the newest run {len(measured.failures)} of {name}'s processes failed: {measured.failures[0]}."
            )
    return notes


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(each) for each in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
