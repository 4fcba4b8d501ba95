"""The report of `bench kernels`: three lines a row, sweeps over sizes, and what was found in all.

A row's first line has its latency and its distance from the limits. The second one has its competitors, the third one
what else was counted. Nothing is said by colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from fusetune.bench.kernels.plot import draw_sweeps, sweep_table
from fusetune.bench.kernels.search_table import search_table
from fusetune.bench.kernels.study import SHORT_S, KernelsStudy, Latency, RowStudy, lost, sweeps_of
from fusetune.bench.report import caveat_lines
from fusetune.bench.results import Pictures
from fusetune.bench.stats import Estimate, counted, estimate_text, percent, ratio_text
from fusetune.bench.units import format_bytes, format_rate, format_seconds
from fusetune.kernels import TritonSearch
from fusetune.tuner.measure import is_contended

_DIM = "dim"
_INDENT = "    "
_GAP = "   "
_LEAST_NAME = 30
_HEAD = ("latency", "p20 .. p80", "n", "bandwidth", "of copy", "of datasheet")


def show_rows(study: KernelsStudy, console: Console, pictures: Pictures) -> None:
    """Draw the sweeps, then print the report, which names their files.

    Args:
        study: from `study_rows`.
        console: of 100 columns or more.
        pictures: the collection that gets the drawings.
    """
    draw_sweeps(study, pictures)
    render_rows(study, console, pictures)


def render_rows(study: KernelsStudy, console: Console, pictures: Pictures | None = None) -> None:
    """Print the report.

    Args:
        study: from `study_rows`.
        console: of 100 columns or more.
        pictures: what was drawn.
    """
    for caveat in caveat_lines(study.caveats):
        console.print(caveat)
    title = f"{study.run.spec.name}: {counted(len(study.rows), 'row')}"
    console.print(Rule(Text(title, style="bold"), align="left", style=_DIM))
    for line in _conditions(study):
        console.print(Text(line, style=_DIM))
    console.print()
    cells = [_cells(row) for row in study.rows]
    names = max([_LEAST_NAME, *(len(row.row.case.name) for row in study.rows)])
    widths = [max(len(line[column]) for line in (*cells, _HEAD)) for column in range(len(_HEAD))]
    console.print(_aligned("", _HEAD, names, widths), no_wrap=True, crop=False, soft_wrap=True)
    for row, shown in zip(study.rows, cells, strict=True):
        for text in _row(row, shown, names, widths, console.width):
            console.print(text, soft_wrap=True)
        for told in row.row.searches:
            search = TritonSearch.from_row(told)
            for text in _wrapped(search.sentence, console.width):
                console.print(text, soft_wrap=True)
            console.print(Padding(search_table(search), (0, 0, 0, len(_INDENT))))
    console.print()
    for line in _summary(study.rows):
        console.print(Text(line, style="bold"))
    if _has_unclear(study.rows):
        console.print(Text("~ the rounds cannot tell the two sides apart", style=_DIM))
    for sweep in sweeps_of(study.rows):
        console.print()
        console.print(sweep_table(sweep))
    _say_where(study, console, pictures)


def _say_where(study: KernelsStudy, console: Console, pictures: Pictures | None) -> None:
    """Print where records and pictures are."""
    if study.directory:
        console.print(Text(f"records: {study.directory}", style=_DIM))
    if pictures is not None:
        for path in pictures.paths:
            console.print(Text(f"picture: {path}", style=_DIM))
        if pictures.note:
            console.print(Text(f"note: {pictures.note}", style="yellow"))


def _conditions(study: KernelsStudy) -> Iterator[str]:
    """Yield what all rows share: the device, what is on the clock, and the copies that rows are held to."""
    machine = study.run.machine
    where = machine.device_name or study.run.device or "unknown device"
    threads = sorted({row.row.case.threads for row in study.rows if row.row.case.device == "cpu"})
    said = [where, *(f"{_listed(threads)} thread{'' if threads == [1] else 's'}" for _ in threads[:1])]
    policies = dict.fromkeys(row.row.policies[0].name for row in study.rows)
    said += [f"clock: {'; '.join(policies)}"] if policies else []
    yield f"{_GAP}".join(said)
    copies: dict[str, list[float]] = {}
    for row in study.rows:
        if row.row.copy is not None:
            copies.setdefault(row.row.copy.level, []).append(row.row.copy.bytes_per_s)
    if copies:
        rates = [f"{level} {_range(each)}" for level, each in copies.items()]
        yield f"best copy of as many bytes: {', '.join(rates)}"


def _range(rates: Sequence[float]) -> str:
    """Return the least and the largest of some bandwidths, or one of them where they hardly differ."""
    low, high = min(rates), max(rates)
    return f"{format_rate(low)} .. {format_rate(high)}" if high > 1.05 * low else format_rate(high)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _cells(row: RowStudy) -> tuple[str, ...]:
    """Return the texts of a row's first line. One without a time has none."""
    latency = row.latency
    if latency is None:
        return ("",) * len(_HEAD)
    copy = row.row.copy
    return (
        format_seconds(latency.median_s),
        f"{format_seconds(latency.p20_s)} .. {format_seconds(latency.p80_s)}",
        str(latency.n),
        "-" if row.bytes_per_s is None else format_rate(row.bytes_per_s),
        "-" if row.share_of_copy is None or copy is None else f"{percent(row.share_of_copy)} {copy.level}",
        "-" if row.share_of_datasheet is None else percent(row.share_of_datasheet),
    )


def _aligned(name: str, cells: Sequence[str], names: int, widths: Sequence[int]) -> Text:
    text = Text(name.ljust(names), style="bold")
    for cell, width in zip(cells, widths, strict=True):
        text.append("  " + cell.rjust(width), style="not bold")
    return text


def _row(
    row: RowStudy, cells: Sequence[str], names: int, widths: Sequence[int], columns: int
) -> Iterator[Text]:
    """Yield the lines of one row."""
    if row.latency is None:
        yield Text(row.row.case.name, style="bold")
        yield from _wrapped(lost(row.row.ours), columns, "bold red")
    else:
        yield _aligned(row.row.case.name, cells, names, widths)
        yield from _wrapped(_GAP.join(_competitors(row)), columns)
        if row.latency.median_s < SHORT_S and len(row.latencies) > 1:
            yield from _wrapped("by clock: " + _GAP.join(_policies(row.latencies)), columns)
    yield from _wrapped(_GAP.join(_counted(row)), columns, _DIM)
    for target, facts in row.row.static.items():
        yield from _wrapped(f"{target}: {_static(facts)}", columns, _DIM)
    for note in _notes(row):
        yield from _wrapped(note, columns, "yellow")


def _wrapped(text: str, columns: int, style: str = "") -> Iterator[Text]:
    """Yield an indented text in lines that fit, with no break inside what belongs together."""
    if not text:
        return
    protected = text.replace(_GAP, "\0").replace(" ", "\1").replace("\0", _GAP) if _GAP in text else text
    for line in textwrap.wrap(
        protected,
        columns,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield Text(line.replace("\1", " "), style=style)


def _competitors(row: RowStudy) -> Iterator[str]:
    """Yield each competitor with its speedup and interval, or why it has no time."""
    speedups = row.speedups or {}
    for side in row.row.sides[1:]:
        if side.name in speedups:
            yield f"{side.name} {speedup_text(speedups[side.name])}"
        else:
            yield f"{side.name}: {lost(side)}"


def speedup_text(speedup: Estimate) -> str:
    """Return a speedup with its interval, and a `~` where it may be none.

    Example:
        >>> speedup_text(Estimate(1.5, 1.42, 1.61, 30, 1.0)), speedup_text(Estimate(1.01, 0.98, 1.02, 30, 1.0))
        ('1.50x [1.42, 1.61]', '~1.01x [0.98, 1.02]')
    """
    if speedup.low is None or speedup.high is None:
        return estimate_text(speedup)
    low, high = (ratio_text(end).removesuffix("x") for end in (speedup.low, speedup.high))
    return f"{estimate_text(speedup)} [{low}, {high}]"


def _policies(latencies: Mapping[str, Latency]) -> Iterator[str]:
    for name, latency in latencies.items():
        yield f"{name} {format_seconds(latency.median_s)}"


def _counted(row: RowStudy) -> Iterator[str]:
    """Yield what else is known of a row."""
    found, ours = row.verification, row.row.ours
    if found is not None and row.is_ok:
        yield f"error {error_text(found.error)} (limit {error_text(found.tolerance)})"
    if ours.launches is not None:
        yield f"{ours.launches} launch{'' if ours.launches == 1 else 'es'}"
    if ours.host_s is not None:
        yield f"host {format_seconds(ours.host_s)}"
    if ours.compile_s is not None:
        yield f"compile {format_seconds(ours.compile_s)}"
    if ours.extra_bytes is not None:
        yield f"extra {format_bytes(ours.extra_bytes)}"
    if ours.config:
        yield " ".join(f"{name}={value}" for name, value in ours.config.items())


def error_text(error: float) -> str:
    """Return a relative error.

    Example:
        >>> error_text(3.14e-7), error_text(0.0)
        ('3.1e-7', '0')
    """
    return f"{error:.1e}".replace("e-0", "e-") if error else "0"


def _static(facts: Mapping[str, float | str]) -> str:
    """Return the forecast, then the facts that it rests on."""
    said = [str(facts["verdict"])] if "verdict" in facts else []
    if "gpu" in facts:
        said.insert(0, str(facts["gpu"]))
    named = {
        "registers": "registers",
        "spills": "spills",
        "occupancy": "occupancy",
        "instructions_per_element": "instructions an element",
    }
    said += [f"{_short(facts[key])} {words}" for key, words in named.items() if key in facts]
    return ", ".join(said)


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _notes(row: RowStudy) -> Iterator[str]:
    """Yield what a reader of the row must know."""
    ours, found = row.row.ours, row.verification
    if found is not None and not found.repeatable:
        yield "two calls on the same values differ in their bits"
    if found is not None:
        yield from found.notes
    if ours.void_rounds:
        yield f"{counted(ours.void_rounds, 'round')} void, because the device was throttled"
    if is_contended(row.contention):
        yield f"contended: {percent(row.contention or 0.0)} of the processor missing"
    yield from row.row.notes


def _summary(rows: Sequence[RowStudy]) -> Iterator[str]:
    """Yield how many rows have a time, and a line for each competitor."""
    failed = [row for row in rows if not row.is_ok]
    if failed:
        statuses = dict.fromkeys(row.row.status for row in failed)
        counts = [f"{sum(row.row.status == each for row in failed)} {each}" for each in statuses]
        yield f"{len(failed)} of {counted(len(rows), 'row')} without a time: {', '.join(counts)}"
    else:
        yield f"every row is right and has a time ({len(rows)})"
    for name in dict.fromkeys(name for row in rows for name in row.speedups or {}):
        found = [row.speedups[name] for row in rows if row.speedups and name in row.speedups]
        faster = sum(each.can_tell and each.value > 1 for each in found)
        slower = sum(each.can_tell and each.value < 1 for each in found)
        unclear = len(found) - faster - slower
        yield f"against {name}: faster in {faster}, slower in {slower}, can't tell in {unclear} of {len(found)}"


def _has_unclear(rows: Sequence[RowStudy]) -> bool:
    return any(not each.can_tell for row in rows for each in (row.speedups or {}).values())
