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

from fusetune.bench.kernels.character_plots import sweep_plots
from fusetune.bench.kernels.plot import draw_sweeps, sweep_table
from fusetune.bench.kernels.search_table import search_table
from fusetune.bench.kernels.study import SHORT_S, KernelsStudy, Latency, RowStudy, lost, sweeps_of
from fusetune.bench.kernels.wording import (
    UNCLEAR,
    clocks_text,
    copies_text,
    counts_of,
    has_unclear,
    no_time_text,
    notes_of,
    speedup_text,
    static_text,
    summary_lines,
    threads_text,
)
from fusetune.bench.report import caveat_lines
from fusetune.bench.results import Pictures
from fusetune.bench.stats import counted, percent
from fusetune.bench.terminal import PlotsBeside
from fusetune.bench.units import format_rate, format_seconds
from fusetune.kernels import TritonSearch

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
    for line in summary_lines(study.rows):
        console.print(Text(line, style="bold"))
    if has_unclear(study.rows):
        console.print(Text(UNCLEAR, style=_DIM))
    for sweep in sweeps_of(study.rows):
        console.print()
        console.print(sweep_table(sweep))
        console.print()
        console.print(PlotsBeside(sweep_plots(sweep)))
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
    where = study.run.machine.device_name or study.run.device or "unknown device"
    clocks = clocks_text(study)
    yield _GAP.join(filter(None, (where, threads_text(study), f"clock: {clocks}" if clocks else "")))
    if copies := copies_text(study):
        yield f"best copy of as many bytes: {copies}"


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
        yield from _wrapped(no_time_text(row), columns, "bold red")
    else:
        yield _aligned(row.row.case.name, cells, names, widths)
        yield from _wrapped(_GAP.join(_competitors(row)), columns)
        if row.latency.median_s < SHORT_S and len(row.latencies) > 1:
            yield from _wrapped("by clock: " + _GAP.join(_policies(row.latencies)), columns)
    yield from _wrapped(_GAP.join(counts_of(row)), columns, _DIM)
    for target, facts in row.row.static.items():
        yield from _wrapped(f"{target}: {static_text(facts)}", columns, _DIM)
    for note in notes_of(row):
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


def _policies(latencies: Mapping[str, Latency]) -> Iterator[str]:
    for name, latency in latencies.items():
        yield f"{name} {format_seconds(latency.median_s)}"
