"""The report of `bench run`: its configurations compared, in 80 columns or more, with or without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fusetune.bench.report.curves import learning_curves
from fusetune.bench.results import Machine, Pictures, RunInfo
from fusetune.bench.stats import (
    STATUS_WORDS,
    Configuration,
    Estimate,
    Level,
    Spread,
    Summary,
    configuration_label,
    counted,
    estimate_text,
    gain_obstacle,
    label,
    missing,
    percent,
    ratio_text,
    recommendation,
    undecided,
    what_would_make_it_surer,
)
from fusetune.bench.units import METRICS, format_bytes, format_metric, format_seconds
from fusetune.tuner.measure import CONTENDED

BAR_WIDTH = 30
# A full bar stands for a ratio of 1.1 or more, so that a largest gain of a few percent does not look like much.
_LEAST_OF_A_FULL_BAR = math.log(1.1)
_MOST_RATES = 4
_MOST_CLASSES = 12
_GAP = (0, 1, 0, 0)  # one space, and one that the box draws between columns
_DIM = "dim"
_POINTS = " pp"


def show_run(summary: Summary, console: Console, pictures: Pictures) -> None:
    """Print the report, which has no pictures."""
    render_run(summary, console)


def render_run(summary: Summary, console: Console) -> None:
    """Print the report.

    Its parts are provenance, configurations by rank, learning curves, trials that went wrong, the diagnosis, the gain
    over `train`, each factor's main effect, the recommendation, and what is missing or would make it more certain.

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
    yield "data", _data(run)
    for names in run.classes:
        yield "classes", _classes(names)
    yield "model", run.spec.model
    yield "target", str(summary.target) if summary.target else "none; ranked by the best validation accuracy"
    if run.profile:
        yield "profile", f"{run.profile}: {'; '.join(run.profile_changes)}"
    if run.overrides:
        yield "set", ", ".join(" ".join(text.split()) for text in run.overrides)
    for path in summary.fused_paths:
        yield "fused", path
    shown = summary.auto_rates[:_MOST_RATES]
    for position, rate in enumerate(shown):
        yield "" if position else "auto lr", rate
    if len(summary.auto_rates) > len(shown):
        yield "", f"... and {len(summary.auto_rates) - len(shown)} more, in the records"
    yield "trials", _trials(summary)
    if summary.threads:
        yield "threads", summary.threads
    yield "device", _device(run.machine)
    yield "software", ", ".join(f"{name} {version}" for name, version in run.versions.items() if version)
    yield "commit", (run.commit or "unknown")[:12]
    for caveat in summary.caveats:
        if not caveat.is_banner:
            yield "note", caveat.sentence


def _data(run: RunInfo) -> str:
    """Name the data that were used, and the set that a stand-in replaces."""
    wanted = run.spec.data
    used = ", ".join(run.data or [wanted])
    return f"{used}, a stand-in for {wanted}" if run.stand_in else used


def _classes(names: Sequence[str]) -> str:
    """List class names with their numbers, at most twelve."""
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_MOST_CLASSES]))
    rest = len(names) - _MOST_CLASSES
    return f"{shown} and {rest} more, in the records" if rest > 0 else shown


def _trials(summary: Summary) -> str:
    spec = summary.run.spec
    design = "listed" if spec.is_listed else spec.design
    seeds = len(spec.seeds) or 1
    configurations = counted(summary.planned // seeds, "configuration")
    parts = [f"{design}: {configurations} x {counted(seeds, 'seed')} = {counted(summary.planned, 'trial')}"]
    if summary.recorded < summary.planned:
        parts.append(f"{summary.recorded} recorded")
    return ", ".join([*parts, f"{format_seconds(summary.trials_s)} together"])


def _device(machine: Machine) -> str:
    parts = [
        machine.device or "unknown device",
        machine.device_name,
        f"{machine.cores} cores" if machine.cores else "",
        format_bytes(machine.memory_bytes) if machine.memory_bytes else "",
    ]
    return ", ".join(filter(None, parts))


def _configurations(summary: Summary, console: Console) -> RenderableType | None:
    """Build the ranking in the widest layout that fits."""
    if not summary.configurations:
        return None
    metrics = ["time_to_target_s", "steps_to_target", "step_time_s"]
    if not summary.target:
        metrics = [summary.score_metric, "steps", "step_time_s"]
    costs = ["samples_per_s", "peak_bytes"]
    everything = [*metrics, *costs, *([summary.score_metric] if summary.target else [])]
    columns = [
        _ranking(summary, everything, split=True, stacked=False),
        _ranking(summary, everything, split=True, stacked=True),
    ]
    joined = _ranking(summary, everything, split=False, stacked=True)
    tables = [next((t for t in columns if _width(t, console).maximum <= console.width), joined)]
    if _width(tables[0], console).minimum > console.width:
        without_costs = [metric for metric in everything if metric not in costs]
        tables = [_ranking(summary, without_costs, split=False, stacked=True), _costs(summary, costs)]
    parts = [part for table in tables for part in (table, Text())]
    return Group(_title("Configurations"), *parts[:-1], *_notes(_ranking_notes(summary)))


def _width(table: Table, console: Console) -> Measurement:
    """Return the least and the preferred width of a table, independent of the console's."""
    return Measurement.get(console, console.options.update_width(10_000), table)


def _ranking_notes(summary: Summary) -> list[str]:
    """Explain the marks that occur in the ranking."""
    configurations = summary.configurations
    notes = []
    if any(configuration.n > 1 for configuration in configurations):
        notes.append("Medians over seeds with min..max.")
    if summary.target and any(0 < (c.reached or 0) < c.n for c in configurations):
        notes.append("A seed that missed the target counts as ∞.")
    if undecided(summary):
        notes.append("~ before a rank: exact rank tests over all pairs cannot tell it from the first place.")
    if any(configuration.is_baseline for configuration in configurations):
        notes.append("* the `train` configuration.")
    notes += _spread_of_steps(configurations[0])
    if any(configuration.contended for configuration in configurations):
        notes.append(f"! contended: others had more than {percent(CONTENDED)} of the processor in a trial.")
    return notes


def _spread_of_steps(first: Configuration) -> list[str]:
    """Write the quartiles of the first place's steps. A stall moves their mean, the step time, but no quartile."""
    quartiles = [first.metrics.get(f"step_time_{name}_s") for name in ("median", "q1", "q3")]
    if None in quartiles:
        return []
    median, low, high = (format_metric("step_time_s", spread.median) for spread in quartiles if spread)
    return [f"Steps of the first place: median {median}, half of them {low}..{high}."]


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _notes(sentences: Sequence[str]) -> list[RenderableType]:
    """Write notes under a table."""
    return [Text(" ".join(sentences), style=_DIM)] if sentences else []


def _table() -> Table:
    """Make a table whose only line is under its head."""
    return Table(box=box.SIMPLE_HEAD, padding=_GAP, pad_edge=False, show_edge=False, header_style=_DIM)


def _firm(table: Table) -> Table:
    """Keep the full width of columns that must not wrap, so that only the others shrink."""
    for column in table.columns:
        if column.no_wrap:
            lines = [line for cell in (column.header, *column.cells) for line in str(cell).splitlines()]
            column.min_width = max(map(cell_len, lines))
    return table


def _ranking(summary: Summary, metrics: Sequence[str], *, split: bool, stacked: bool) -> Table:
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
    table = _table()
    table.add_column("#", no_wrap=True)
    for name in [name.replace("_", "\n") for name in names] if split else [", ".join(names)]:
        table.add_column(name, no_wrap=split, overflow="fold")
    table.add_column("reached" if summary.target else "trials", no_wrap=True)
    for metric in metrics:
        table.add_column(_heading(metric), justify="right", no_wrap=True)
        if metric == metrics[0] and ranged and not stacked:
            table.add_column("min..max", justify="right", no_wrap=True)
    for configuration in configurations:
        labels = [label(value) for value in configuration.factors.values()] or ["train"]
        cells = [Text(_rank(summary, configuration))]
        cells += [Text(text) for text in (labels if split else [", ".join(labels)])]
        cells.append(_outcome(configuration, stacked=stacked))
        for metric in metrics:
            spread = configuration.metrics.get(metric)
            mark = "!" if configuration.contended and metric == "step_time_s" else ""
            cells.append(Text(f"{_value(metric, spread)}{mark}"))
            if metric == metrics[0] and ranged:
                extent = _extent(metric, spread)
                if stacked:
                    cells[-1] = _stacked(cells[-1].plain, extent)
                else:
                    cells.append(Text(extent, style=_DIM))
        table.add_row(*cells, style="bold" if configuration.rank == 1 else None)
    return _firm(table)


def _costs(summary: Summary, metrics: Sequence[str]) -> Table:
    """Build a table of throughput and memory, for a console too narrow for them in the ranking."""
    table = _table()
    table.add_column("#", no_wrap=True)
    for metric in metrics:
        table.add_column(_heading(metric), justify="right", no_wrap=True)
    for configuration in summary.configurations:
        values = [_value(metric, configuration.metrics.get(metric)) for metric in metrics]
        table.add_row(*map(Text, [_rank(summary, configuration), *values]))
    return _firm(table)


def _heading(metric: str) -> str:
    """Break a metric's title into two lines, so that its column can be as narrow as its numbers."""
    *words, last = METRICS[metric].title.split(" ")
    if len(words) == 2 and words[0] == "best":
        return f"best\n{words[1]} {last}"
    return f"{' '.join(words)}\n{last}" if words else last


def _rank(summary: Summary, configuration: Configuration) -> str:
    """Write a rank with its marks, right-aligned."""
    tie = "~" if configuration.rank in undecided(summary) else " "
    digits = len(str(len(summary.configurations)))
    return f"{tie}{configuration.rank:>{digits}}{'*' if configuration.is_baseline else ''}"


def _outcome(configuration: Configuration, *, stacked: bool) -> Text:
    """Write k/n, and every status but `ok`."""
    reached = "" if configuration.reached is None else f"{configuration.reached}/"
    troubles = {status: count for status, count in configuration.statuses.items() if status != "ok"}
    mixed = len(configuration.statuses) > 1
    words = [
        f"{count} {STATUS_WORDS[status]}" if mixed else STATUS_WORDS[status]
        for status, count in troubles.items()
    ]
    outcome = Text(f"{reached}{configuration.n}")
    if words:
        outcome.append("\n" if stacked else "  ")
        outcome.append(("\n" if stacked else ", ").join(words), style="yellow")
    return outcome


def _value(metric: str, spread: Spread | None) -> str:
    return "-" if spread is None else format_metric(metric, spread.median)


def _extent(metric: str, spread: Spread | None) -> str:
    """Write min..max, with one unit if both share it."""
    if spread is None or spread.n < 2:
        return ""
    low, high = (format_metric(metric, value) for value in (spread.low, spread.high))
    number, _, unit = low.partition(" ")
    return f"{number}..{high}" if unit and high.endswith(f" {unit}") else f"{low}..{high}"


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
            _measured("faster steps", estimate_text(gain.step_time), _interval(None, gain.step_time))
        )
    metric = summary.score_metric
    if gain.score:
        title = METRICS[metric].title
        lines.append(_measured(title, _difference(metric, gain.score), _interval(metric, gain.score)))
    estimates = [e for e in (gain.time, gain.steps, gain.step_time, gain.score) if e]
    notes = _estimate_notes(estimates)
    if gain.same_work and gain.step_time:
        notes.append("The two take the same steps, so a difference of step times is the machine's.")
    if estimates:
        notes.append("The first place was picked from these trials, so its figures are slightly too good.")
    return Group(*lines, *_notes(notes))


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
        interval = Text(_interval(None, ratio), style=_DIM)
        grid.add_row(name, estimate_text(ratio), bar, share, interval)
    return grid


def _interval(metric: str | None, estimate: Estimate) -> str:
    """Write an interval of ratios, or of differences of a metric."""
    if estimate.low is None or estimate.high is None:
        return ""
    if metric is None:
        return f"{estimate.low:.2f}..{estimate.high:.2f}"
    return f"{_signed(metric, estimate.low).removesuffix(_POINTS)}..{_signed(metric, estimate.high)}"


def _difference(metric: str, estimate: Estimate) -> str:
    """Write a difference of a metric, marked if the data cannot distinguish it from 0."""
    return f"{'' if estimate.can_tell else '~'}{_signed(metric, estimate.value)}"


def _signed(metric: str, value: float) -> str:
    """Write a difference with its sign, of fractions in percentage points."""
    return f"{100 * value:+.2f}{_POINTS}" if METRICS[metric].unit == "fraction" else f"{value:+.3g}"


def _estimate_notes(estimates: Sequence[Estimate]) -> list[str]:
    """Explain the intervals and marks that occur."""
    notes = []
    if any(estimate.low is not None for estimate in estimates):
        notes.append("95 % intervals from Student's t, each on its own.")
    if any(not estimate.can_tell for estimate in estimates):
        notes.append("~ before a number: it cannot be told from no effect.")
    return notes


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
    levels = [level for effect in summary.effects for level in effect.levels]
    estimates = [e for level in levels for e in (level.time, level.steps, level.step_time, level.score) if e]
    notes = ["Against the first value of each factor, all else and the seed equal; above 1 is better."]
    if summary.target:
        notes.append("Pairs: both reached the target / all. Faster steps: all pairs, by their median steps.")
    if any(level.pairs == 0 for effect in summary.effects for level in effect.levels[1:]):
        notes.append("Without pairs nothing can be said.")
    return Group(_title("Main effects"), _firm(table), *_notes([*notes, *_estimate_notes(estimates)]))


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
    cells += [_stacked(estimate_text(e), _interval(None, e)) if e else Text("-") for e in ratios]
    e = level.step_time
    same = Text("same work", style=_DIM) if level.same_work else Text("-")
    cells.append(_stacked(estimate_text(e), _interval(None, e)) if e else same)
    score = level.score
    cells.append(_stacked(_difference(metric, score), _interval(metric, score)) if score else Text("-"))
    return cells


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
