"""What a page says of a history: each metric over its runs, with its levels, its changes and what lies around them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from fusetune.bench.gate import counted, metric_title, percent_text, value_text
from fusetune.bench.history.change_points import LEAST_SERIES
from fusetune.bench.history.entries import MetricEntry
from fusetune.bench.history.log import History
from fusetune.bench.history.report import (
    HASH,
    between_text,
    change_text,
    changes_by_runs,
    commands,
    commit_text,
    date_text,
    ended,
    gap_text,
    series_name,
)
from fusetune.bench.history.study import Change, HistoryStudy, Series
from fusetune.bench.page import (
    Beside,
    Block,
    Cell,
    Column,
    Command,
    DataTable,
    Fold,
    Items,
    Layer,
    Part,
    Plot,
    Prose,
    Section,
    Tone,
    axis_unit,
    by_column,
    in_unit,
    layered,
    mark,
    quantity,
    rule,
    texts,
    titled,
)

_MOST_OPEN = 6
_MOST_COLUMNS = 8
_TONES: dict[str, Tone] = {"worse": "bad", "better": "good", "changed": "plain"}
_LEAD = (
    "Each metric over the recorded runs, in the order of their commits. A change point is where a metric took another "
    "level than before, by more than the noise between runs."
)


def history_part(study: HistoryStudy, history: History) -> Part:
    """Return what a page says of a history.

    Args:
        study: from `study_history`.
        history: the same runs, for the spread of their processes.
    """
    software = ", ".join(
        f"{name} {version}" for name, version in history.entries[-1].versions.items() if version
    )
    facts = (
        ("machine", study.machine),
        ("runs", f"{study.runs}, {date_text(study.first_s)} to {date_text(study.last_s)}"),
        ("file", study.path),
        ("newest", software),
    )
    stand_ins = dict.fromkeys(entry.stand_in for entry in history.entries if entry.stand_in)
    return Part(
        title=study.spec,
        asked=f"When did the metrics of {study.spec} change, and in which commits?",
        answer=newest_change(study),
        banners=tuple(f"STAND-IN DATA: {text}" for text in stand_ins),
        facts=tuple((name, text) for name, text in facts if text),
        sections=(Section("history", tuple(_blocks(study, history)), _LEAD),),
    )


def newest_change(study: HistoryStudy) -> str:
    """Say in one sentence what changed last.

    Args:
        study: of a history.
    """
    groups = changes_by_runs(study)
    if not groups:
        return f"No change point was found in {counted(study.runs, 'run')}."
    series, change = groups[0][0]
    more = f", and {counted(len(groups[0]) - 1, 'metric')} more" if len(groups[0]) > 1 else ""
    return (
        f"The newest change is {series_name(series)} {change_text(change)}, {_values(series, change)}{more}, first "
        f"seen at {commit_text(series, change.index)}."
    )


def _values(series: Series, change: Change) -> str:
    return f"{value_text(change.before, series.unit)} -> {value_text(change.after, series.unit)}"


def _blocks(study: HistoryStudy, history: History) -> Iterator[Block]:
    yield _summary(study)
    ordered = sorted(study.series, key=lambda series: -len(series.changes))
    plots = [plot for series in ordered if (plot := _plot(series, history)) is not None]
    yield from _two_by_two(plots[:_MOST_OPEN])
    if plots[_MOST_OPEN:]:
        yield Fold("More metrics", tuple(_two_by_two(plots[_MOST_OPEN:])))
    groups = changes_by_runs(study)
    if groups:
        yield _changes(groups)
        for command in dict.fromkeys(each for group in groups for each in commands(study, group)):
            yield Command(command, "To find the commit")
    said = (*(gap_text(study, gap) for gap in study.gaps), *study.notes, *ended(study))
    if said:
        yield Prose("Gaps and notes:")
        yield Items(said)
    if history.others:
        yield _machines(study, history)
    yield Fold("All runs", (_runs(study, history),))


def _two_by_two(plots: Sequence[Plot]) -> Iterator[Block]:
    for first in range(0, len(plots), 2):
        both = tuple(plots[first : first + 2])
        yield Beside(both) if len(both) == 2 else both[0]


def _summary(study: HistoryStudy) -> DataTable:
    columns = (
        Column("benchmark"),
        Column("metric"),
        Column("newest", True, "Median over the processes of the newest run that has it."),
        Column("noise", True, "Standard deviation between runs."),
        Column("runs", True),
        Column("changes", True),
        Column("newest change", meaning="Small: typical values before and after it."),
        Column("measured by"),
    )
    lines = []
    for series in study.series:
        value = series.points[-1].value
        last = series.changes[-1] if series.changes else None
        known = len(series.points) >= LEAST_SERIES
        lines.append(
            (
                Cell(series.benchmark),
                Cell(metric_title(series.metric)),
                Cell(value_text(value, series.unit), value if math.isfinite(value) else None),
                Cell(percent_text(series.noise, signed=False), series.noise) if known else Cell("-"),
                Cell(str(len(series.points)), len(series.points)),
                Cell(str(len(series.changes)), len(series.changes)),
                Cell("-")
                if last is None
                else Cell(change_text(last), small=_values(series, last), tone=_TONES[last.direction]),
                Cell(series.estimator),
            )
        )
    return DataTable("Metrics", columns, tuple(lines))


def _measured(series: Series, history: History) -> dict[str, MetricEntry]:
    """Return run -> what its processes measured of a metric."""
    return {
        entry.run_id: entry.benchmarks[series.benchmark].metrics[series.metric]
        for entry in history.entries
        if series.benchmark in entry.benchmarks
        and series.metric in entry.benchmarks[series.benchmark].metrics
    }


def _spread(found: MetricEntry) -> tuple[float | None, float | None]:
    """Return the quartiles of a run: those of its rounds, or the ends of its processes. None: there is one number."""
    if found.q1 is not None and found.q3 is not None:
        return median(found.q1), median(found.q3)
    known = [value for value in found.median if value is not None]
    return (min(known), max(known)) if len(known) > 1 else (None, None)


def _plot(series: Series, history: History) -> Plot | None:
    """Draw a metric over its runs with its levels. None: no run reached its target."""
    points = series.points
    if not any(math.isfinite(point.value) for point in points):
        return None
    measured = _measured(series, history)
    spreads = [_spread(measured[point.run_id]) for point in points]
    divisor, unit = axis_unit([point.value for point in points], series.unit)
    unit = unit or ("" if series.unit in ("count", "none", "fraction") else series.unit)
    data = by_column(
        ("run", "value", "low", "high", "commit", "date", "subject", "shown"),
        [
            (
                number,
                *in_unit((point.value, *spread), divisor),
                f"{(point.commit or 'unknown')[:HASH]}{'*' if point.dirty else ''}",
                date_text(point.time_s),
                point.subject or "",
                value_text(point.value, series.unit),
            )
            for number, (point, spread) in enumerate(zip(points, spreads, strict=True), start=1)
        ],
    )
    levels = _levels(series, divisor)
    x = quantity("run", "run, in the order of commits", domain=(0.5, len(points) + 0.5), number_format="d")
    x["axis"]["tickMinStep"] = 1
    y = quantity("value", titled(metric_title(series.metric), unit))
    tips = texts(
        {"commit": "commit", "date": "date", "subject": "subject", "shown": metric_title(series.metric)}
    )
    runs = {"name": "runs"}
    layers: list[Layer] = []
    for change in series.changes:
        at_right = change.index > len(points) / 2
        layers += rule(
            "x", change.index + 0.5, change_text(change), _STYLES[change.direction], before=at_right
        )
    for index in series.gap_at:
        layers += rule("x", index + 0.5, "gap", "faint")
    if any(low is not None for low, _ in spreads):
        layers.append(
            {
                "data": runs,
                "transform": [{"filter": {"field": "low", "valid": True}}],
                "mark": mark("rule", "faint", strokeWidth=2),
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            }
        )
    layers += [
        {
            "data": runs,
            "mark": mark("point", "first", filled=True, size=45, opacity=1),
            "encoding": {"x": x, "y": y, "tooltip": tips},
        },
        {
            "data": {"name": "levels"},
            "mark": mark("line", "suggestion"),
            "encoding": {"x": x, "y": y, "detail": {"field": "level"}},
        },
    ]
    changes = [change_text(change) for change in series.changes]
    found = f"{counted(len(changes), 'change')}: {', '.join(changes)}" if changes else "no change point"
    missed = sum(math.isinf(point.value) for point in points)
    lost = f" No point for {counted(missed, 'run')} that missed the target." if missed else ""
    return Plot(
        series_name(series),
        f"{series_name(series)} over {counted(len(points), 'run')}: {found}. The newest is "
        f"{value_text(points[-1].value, series.unit)}.",
        layered(layers),
        {"runs": data, "levels": levels},
        "Dot: median over the processes of a run. Bar: quartiles of its rounds, or the ends of its processes. Line: "
        f"the level between changes.{lost}",
        240,
    )


_STYLES: dict[str, Any] = {"worse": "bad", "better": "good", "changed": "other"}


def _levels(series: Series, divisor: float) -> dict[str, list[Any]]:
    """Return the ends of each level. A level whose typical value is a missed target has none."""
    starts = [0, *(change.index for change in series.changes)]
    ends = [*(change.index for change in series.changes), len(series.points)]
    rows = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        typical = median(point.value for point in series.points[start:end])
        if math.isfinite(typical):
            rows += [
                (start + 0.6, typical / divisor, str(number)),
                (end + 0.4, typical / divisor, str(number)),
            ]
    return by_column(("run", "value", "level"), rows)


def _changes(groups: Sequence[Sequence[tuple[Series, Change]]]) -> DataTable:
    columns = (
        Column("metric"),
        Column("change"),
        Column("before", True),
        Column("after", True),
        Column("runs since", True),
        Column("last before"),
        Column("first after"),
        Column("in between"),
        Column("what else changed"),
    )
    lines = [
        (
            Cell(series_name(series)),
            Cell(change_text(change), tone=_TONES[change.direction]),
            Cell(value_text(change.before, series.unit), _order(change.before)),
            Cell(value_text(change.after, series.unit), _order(change.after)),
            Cell(str(change.runs), change.runs),
            Cell(commit_text(series, change.index - 1)),
            Cell(commit_text(series, change.index)),
            Cell(between_text(change)),
            Cell(", ".join(change.environment) or "nothing that is recorded"),
        )
        for group in groups
        for series, change in group
    ]
    return DataTable("Changes, the newest first", columns, tuple(lines))


def _order(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _machines(study: HistoryStudy, history: History) -> DataTable:
    kinds = [(study.machine, study.runs, "shown here")]
    kinds += [(kind, len(times), "not joined") for kind, times in history.others]
    lines = tuple((Cell(kind), Cell(str(runs), runs), Cell(said)) for kind, runs, said in kinds)
    return DataTable("Kinds of machines", (Column("machine"), Column("runs", True), Column("note")), lines)


def _runs(study: HistoryStudy, history: History) -> DataTable:
    """Return all runs, the newest first, with the metrics of the first series."""
    shown = study.series[:_MOST_COLUMNS]
    values = [{point.run_id: point.value for point in series.points} for series in shown]
    columns = (
        Column("#", True),
        Column("commit"),
        Column("date"),
        Column("subject"),
        Column("source"),
        *(Column(series_name(series), True) for series in shown),
    )
    lines = []
    for number, entry in reversed(list(enumerate(history.entries, start=1))):
        cells = [
            Cell(value_text(value, series.unit), None if value is None else _order(value))
            for series, found in zip(shown, values, strict=True)
            for value in (found.get(entry.run_id),)
        ]
        commit = f"{(entry.commit or 'unknown')[:HASH]}{'*' if entry.dirty else ''}"
        lines.append(
            (
                Cell(str(number), number),
                Cell(commit),
                Cell(date_text(entry.time_s)),
                Cell(entry.subject or ""),
                Cell(entry.source),
                *cells,
            )
        )
    left = (
        f" The first {len(shown)} of {len(study.series)} metrics." if len(shown) < len(study.series) else ""
    )
    return DataTable("Runs", columns, tuple(lines), note=f"* with uncommitted changes.{left}")
