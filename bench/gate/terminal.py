"""A result for a terminal, in 100 columns, with or without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fusetune.bench.gate.result import GateResult, Row
from fusetune.bench.gate.verdict import Outcome
from fusetune.bench.gate.wording import (
    WORDS,
    WORST_FIRST,
    change_text,
    counts_text,
    headline,
    interval_text,
    is_uncertain,
    metric_title,
    p_text,
    pairs_text,
    side_text,
    typical_text,
    verdict_text,
)
from fusetune.bench.terminal import one_line

_STYLES: dict[Outcome, str] = {
    "regressed": "bold red",
    "missing": "bold red",
    "can't tell": "yellow",
    "improved": "bold green",
    "pass": "green",
}
_DIM = "dim"


def show_gate(result: GateResult, console: Console) -> None:
    """Print a result: the verdict in words, a table of all rows, and a sentence for each that is no plain pass.

    Args:
        result: of a gate or a comparison.
        console: 100 columns wide, or more.
    """
    outcome = result.outcome
    said = Text.assemble((verdict_text(outcome), _STYLES[outcome]), "  ", one_line(headline(result)))
    console.print(Panel(said, box=box.HEAVY, border_style=_STYLES[outcome], padding=(0, 1)))
    console.print(_sides(result))
    if result.rows:
        console.print()
        console.print(_table(result.rows))
        console.print(Text(counts_text(result.rows), style=_DIM))
    for title, lines in (
        ("What the verdicts rest on", _sentences(result.rows)),
        ("Notes", [Text(one_line(note)) for note in result.notes]),
    ):
        if lines:
            console.print()
            console.print(Text(title, style="bold"))
            console.print(_list(lines))
    if result.directory:
        console.print()
        line = Text.assemble(("raw pairs: ", _DIM), f"{result.directory}/pairs.jsonl")
        console.print(line, soft_wrap=True)


def _sides(result: GateResult) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=_DIM, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(result.kind, Text(one_line(result.title)))
    for name, side in (("base", result.base), ("head", result.head)):
        grid.add_row(name, Text(one_line(side_text(side))))
    if result.pairs:
        grid.add_row("pairs", pairs_text(result))
    return grid


def _table(rows: Iterable[Row]) -> Table:
    """Draw a row for each metric, below the name of its benchmark."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("benchmark\n  metric", overflow="fold", min_width=18)
    for title in ("base", "head", "change", "95 %\ninterval", "p", "n"):
        table.add_column(title, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("verdict", no_wrap=True)
    previous = None
    for row in rows:
        if row.benchmark != previous:
            previous = row.benchmark
            table.add_row(Text(one_line(row.benchmark), style="bold"))
        table.add_row(
            Padding(Text(one_line(metric_title(row.metric))), (0, 0, 0, 2)),
            *_numbers(row),
            Text(verdict_text(row.outcome), style=_STYLES[row.outcome]),
        )
    return table


def _numbers(row: Row) -> list[Text]:
    exact = row.comparison == "exact" and row.p is None
    values = [typical_text(row, value) for value in (row.base, row.head)]
    style = _DIM if is_uncertain(row) else ""
    return [
        *map(Text, values),
        Text(change_text(row), style=style),
        Text("exact" if exact and row.outcome != "missing" else interval_text(row), style=_DIM),
        Text(p_text(row.p)),
        Text(str(row.n)),
    ]


def _sentences(rows: Iterable[Row]) -> list[Text]:
    """Say what each row rests on that is not a plain pass."""
    return [
        Text.assemble(
            (f"{WORDS[row.outcome]} ", _STYLES[row.outcome]),
            (one_line(f"{row.benchmark}, {metric_title(row.metric)}: "), "bold"),
            one_line(f"{row.sentence} {row.advice}".strip()),
        )
        for row in sorted(rows, key=lambda row: WORST_FIRST.index(row.outcome))
        if row.outcome != "pass"
    ]


def _list(lines: Iterable[Text]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", line)
    return grid
