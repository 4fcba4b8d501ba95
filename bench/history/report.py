"""A history for a terminal: 100 columns, read without colour."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusetune.bench.gate import metric_title, percent_text, value_text
from fusetune.bench.history.bisection import Bisection
from fusetune.bench.history.change_points import LEAST_SERIES
from fusetune.bench.history.sparkline import place, sparkline
from fusetune.bench.history.study import Change, Gap, HistoryStudy, Series, newest_worsening
from fusetune.bench.terminal import invocation, one_line

_STYLES = {"worse": "bold red", "better": "bold green", "changed": "yellow"}
_SIGNS = {"worse": "✗", "better": "✓", "changed": "·"}
_PLOT = 36
HASH = 12
_MOST_SUBJECT = 40
_MOST_RUNS = 40
_DOTS = 24
_DAY_S = 86_400.0


def show_history(study: HistoryStudy, console: Console, *, runs: bool = False) -> None:
    """Print what a history says.

    Args:
        study: of one spec on one kind of machine.
        console: 100 columns wide, or more.
        runs: print the newest runs of each metric, one a line.
    """
    console.print(_header(study))
    console.print()
    console.print(_table(study))
    console.print(
        Text(
            "One character a run, low to high. │ a change point, ┊ a gap. Noise: standard deviation between runs.",
            style="dim",
        )
    )
    if runs:
        for series in study.series:
            console.print()
            console.print(Text(series_name(series), style="bold"))
            console.print(_runs(series))
    _show_section(console, "Changes", list(_changes(study)) or [Text("No change point was found.")])
    _show_section(console, "Gaps", [Text(gap_text(study, gap)) for gap in study.gaps])
    _show_section(console, "Notes", [Text(note) for note in (*study.notes, *ended(study))])


def show_histories(known: Mapping[str, Mapping[str, Path]], console: Console) -> None:
    """Print which histories there are.

    Args:
        known: spec -> kind of machine -> path.
        console: 100 columns wide, or more.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("spec", "machine", "history"):
        table.add_column(title, overflow="fold")
    for spec, machines in sorted(known.items()):
        for machine, path in machines.items():
            table.add_row(Text(spec), Text(machine), Text(str(path)))
    console.print(table)
    console.print(Text(f"Show one with: {invocation()} history SPEC"))


def show_bisection(found: Bisection, console: Console) -> None:
    """Print what a bisection came to. Its steps have been told.

    Args:
        found: of `bisect`.
        console: 100 columns wide, or more.
    """
    between = f"between {found.good.name} and {found.bad.name}"
    first = found.steps[0]
    if found.found is not None:
        time_s = datetime.fromisoformat(found.found.time or "").timestamp()
        console.print(Text(f"✗ first bad commit for {found.metric}", style=_STYLES["worse"]))
        console.print(Text(f"    commit  {found.found.commit}"))
        console.print(Text(f"    date    {date_text(time_s)}"))
        console.print(Text(f"    subject {one_line(found.found.subject or '')}"))
        why = next(step.why for step in found.steps if step.commit == found.found.commit)
        console.print(Text(f"    gate    {why}"))
    elif first.judgement != "bad":
        seen = "passes the gate" if first.judgement == "good" else "cannot be judged"
        console.print(Text(f"No first bad commit: {found.bad.name} itself {seen}. {first.why}"))
        if first.judgement == "good":
            console.print(Text("The change may be of the environment, which both sides of a gate share."))
    else:
        console.print(Text(f"The first bad commit {between} is one of these, which cannot all be judged:"))
        for commit in found.left:
            console.print(Text(f"    {commit}"))


def _header(study: HistoryStudy) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("history", Text(study.spec))
    grid.add_row("machine", Text(study.machine))
    grid.add_row("runs", Text(f"{study.runs}, {date_text(study.first_s)} to {date_text(study.last_s)}"))
    grid.add_row("file", Text(study.path))
    return grid


def _table(study: HistoryStudy) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("benchmark", overflow="fold", min_width=9)
    table.add_column("metric", overflow="fold", min_width=8)
    table.add_column("newest", justify="right", no_wrap=True)
    table.add_column("noise", justify="right", no_wrap=True)
    table.add_column("changes", justify="right", no_wrap=True)
    table.add_column("runs", no_wrap=True, min_width=_PLOT)
    previous = None
    for series in study.series:
        plot = sparkline(
            [point.level for point in series.points],
            changes=[change.index for change in series.changes],
            gaps=series.gap_at,
            width=_PLOT,
        )
        table.add_row(
            Text("" if series.benchmark == previous else one_line(series.benchmark)),
            Text(one_line(metric_title(series.metric))),
            Text(value_text(series.points[-1].value, series.unit)),
            Text(percent_text(series.noise, signed=False) if len(series.points) >= LEAST_SERIES else "-"),
            Text(str(len(series.changes)), style=_style(series)),
            Text(plot),
        )
        previous = series.benchmark
    return table


def _style(series: Series) -> str:
    return _STYLES[series.changes[-1].direction] if series.changes else ""


def _runs(series: Series) -> Table:
    """Return the newest runs, one a line, with a dot for the level."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("commit", no_wrap=True)
    table.add_column("date", no_wrap=True)
    table.add_column("subject", overflow="ellipsis", no_wrap=True, max_width=_MOST_SUBJECT - 14)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("low to high", no_wrap=True, min_width=_DOTS)
    table.add_column("", no_wrap=True)
    levels = [point.level for point in series.points]
    marks = {change.index: f"{_SIGNS[change.direction]} {change_text(change)}" for change in series.changes}
    first = max(0, len(series.points) - _MOST_RUNS)
    for index, point in enumerate(series.points[first:], start=first):
        mark = marks.get(index, "┊ gap" if index in series.gap_at else "")
        table.add_row(
            Text(f"{(point.commit or 'unknown')[:HASH]}{'*' if point.dirty else ''}"),
            Text(date_text(point.time_s)),
            Text(one_line(point.subject or "")),
            Text(value_text(point.value, series.unit)),
            Text(place(point.level, levels, _DOTS)),
            Text(mark),
        )
    if first:
        table.caption = f"{first} earlier runs are left out. --json has all."
    return table


def _changes(study: HistoryStudy) -> Iterator[Text]:
    """Yield a block for each pair of runs between which something changed, the newest first."""
    for group in changes_by_runs(study):
        yield _block(study, group)


def changes_by_runs(study: HistoryStudy) -> list[list[tuple[Series, Change]]]:
    """Return the changes of all metrics, those between the same two runs together, the newest first."""
    groups: dict[tuple[str, str], list[tuple[Series, Change]]] = {}
    for series in study.series:
        for change in series.changes:
            runs = (series.points[change.index - 1].run_id, series.points[change.index].run_id)
            groups.setdefault(runs, []).append((series, change))
    return sorted(
        groups.values(), key=lambda group: group[0][0].points[group[0][1].index].time_s, reverse=True
    )


def _block(study: HistoryStudy, group: Sequence[tuple[Series, Change]]) -> Text:
    """Say what changed between two runs, and what is known of the commits there."""
    text = Text()
    for series, change in group:
        runs = f"{change.runs} run{'' if change.runs == 1 else 's'}"
        text.append(
            f"{_SIGNS[change.direction]} {series_name(series)} {change_text(change)}",
            _STYLES[change.direction],
        )
        values = f"{value_text(change.before, series.unit)} -> {value_text(change.after, series.unit)}"
        text.append(f", {values}, for {runs}\n")
    series, change = group[0]
    environment = dict.fromkeys(phrase for _, each in group for phrase in each.environment)
    lines = [
        ("last before", commit_text(series, change.index - 1)),
        ("first after", commit_text(series, change.index)),
        ("in between", between_text(change)),
        ("environment", ", ".join(environment) or "nothing that is recorded changed"),
    ]
    estimators = dict.fromkeys(each.estimator for each, _ in group if each.comparison == "timing")
    if estimators:
        lines.append(("measured by", ", ".join(estimators)))
    lines += [("find it by", command) for command in commands(study, group)]
    for title, content in lines:
        text.append(f"    {title:<12}", style="dim")
        text.append(f"{content}\n")
    text.right_crop(1)
    return text


def commands(study: HistoryStudy, group: Sequence[tuple[Series, Change]]) -> Iterator[str]:
    """Yield the command that finds the commit of a change for the worse."""
    for metric in dict.fromkeys(series.metric for series, change in group if change.direction == "worse"):
        series, change = next(each for each in group if each[0].metric == metric)
        first, last = series.points[change.index - 1].commit, series.points[change.index].commit
        if first and last and (change.commits or 0) > 1:
            command = f"{invocation()} history {shlex.quote(study.spec)} --bisect {shlex.quote(metric)}"
            is_newest = newest_worsening(study, metric) == (first, last)
            yield command if is_newest else f"{command} --good {first[:HASH]} --bad {last[:HASH]}"


def commit_text(series: Series, index: int) -> str:
    """Return the commit of a run with its date and the begin of its subject."""
    point = series.points[index]
    dirty = " with uncommitted changes" if point.dirty else ""
    subject = one_line(point.subject or "")
    subject = subject if len(subject) <= _MOST_SUBJECT else f"{subject[: _MOST_SUBJECT - 1]}…"
    return f"{(point.commit or 'unknown commit')[:HASH]}{dirty} {date_text(point.time_s)} {subject}".rstrip()


def between_text(change: Change) -> str:
    """Say how many commits lie between two levels, and whether a gap does."""
    if change.commits is None:
        said = "an unknown number of commits"
    elif change.commits == 0:
        said = "no commit, both runs are of the same one"
    else:
        said = f"{change.commits} commit{'' if change.commits == 1 else 's'}, the last one included"
    return f"{said}. A gap lies there" if change.at_gap else said


def gap_text(study: HistoryStudy, gap: Gap) -> str:
    """Say how long a pause was, and what happened meanwhile."""
    days = gap.seconds / _DAY_S
    parts = [f"{days:.0f} days" if days >= 1 else "less than a day"]
    if gap.commits:
        parts.append(f"{gap.commits} commit{'' if gap.commits == 1 else 's'} without runs")
    parts += [f"{count} run{'' if count == 1 else 's'} on {kind}" for kind, count in gap.others.items()]
    return f"Before run {gap.index + 1} of {study.runs}: {', '.join(parts)}. The plots are not joined there."


def ended(study: HistoryStudy) -> Iterator[str]:
    """Yield a sentence for each metric that the newest runs lack."""
    for series in study.series:
        if series.ended:
            runs = "newest run" if series.ended == 1 else f"{series.ended} newest runs"
            yield f"{series_name(series)} is missing from the {runs}."


def series_name(series: Series) -> str:
    """Return benchmark and metric in one line."""
    return one_line(f"{series.benchmark}: {metric_title(series.metric)}")


def change_text(change: Change) -> str:
    """Write the size of a change.

    Example:
        >>> change_text(Change(9, 0.05, 1.0, 1.05, "worse", 1, (), False, 3))
        '+5.0 % worse'
    """
    # A target that was missed has no distance.
    if math.isinf(change.before) or math.isinf(change.after) or not math.isfinite(change.effect):
        return change.direction
    return f"{percent_text(change.effect)} {change.direction}"


def date_text(seconds: float) -> str:
    """Return a time as a date, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def _show_section(console: Console, title: str, lines: list[Text]) -> None:
    if not lines:
        return
    console.print()
    console.print(Text(title, style="bold"))
    for line in lines:
        console.print(line, soft_wrap=title == "Changes")  # a command that is broken cannot be pasted
