"""A table as plain data: columns with units, numbers with their intervals, and notes. Nothing is rounded here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fusetune.errors import InvalidValueError

Mark = Literal["tie", "behind", "baseline", "contended"]
# Mark -> how it is printed. The first one stands before its number, as in every report.
MARKS: dict[Mark, str] = {"tie": "~", "behind": "†", "baseline": "*", "contended": "‡"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: for CSV, unique in the table.
        title: for people, without the unit. It may be a person's string.
        unit: of the numbers, as in `bench.units.METRICS`. None: the column has texts. Empty: plain numbers, such as
            ranks.
        ends: what the ends of the intervals are called in CSV. None: the numbers have no intervals.
        is_data: whether the column is for CSV alone.
    """

    name: str
    title: str
    unit: str | None = None
    ends: tuple[str, str] | None = None
    is_data: bool = False


@dataclass(frozen=True)
class Figure:
    """A number of a table, in SI base units.

    Args:
        value: None: there is none. Infinite: most seeds missed the target.
        low, high: the interval. None: it has none.
        n: numbers behind it. None: not said.
        marks: what a reader must know of it, explained in the table's notes.
        is_best: whether a test tells it from all others. Only then it is printed in bold.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    marks: tuple[Mark, ...] = ()
    is_best: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table for a paper.

    Args:
        label: for references, the run's id among its parts.
        caption: one sentence or more.
        columns: from left to right.
        rows: a cell for each column: texts or numbers.
        notes: sentences below the table.
        most_shown: rows that people see, the first ones. None: all of them. CSV has all.

    Raises:
        InvalidValueError: a row has another number of cells, or two columns have the same name.

    Example:
        >>> columns = (Column("optimizer", "optimizer"), Column("step_time_s", "step time", "s", ("min", "max")))
        >>> table = PaperTable("tab:demo", "Two optimizers.", columns, (("adam", Figure(0.5, 0.25, 1.0, 3)),))
        >>> table.rows[0][1].value
        0.5
    """

    label: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Figure, ...], ...]
    notes: tuple[str, ...] = ()
    most_shown: int | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            raise InvalidValueError("columns", "two have the same name", f"known: {', '.join(names)}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InvalidValueError("rows", f"one has {len(row)} cells of {len(self.columns)}")

    def as_shown(self) -> PaperTable:
        """Return the table without the rows that people do not see."""
        return replace(self, rows=self.rows[: self.most_shown], most_shown=None)

    @property
    def shown(self) -> tuple[int, ...]:
        """Places of the columns that people see."""
        return tuple(place for place, column in enumerate(self.columns) if not column.is_data)

    def figures(self, place: int) -> Sequence[Figure]:
        """Return the numbers of a column."""
        return [cell for row in self.rows if isinstance(cell := row[place], Figure)]
