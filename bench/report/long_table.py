"""A table of thousands of rows, drawn as rich draws it, at a fraction of the cost.

Rich measures and lays out each cell by itself. Most cells of such a table are a few plain characters that fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

_Lines = list[list[Segment]]


@dataclass
class _Column:
    """A column: what `rich.table.Table` is told of it, and its cells."""

    heading: str
    justify: Literal["left", "right"]
    no_wrap: bool
    overflow: Literal["fold", "ellipsis"]
    cells: list[str | Text] = field(default_factory=list)

    def texts(self) -> list[str]:
        """Return the head and the cells."""
        return [self.heading, *(cell if isinstance(cell, str) else cell.plain for cell in self.cells)]

    def width(self) -> int:
        """Return the width of the longest line."""
        return max((cell_len(line) for text in self.texts() for line in text.splitlines()), default=0)

    def least_width(self) -> int:
        """Return the width of the longest word, or that of the longest line where lines must not wrap."""
        if self.no_wrap:
            return self.width()
        return max((cell_len(word) for text in self.texts() for word in text.split()), default=0)


class LongTable:
    """A table whose columns keep their full widths, except for one at most, which wraps.

    Args:
        make: returns an empty table with a space right of each cell but the last of a row, and one between columns.

    Example:
        >>> from rich import box
        >>> table = LongTable(lambda: Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False))
        >>> table.add_column("#")
        >>> table.add_column("time", justify="right")
        >>> table.add_row("1", "9.5 s")
        >>> table.add_row("2", Text("12 s", style="dim"))
        >>> Console(width=40).print(table)
        #   time
        ────────
        1  9.5 s
        2   12 s
    """

    def __init__(self, make: Callable[[], Table]) -> None:
        self._make = make
        self._columns: list[_Column] = []
        self._styles: list[str | None] = []

    def add_column(
        self,
        heading: str,
        *,
        justify: Literal["left", "right"] = "left",
        no_wrap: bool = True,
        overflow: Literal["fold", "ellipsis"] = "ellipsis",
    ) -> None:
        """Add a column, as rich does."""
        self._columns.append(_Column(heading, justify, no_wrap, overflow))

    def add_row(self, *cells: str | Text, style: str | None = None) -> None:
        """Add a row with a cell for each column."""
        for column, cell in zip(self._columns, cells, strict=True):
            column.cells.append(cell)
        self._styles.append(style)

    @property
    def width(self) -> int:
        """The width of the table where nothing wraps."""
        return self._between + sum(column.width() for column in self._columns)

    @property
    def least_width(self) -> int:
        """The width below which words are cut."""
        return self._between + sum(column.least_width() for column in self._columns)

    @property
    def _between(self) -> int:
        """The width of what is between the columns."""
        return 2 * (len(self._columns) - 1)

    def table(self, *, head_alone: bool = False, widths: list[int] | None = None) -> Table:
        """Return rich's table.

        Args:
            head_alone: whether the rows are left out.
            widths: of the columns. None: that of a column that wraps is left to rich.
        """
        table = self._make()
        for at, column in enumerate(self._columns):
            width = widths[at] if widths else column.width() if column.no_wrap else None
            table.add_column(column.heading, width=width, **_layout(column))
        for place, style in enumerate(() if head_alone else self._styles):
            table.add_row(*(_text(column.cells[place]) for column in self._columns), style=style)
        return table

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.table())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [column.width() for column in self._columns]
        excess = self._between + sum(widths) - options.max_width
        if excess > 0:
            wrapping = [at for at, column in enumerate(self._columns) if not column.no_wrap]
            if len(wrapping) != 1 or widths[wrapping[0]] <= excess:  # rich cuts columns off
                yield self.table()
                return
            widths[wrapping[0]] -= excess
        yield self.table(head_alone=True, widths=widths)
        paddings = [1] * (len(widths) - 1) + [0]
        for place, style_name in enumerate(self._styles):
            style = console.get_style(style_name or "")
            cells = [
                _drawn(console, options, column, column.cells[place], width, padding, style)
                for column, width, padding in zip(self._columns, widths, paddings, strict=True)
            ]
            yield from _row(cells, widths, paddings, style)


def _layout(column: _Column) -> dict[str, Any]:
    """Return how a column's lines are laid out, in rich's words."""
    return {"justify": column.justify, "no_wrap": column.no_wrap, "overflow": column.overflow}


def _text(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _drawn(
    console: Console,
    options: ConsoleOptions,
    column: _Column,
    cell: str | Text,
    width: int,
    padding: int,
    style: Style,
) -> _Lines:
    """Return the lines of a cell, as wide as its column with its padding."""
    if isinstance(cell, str) and not style and _fits(cell, width):
        lines = []
        for line in cell.split("\n"):
            room = " " * (width - cell_len(line))
            lines.append(
                [Segment((line + room if column.justify == "left" else room + line) + " " * padding)]
            )
        return lines
    return console.render_lines(
        Padding(_text(cell), (0, padding, 0, 0)),
        options.update(width=width + padding, height=None, highlight=False, **_layout(column)),
        style=style,
    )


def _fits(text: str, width: int) -> bool:
    """Whether each line fits and is drawn as it is: rich escapes characters, and leaves out spaces at the end."""
    return not text.endswith("\n") and all(
        cell_len(line) <= width and line.isprintable() and not line.endswith(" ") for line in text.split("\n")
    )


def _row(cells: list[_Lines], widths: list[int], paddings: list[int], style: Style) -> Iterator[Segment]:
    """Yield the lines of a row, whose cells begin at the top."""
    height = max(map(len, cells))
    blanks = [
        [Segment(" " * (width + padding), style)] for width, padding in zip(widths, paddings, strict=True)
    ]
    between = Segment(" ", style.background_style)
    for number in range(height):
        for at, (lines, blank) in enumerate(zip(cells, blanks, strict=True)):
            if at:
                yield between
            yield from lines[number] if number < len(lines) else blank
        yield Segment.line()
