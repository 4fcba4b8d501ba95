"""The report of `bench run`: its configurations compared, in 80 columns or more, with or without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fusetune.bench.report.curves import learning_curves
from fusetune.bench.report.long_table import LongTable
from fusetune.bench.report.provenance import data_text, device_text, executor_text, training_facts
from fusetune.bench.report.training_texts import (
    SCALING_HEADINGS,
    difference_text,
    effects_notes,
    extent,
    gain_notes,
    interval_text,
    outcome_words,
    rank_text,
    ranking_notes,
    scaling_cells,
    scaling_notes,
)
from fusetune.bench.results import Pictures
from fusetune.bench.stats import (
    STATUS_WORDS,
    Configuration,
    Estimate,
    Level,
    Spread,
    Summary,
    configuration_label,
    estimate_text,
    gain_obstacle,
    label,
    missing,
    ratio_text,
    recommendation,
    undecided,
    what_would_make_it_surer,
)
from fusetune.bench.units import METRICS, format_metric

BAR_WIDTH = 30
# A full bar stands for a ratio of 1.1 or more, so that a largest gain of a few percent does not look like much.
_LEAST_OF_A_FULL_BAR = math.log(1.1)
_GAP = (0, 1, 0, 0)  # one space, and one that the box draws between columns
_DIM = "dim"


def show_run(summary: Summary, console: Console, pictures: Pictures) -> None:
    """Print the report, which has no pictures."""
    render_run(summary, console)


def render_run(summary: Summary, console: Console) -> None:
    """Print the report.

    Its parts are provenance, configurations by rank, learning curves, trials that went wrong, the diagnosis, the gain
    over `train`, each factor's main effect, how several devices scale, the recommendation, and what is missing or would
    make it more certain.

    Args:
        summary: from `bench.stats.summary.summarize`.
        console: 80 columns or more.
    """
    parts = [
        _header(summary),
        _configurations(summary, console),
        learning_curves(summary),
        _troubles(summary),
        _diagnoses(summary),
        _gain(summary),
        _effects(summary),
        _scaling(summary),
        _recommendation(summary),
        _list("What would make it surer", what_would_make_it_surer(summary)),
        _list("Missing", missing(summary)),
    ]
    for position, part in enumerate(part for part in parts if part is not None):
        if position:
            console.print()
        console.print(part)


def _header(summary: Summary) -> RenderableType:
    """Describe what ran, where and on which data, under the banners."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=_DIM, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in _provenance(summary):
        grid.add_row(name, Text(text))
    title = Rule(Text(summary.run.spec.name, style="bold"), align="left", style=_DIM)
    banners = [
        Panel(Text(caveat.sentence, style="bold"), box=box.HEAVY, border_style="yellow", padding=(0, 1))
        for caveat in summary.caveats
        if caveat.is_banner
    ]
    return Group(*banners, title, grid)


def _provenance(summary: Summary) -> Iterable[tuple[str, str]]:
    """Yield (name, text) of each line of the header."""
    run = summary.run
    directory = (summary.directory or "").rstrip("/").rsplit("/", 1)[-1]
    if run_line := ", ".join(filter(None, [directory, run.started and f"started {run.started}"])):
        yield "run", run_line
    yield "data", data_text(run)
    yield from training_facts(summary)
    if executor := executor_text(run, summary.places):
        yield "executor", executor
    yield "device", device_text(run.machine)
    yield "software", ", ".join(f"{name} {version}" for name, version in run.versions.items() if version)
    yield "commit", (run.commit or "unknown")[:12]
    for caveat in summary.caveats:
        if not caveat.is_banner:
            yield "note", caveat.sentence


def _configurations(summary: Summary, console: Console) -> RenderableType | None:
    """Build the ranking in the widest layout that fits."""
    if not summary.configurations:
        return None
    metrics = ["time_to_target_s", "steps_to_target", "step_time_s"]
    if not summary.target:
        metrics = [summary.score_metric, "steps", "step_time_s"]
    costs = ["samples_per_s", "peak_bytes"]
    everything = [*metrics, *costs, *([summary.score_metric] if summary.target else [])]
    parts = [part for table in _tables(summary, everything, costs, console.width) for part in (table, Text())]
    return Group(_title("Configurations"), *parts[:-1], *_notes(ranking_notes(summary)))


def _tables(summary: Summary, everything: Sequence[str], costs: Sequence[str], width: int) -> list[LongTable]:
    """Return the ranking in the widest layout that fits, or without its costs and a table of these."""
    for stacked in (False, True):
        table = _ranking(summary, everything, split=True, stacked=stacked)
        if table.width <= width:
            return [table]
    joined = _ranking(summary, everything, split=False, stacked=True)
    if joined.least_width <= width:
        return [joined]
    without_costs = [metric for metric in everything if metric not in costs]
    return [_ranking(summary, without_costs, split=False, stacked=True), _costs(summary, costs)]


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _notes(sentences: Sequence[str]) -> list[RenderableType]:
    """Write notes under a table."""
    return [Text(" ".join(sentences), style=_DIM)] if sentences else []


def _table() -> Table:
    """Make a table whose only line is under its head."""
    return Table(box=box.SIMPLE_HEAD, padding=_GAP, pad_edge=False, show_edge=False, header_style=_DIM)


def _firm(table: Table) -> Table:
    """Keep the full width of columns that must not wrap, so that only the others shrink.

    A column whose width is set is not measured again, cell by cell, whenever the table's width is asked for.
    """
    for column in table.columns:
        if column.no_wrap:
            lines = {line for cell in (column.header, *column.cells) for line in str(cell).splitlines()}
            column.width = max(map(cell_len, lines))
    return table


def _ranking(summary: Summary, metrics: Sequence[str], *, split: bool, stacked: bool) -> LongTable:
    """Build the ranking. The first metric has its range beside or below it.

    Args:
        summary: what to print.
        metrics: the columns after the outcome.
        split: one column a factor, or one column for all that wraps.
        stacked: ranges and statuses below their numbers, or beside them.
    """
    configurations = summary.configurations
    ranged = any(configuration.n > 1 for configuration in configurations)
    names = list(configurations[0].factors) or ["configuration"]
    tied, digits = frozenset(undecided(summary)), len(str(len(configurations)))
    table = LongTable(_table)
    table.add_column("#")
    for name in [name.replace("_", "\n") for name in names] if split else [", ".join(names)]:
        table.add_column(name, no_wrap=split, overflow="fold")
    table.add_column("reached" if summary.target else "trials")
    for metric in metrics:
        table.add_column(_heading(metric), justify="right")
        if metric == metrics[0] and ranged and not stacked:
            table.add_column("min..max", justify="right")
    for configuration in configurations:
        labels = [label(value) for value in configuration.factors.values()] or ["train"]
        cells: list[str | Text] = [rank_text(configuration, tied, digits)]
        cells += labels if split else [", ".join(labels)]
        cells.append(_outcome(configuration, stacked=stacked))
        for metric in metrics:
            spread = configuration.metrics.get(metric)
            mark = "!" if configuration.contended and metric == "step_time_s" else ""
            value = f"{_value(metric, spread)}{mark}"
            span = extent(metric, spread) if metric == metrics[0] and ranged else ""
            cells.append(_stacked(value, span) if stacked and span else value)
            if metric == metrics[0] and ranged and not stacked:
                cells.append(Text(span, style=_DIM))
        table.add_row(*cells, style="bold" if configuration.rank == 1 else None)
    return table


def _costs(summary: Summary, metrics: Sequence[str]) -> LongTable:
    """Build a table of throughput and memory, for a console too narrow for them in the ranking."""
    tied, digits = frozenset(undecided(summary)), len(str(len(summary.configurations)))
    table = LongTable(_table)
    table.add_column("#")
    for metric in metrics:
        table.add_column(_heading(metric), justify="right")
    for configuration in summary.configurations:
        values = [_value(metric, configuration.metrics.get(metric)) for metric in metrics]
        table.add_row(rank_text(configuration, tied, digits), *values)
    return table


def _heading(metric: str) -> str:
    """Break a metric's title into two lines, so that its column can be as narrow as its numbers."""
    *words, last = METRICS[metric].title.split(" ")
    if len(words) == 2 and words[0] == "best":
        return f"best\n{words[1]} {last}"
    return f"{' '.join(words)}\n{last}" if words else last


def _outcome(configuration: Configuration, *, stacked: bool) -> str | Text:
    """Write k/n, and every status but `ok`."""
    reached = "" if configuration.reached is None else f"{configuration.reached}/"
    words = outcome_words(configuration)
    count = f"{reached}{configuration.n}"
    if not words:
        return count
    outcome = Text(count).append("\n" if stacked else "  ")
    return outcome.append(("\n" if stacked else ", ").join(words), style="yellow")


def _value(metric: str, spread: Spread | None) -> str:
    return "-" if spread is None else format_metric(metric, spread.median)


def _troubles(summary: Summary) -> RenderableType | None:
    """List the trials that diverged, ran out of memory or failed, with the reason."""
    if not summary.troubles:
        return None
    with_bytes = any(trouble.wanted_bytes is not None for trouble in summary.troubles)
    table = _table()
    table.add_column("status", no_wrap=True)
    table.add_column("configuration", ratio=2, overflow="fold")
    table.add_column("seeds", overflow="fold")
    if with_bytes:
        table.add_column("wanted\nof limit", no_wrap=True)
    table.add_column("why", ratio=3, overflow="fold")
    for trouble in summary.troubles:
        colour = "red" if trouble.status == "failed" else "yellow"
        cells = [
            Text(STATUS_WORDS[trouble.status], style=colour),
            Text(configuration_label(trouble.factors)),
            Text(", ".join(map(str, trouble.seeds))),
        ]
        if with_bytes:
            wanted, limit = (
                format_metric(metric, value)
                for metric, value in (
                    ("wanted_bytes", trouble.wanted_bytes),
                    ("limit_bytes", trouble.limit_bytes),
                )
            )
            cells.append(Text(wanted if limit == "-" else f"{wanted}\nof {limit}"))
        table.add_row(*cells, Text(trouble.reason or "no reason recorded"))
    return Group(_title("Not trained to the end"), _firm(table))


def _diagnoses(summary: Summary) -> RenderableType | None:
    """List the findings of the diagnosis, and what to try. None where there are no findings."""
    if not summary.diagnoses:
        return None
    table = _table()
    table.add_column("finding", min_width=10)
    table.add_column("configuration", ratio=2, overflow="fold")
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("what shows it, and what to try", ratio=4)
    for diagnosis in summary.diagnoses:
        table.add_row(
            Text(diagnosis.title, style="yellow"),
            Text(configuration_label(diagnosis.factors)),
            Text(f"{len(diagnosis.seeds)}/{diagnosis.n}"),
            Text(diagnosis.sentence) + Text(f"\n{diagnosis.try_next}", style="italic"),
            end_section=True,
        )
    return Group(_title("Diagnosis"), _firm(table))


def _gain(summary: Summary) -> RenderableType | None:
    """Show the first place's gain over `train`, split into fewer steps and faster steps where both are known."""
    gain = summary.gain
    if gain is None or gain.obstacle == "first is train":
        return None
    lines: list[RenderableType] = [_title("Gain of the first place over the `train` configuration")]
    if obstacle := gain_obstacle(summary):
        lines.append(Text(obstacle))
    if gain.time and gain.steps and gain.step_time:
        lines.append(_bars(gain.time, gain.steps, gain.step_time, gain.steps_share))
    elif gain.step_time:
        lines.append(
            _measured("faster steps", estimate_text(gain.step_time), interval_text(None, gain.step_time))
        )
    metric = summary.score_metric
    if gain.score:
        title = METRICS[metric].title
        lines.append(_measured(title, difference_text(metric, gain.score), interval_text(metric, gain.score)))
    return Group(*lines, *_notes(gain_notes(gain)))


def _measured(name: str, value: str, interval: str) -> Text:
    return Text(f"{name}  {value}  ") + Text(interval, style=_DIM)


def _bars(time: Estimate, steps: Estimate, step_time: Estimate, steps_share: float | None) -> Table:
    """Draw three ratios as bars of length |log|. A ratio below 1 is drawn light, and 1.00x has no shares."""
    shares = ["", "", ""]
    if steps_share is not None and ratio_text(time.value) != ratio_text(1):
        shares = ["", f"{100 * steps_share:.0f} % of it", f"{100 * (1 - steps_share):.0f} % of it"]
    ratios = [time, steps, step_time]
    longest = max(_LEAST_OF_A_FULL_BAR, *(abs(math.log(ratio.value)) for ratio in ratios))
    grid = Table.grid(padding=_GAP)
    grid.add_column()
    grid.add_column(justify="right")
    for name, ratio, share in zip(["sooner", "= fewer steps", "x faster steps"], ratios, shares, strict=True):
        length = round(BAR_WIDTH * abs(math.log(ratio.value)) / longest)
        bar = Text(("█" if ratio.value > 1 else "░") * length, style="cyan")
        interval = Text(interval_text(None, ratio), style=_DIM)
        grid.add_row(name, estimate_text(ratio), bar, share, interval)
    return grid


def _effects(summary: Summary) -> RenderableType | None:
    """Show each factor's main effect: its levels against its first, all other factors and the seed equal."""
    if not summary.effects:
        return None
    table = _table()
    table.add_column("factor", overflow="fold")
    table.add_column("reached" if summary.target else "trials", justify="right", no_wrap=True)
    table.add_column("pairs", justify="right", no_wrap=True)
    headings = ["sooner", "= fewer\nsteps", "x faster\nsteps"] if summary.target else ["faster\nsteps"]
    for heading in [*headings, _heading(summary.score_metric)]:
        table.add_column(heading, justify="right", no_wrap=True)
    for effect in summary.effects:
        table.add_row(Text(effect.factor))
        for level in effect.levels:
            table.add_row(*_level_cells(level, summary), end_section=level is effect.levels[-1])
    return Group(_title("Main effects"), _firm(table), *_notes(effects_notes(summary)))


def _level_cells(level: Level, summary: Summary) -> list[RenderableType]:
    metric = summary.score_metric
    cells: list[RenderableType] = [
        Padding(Text(label(level.value)), (0, 0, 0, 2)),
        Text(f"{level.n}" if level.reached is None else f"{level.reached}/{level.n}"),
    ]
    if level.is_reference:
        return [*cells, Text(), Text("reference", style=_DIM)]
    both_reached = f"{level.time.n if level.time else 0}/" if summary.target else ""
    cells.append(Text(f"{both_reached}{level.pairs}"))
    ratios = [level.time, level.steps] if summary.target else []
    cells += [_stacked(estimate_text(e), interval_text(None, e)) if e else Text("-") for e in ratios]
    e = level.step_time
    same = Text("same work", style=_DIM) if level.same_work else Text("-")
    cells.append(_stacked(estimate_text(e), interval_text(None, e)) if e else same)
    score = level.score
    cells.append(
        _stacked(difference_text(metric, score), interval_text(metric, score)) if score else Text("-")
    )
    return cells


def _scaling(summary: Summary) -> RenderableType | None:
    """Show what several devices made of the throughput of one. None where every trial had one device."""
    if not summary.scaling:
        return None
    table = _table()
    table.add_column("configuration", overflow="fold")
    for heading in SCALING_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.scaling:
        table.add_row(Text(configuration_label(row.factors)), *map(Text, scaling_cells(row)))
    return Group(_title("Several devices"), _firm(table), *_notes(scaling_notes(summary)))


def _stacked(value: str, interval: str) -> Text:
    return Text(value) + Text(f"\n{interval}", style=_DIM) if interval else Text(value)


def _recommendation(summary: Summary) -> RenderableType:
    text = Text(recommendation(summary))
    return Panel(text, title="Recommendation", title_align="left", border_style="cyan", padding=(0, 1))


def _list(title: str, lines: Sequence[str]) -> RenderableType | None:
    """Print a titled list, or nothing when it is empty."""
    if not lines:
        return None
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", Text(line))
    return Group(_title(title), _Ragged(grid))


class _Ragged:
    """A renderable without trailing spaces, which would break a pasted command after a backslash."""

    def __init__(self, inside: RenderableType) -> None:
        self._inside = inside

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._inside, options, pad=False):
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
            text.rstrip()
            yield text
