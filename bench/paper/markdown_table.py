"""A table for Markdown, as GitHub, GitLab and notebooks show it."""

from __future__ import annotations

from collections.abc import Iterator

from fusetune.bench.paper.digits import Written, written_column
from fusetune.bench.paper.paper_table import MARKS, Figure, PaperTable
from fusetune.bench.terminal import escaped


def as_markdown(table: PaperTable) -> str:
    """Return a table with its caption above and its notes below.

    Args:
        table: what to print. Columns for CSV alone are left out.

    Example:
        >>> from fusetune.bench.paper import Column
        >>> columns = (Column("optimizer", "optimizer"), Column("step_time_s", "step time", "s"))
        >>> rows = (("adam", Figure(0.5, is_best=True)), ("a|b", Figure(1.5, marks=("behind",))))
        >>> print(as_markdown(PaperTable("", "Two optimizers.", columns, rows)))
        Two optimizers.
        <BLANKLINE>
        | optimizer | step time [s] |
        | --- | --: |
        | adam | **0.500** |
        | a&#124;b | 1.50† |
        <BLANKLINE>
    """
    return "\n".join(_lines(table.as_shown())) + "\n"


def _lines(table: PaperTable) -> Iterator[str]:
    yield escaped(table.caption)
    yield ""
    columns = [_column(table, place) for place in table.shown]
    yield _line([heading for heading, _ in columns])
    yield _line(["---" if table.columns[place].unit is None else "--:" for place in table.shown])
    for row in zip(*(cells for _, cells in columns), strict=True):
        yield _line(row)
    for note in table.notes:
        yield ""
        yield escaped(note)


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _column(table: PaperTable, place: int) -> tuple[str, list[str]]:
    column = table.columns[place]
    if column.unit is None:
        return escaped(column.title), [escaped(str(row[place])) for row in table.rows]
    written = written_column(table, place)
    cells = [_cell(figure, text) for figure, text in zip(table.figures(place), written.cells, strict=True)]
    return f"{escaped(column.title)}{written.heading.removeprefix(column.title)}", cells


def _cell(figure: Figure, written: Written) -> str:
    value = written.value
    if figure.is_best:
        value = f"**{value}**"
    before = "".join(escaped(MARKS[mark]) for mark in figure.marks if mark == "tie")
    after = "".join(escaped(MARKS[mark]) for mark in figure.marks if mark != "tie")
    # Our own brackets make no link, for nothing follows them.
    interval = f" {written.interval}" if written.interval else ""
    return f"{before}{value}{after}{interval}"
