"""A table as CSV: every number in SI base units with all of its digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from fusetune.bench.paper.paper_table import Column, Figure, PaperTable
from fusetune.bench.terminal import spreadsheet_text


def as_csv(table: PaperTable) -> str:
    """Return a line a row below a head of names. Numbers read back as they were.

    A number with an interval has three more columns: its ends and its `n`. A cell without a number is empty, and a
    missed target is `inf`.

    Args:
        table: what to print, columns for CSV alone included.

    Example:
        >>> columns = (Column("optimizer", "optimizer"), Column("step_time_s", "step time", "s", ("min", "max")))
        >>> print(as_csv(PaperTable("", "", columns, (("adam", Figure(0.1, 0.05, 0.2, 3)), ("=x", Figure(None))))))
        optimizer,step_time_s,step_time_s_min,step_time_s_max,step_time_s_n
        adam,0.1,0.05,0.2,3
        '=x,,,,
        <BLANKLINE>
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([spreadsheet_text(name) for column in table.columns for name in _names(column)])
    for row in table.rows:
        writer.writerow(
            [
                cell
                for column, content in zip(table.columns, row, strict=True)
                for cell in _cells(column, content)
            ]
        )
    return stream.getvalue()


def _names(column: Column) -> Iterator[str]:
    yield column.name
    if column.ends is not None:
        yield from (f"{column.name}_{end}" for end in (*column.ends, "n"))


def _cells(column: Column, content: str | Figure) -> Iterator[str]:
    if isinstance(content, str):
        yield spreadsheet_text(content)
        return
    numbers = [content.value]
    if column.ends is not None:
        numbers += [content.low, content.high, content.n]
    yield from ("" if number is None else repr(number) for number in numbers)
