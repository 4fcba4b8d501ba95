"""Numbers as a table prints them: one unit a column, and as many digits as the interval leaves meaning to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusetune.bench.paper.paper_table import Column, Figure, PaperTable
from fusetune.bench.units import display_unit

# An interval is printed with so many significant digits of its width, and a number without one with so many.
_OF_WIDTH, _OF_NUMBER = 2, 3
_LEAST = 2
_MOST_PLACES = 12
_SMALL = 1e-4  # smaller numbers are written with an exponent, where they have no interval
INFINITE = "∞"
NOTHING = "–"


@dataclass(frozen=True)
class Written:
    """A number as text: its value, and its interval where that says more than the value.

    Args:
        value: e.g. `12.3`, `∞` or `–`.
        interval: e.g. `[11.9, 13.1]`, or empty.
    """

    value: str
    interval: str = ""


@dataclass(frozen=True)
class WrittenColumn:
    """A column of numbers as text. `heading` is its title with the unit."""

    heading: str
    cells: tuple[Written, ...]


def written_column(table: PaperTable, place: int) -> WrittenColumn:
    """Write the numbers of a column in one unit.

    Args:
        table: the table.
        place: of a column of numbers.

    Example:
        >>> column = Column("step_time_s", "step time", "s", ("min", "max"))
        >>> rows = ((Figure(0.01234, 0.0119, 0.0131),), (Figure(0.2,),))
        >>> written_column(PaperTable("", "", (column,), rows), 0)
        WrittenColumn(heading='step time [ms]', cells=(Written(value='12.3', interval='[11.9, 13.1]'), \
Written(value='200', interval='')))
    """
    column, figures = table.columns[place], table.figures(place)
    factor, unit = _unit(column, figures)
    heading = f"{column.title} [{unit}]" if unit else column.title
    # A count between two others, such as the median of an even number, keeps its fraction.
    is_whole = column.unit in ("count", "") and all(
        number is None or not math.isfinite(number) or float(number).is_integer()
        for figure in figures
        for number in (figure.value, figure.low, figure.high)
    )
    return WrittenColumn(heading, tuple(_written(figure, factor, is_whole) for figure in figures))


def _unit(column: Column, figures: Sequence[Figure]) -> tuple[float, str]:
    values = [
        abs(figure.value) for figure in figures if figure.value is not None and math.isfinite(figure.value)
    ]
    return display_unit(column.unit or "", values)


def _written(figure: Figure, factor: float, is_whole: bool) -> Written:
    if figure.value is None:
        return Written(NOTHING)
    numbers = [
        number / factor if number is not None else None for number in (figure.value, figure.low, figure.high)
    ]
    value, low, high = numbers
    assert value is not None
    places = 0 if is_whole else _places(value, low, high)
    text = _fixed(value, places)
    if low is None or high is None:
        small = 0 < abs(value) < _SMALL
        return Written(f"{value:.{_OF_NUMBER - 1}e}".replace("e-0", "e-") if small else text)
    ends = [_fixed(low, places), _fixed(high, places)]
    return Written(text, "" if ends == [text, text] else f"[{', '.join(ends)}]")


def _places(value: float, low: float | None, high: float | None) -> int:
    """Return the decimals to print: two significant digits of the interval's width, two of each number at least.

    An interval without an end has no width, so that three digits are printed.
    """
    finite = [number for number in (value, low, high) if number is not None and math.isfinite(number)]
    width = max(finite) - min(finite) if finite else 0.0
    size = min((abs(number) for number in finite if number), default=0.0)
    if not width or len(finite) < sum(number is not None for number in (value, low, high)):
        return _decimals(size, _OF_NUMBER)
    return max(_decimals(width, _OF_WIDTH), _decimals(size, _LEAST))


def _decimals(size: float, digits: int) -> int:
    """Return the decimals that show so many significant digits of a size."""
    if not size:
        return 0
    return min(_MOST_PLACES, max(0, digits - 1 - math.floor(math.log10(size))))


def _fixed(value: float, places: int) -> str:
    """Write a number with a fixed number of decimals, thousands apart, and no minus before a zero."""
    if math.isinf(value):
        return INFINITE if value > 0 else f"-{INFINITE}"
    text = f"{value:,.{places}f}"
    return text.lstrip("-") if not float(text.replace(",", "")) else text
