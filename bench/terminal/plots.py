"""Plots of characters: curves over an axis, readable without colour, in a terminal, a log or a mail.

plotext draws. Here are what it lacks: round ticks, a legend below that covers no data, and a console without Unicode.
Texts of others never reach it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fusetune.bench.terminal.text import one_line
from fusetune.errors import InvalidValueError

_WIDEST, _NARROWEST = 100, 40
_MOST_Y_TICKS, _COLUMNS_A_TICK = 4, 12
_LEGEND_LINES = 3
_BETWEEN = 2
_MARKS = {"solid": "│", "heavy": "┃", "double": "║", "dotted": "┊"}
_LEVELS = {"solid": "─", "heavy": "━", "double": "═", "dotted": "┈"}
_ASCII = str.maketrans("│┤┃║┊─━═┈…", "||I!:-==.~")
MarkStyle = Literal[
    "solid", "heavy", "double", "dotted"
]  # plotext takes its default, a solid line, for `solid`
_OF_BOXES = re.compile("[\u2500-\u257f]")


def brief(value: float) -> str:
    """Write a number as briefly as it can be read.

    Example:
        >>> brief(0.001), brief(1e-4), brief(20_000), brief(2.5e6)
        ('0.001', '1e-4', '20,000', '2.5e6')
    """
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, power = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:,.6g}"


def brief_unit(quantity: str) -> str:
    """Write a quantity with its unit without zeros that say nothing, for the ticks of an axis.

    Example:
        >>> brief_unit("32.0 KiB"), brief_unit("1.50 ms"), brief_unit("100 us")
        ('32 KiB', '1.5 ms', '100 us')
    """
    number, gap, unit = quantity.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number}{gap}{unit}"


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Args:
        low, high: of the window, in the unit of the data. None: from the data. What lies outside is not drawn.
        log: whether equal ratios are equally far apart. Values that are not positive are left out.
        whole: whether values between whole numbers mean nothing, as of epochs.
        ticks: positions of labels. Empty: round numbers.
        text: writes the value of a tick.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    ticks: Sequence[float] = ()
    text: Callable[[float], str] = brief


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Args:
        name: for the legend, any text. Empty: not in the legend.
        x, y: positions, of equal length. None, NaN and infinities are left out.
        marker: one character, an ASCII one to be readable everywhere.
        joined: whether neighbours are connected. A value that was left out is a gap.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    marker: str
    joined: bool = True


@dataclass(frozen=True)
class Mark:
    """A line across the plot, at a value of one axis. It is left out where the value is outside the window.

    Args:
        name: for the legend, any text. Empty: not in the legend.
        value: where. None: nowhere.
        axis: the one that `value` is on. `x` gives a vertical line.
        style: of the line.
    """

    name: str
    value: float | None
    axis: Literal["x", "y"]
    style: MarkStyle = "solid"


@dataclass(frozen=True)
class TextPlot:
    """A plot of characters, which a rich console prints in its own width, up to 100 columns.

    Args:
        title: what is drawn against what, with units.
        series: the first is drawn over the others.
        x, y: the axes.
        marks: lines across the plot, behind the series.
        height: lines of the plot itself. Title, axis and legend take 4 to 6 more.

    Example:
        >>> losses = Series("mean loss", [1, 2, 3, 4], [4.0, 2.0, 1.0, 1.0], "o")
        >>> plot = TextPlot("loss against epoch", [losses], height=4, marks=[Mark("target 2", 2, "y", "dotted")])
        >>> lines = plot.lines(40)
        >>> print(lines[0])
        loss against epoch
        >>> print(lines[-1].strip())
        o mean loss   ┈ target 2
    """

    title: str
    series: Sequence[Series]
    x: Axis = Axis()
    y: Axis = Axis()
    marks: Sequence[Mark] = ()
    height: int = 10

    def __bool__(self) -> bool:
        """Tell whether there is a point to draw."""
        return any(any(_points(series, self.x, self.y)) for series in self.series)

    def lines(self, width: int = _WIDEST, *, ascii_only: bool = False) -> list[str]:
        """Return the lines of the plot, none of them wider than `width`. Without a point to draw there are none.

        Args:
            width: columns, at least 40.
            ascii_only: whether frame and lines are of ASCII too.

        Raises:
            InvalidValueError: width or height is too small, or x and y of a series differ in length.
        """
        if width < _NARROWEST or self.height < 2:
            raise InvalidValueError(
                f"{width} x {self.height}", "is too small for a plot", f"at least {_NARROWEST} x 2"
            )
        drawn = [(series, _points(series, self.x, self.y)) for series in self.series]
        inside = [point for _, points in drawn for point in points if point is not None]
        if not inside:
            return []
        scales = (
            _Scale(self.x, [x for x, _ in inside], max(2, width // _COLUMNS_A_TICK), cells=width),
            _Scale(self.y, [y for _, y in inside], min(_MOST_Y_TICKS, self.height), cells=self.height),
        )
        marks = [(mark, place) for mark in self.marks if (place := _place(mark, scales)) is not None]
        canvas = _drawn(drawn, marks, scales, width, self.height + 2)
        symbols = [(series.marker, series.name) for series, points in drawn if any(points)]
        symbols += [((_MARKS if mark.axis == "x" else _LEVELS)[mark.style], mark.name) for mark, _ in marks]
        indent = canvas[-2].index("└") + 1
        names = [(symbol, name) for symbol, name in symbols if name]
        legend = [" " * indent + line for line in _legend(names, width - indent)]
        lines = [_cut(one_line(self.title), width), *canvas, *legend]
        return [_OF_BOXES.sub("+", line.translate(_ASCII)) for line in lines] if ascii_only else lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the lines in the console's width."""
        width = max(_NARROWEST, min(options.max_width, _WIDEST))
        for line in self.lines(width, ascii_only=options.ascii_only):
            yield Text(line, no_wrap=True, overflow="ignore", end="\n")


@dataclass(frozen=True)
class PlotsBeside:
    """Plots side by side in a console of 82 columns or more, and one below the other in a narrower one.

    Args:
        plots: two or more.
    """

    plots: Sequence[TextPlot]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the lines of all plots, those of a shorter one filled up."""
        room = (min(options.max_width, _WIDEST) - _BETWEEN * (len(self.plots) - 1)) // len(self.plots)
        if room < _NARROWEST:
            yield from self.plots
            return
        drawn = [plot.lines(room, ascii_only=options.ascii_only) for plot in self.plots if plot]
        for cells in zip_longest(*drawn, fillvalue=""):
            padded = (set_cell_size(cell, room) for cell in cells)
            line = (" " * _BETWEEN).join(padded).rstrip()
            yield Text(line, no_wrap=True, overflow="ignore", end="\n")


class _Scale:
    """The window of an axis, which maps values to 0..1, and its ticks."""

    def __init__(self, axis: Axis, values: Sequence[float], most: int, *, cells: int) -> None:
        self._axis = axis
        low = self._moved(min(values) if axis.low is None else axis.low)
        high = self._moved(max(values) if axis.high is None else axis.high)
        self._low, self._high = _widened(low, high)
        ticks: Iterable[float] = axis.ticks
        if not ticks:
            found = _ticks(self._low, self._high, most, log=axis.log, whole=axis.whole)
            ticks = found if self._low == low else [values[0]]
        self.ticks: list[tuple[float, str]] = []
        for tick in ticks:
            place = self.place(tick)
            # Of two labels in one cell plotext would print a mixture.
            if place is not None and (not self.ticks or place - self.ticks[-1][0] > (1 - 1e-9) / (cells - 1)):
                self.ticks.append((place, axis.text(tick)))

    def place(self, value: float) -> float | None:
        """Return where a value is, 0 to 1. None: outside the window."""
        if self._axis.log and value <= 0:
            return None
        # Halves do not overflow.
        place = (self._moved(value) / 2 - self._low / 2) / (self._high / 2 - self._low / 2)
        return min(1.0, max(0.0, place)) if -1e-9 <= place <= 1 + 1e-9 else None

    def _moved(self, value: float) -> float:
        return math.log10(value) if self._axis.log else value


def _widened(low: float, high: float) -> tuple[float, float]:
    """Give a window of one value some room around it."""
    if high / 2 - low / 2 > 1e-12 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 10 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, most: int, *, log: bool, whole: bool) -> Iterator[float]:
    """Yield at most `most` round numbers of a window, which is in powers of ten where it is logarithmic."""
    if log:
        first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
        if last > first:
            stride = -(-(last - first + 1) // most)
            yield from (10.0**power for power in range(first, last + 1, stride) if -308 < power < 308)
            return
        low, high = 10**low, 10**high
        between = [digit * 10.0**power for power in (first - 1, first) for digit in (1, 2, 5)]
        inside = [tick for tick in between if low <= tick <= high]
        if len(inside) > 1:
            yield from inside[:most]
            return
    step = max(1.0, _round_step(low, high, most)) if whole else _round_step(low, high, most)
    number = math.ceil(low / step - 1e-9)
    while number * step <= high + 1e-9 * step:
        # The product of a whole number and a step of one digit, without the error of binary fractions.
        yield float(f"{number * step:.12g}")
        number += 1


def _round_step(low: float, high: float, most: int) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that gives at most `most` ticks."""
    power = math.floor(math.log10(max((high / 2 - low / 2) / most * 2, 1e-300)))
    for exponent in (power, power + 1, power + 2):
        for digits in (1.0, 2.0, 5.0):
            step = digits * 10.0**exponent
            if math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) < most:
                return step
    return high - low


def _points(series: Series, x: Axis, y: Axis) -> list[tuple[float, float] | None]:
    """Return the points of a series. None is a gap."""
    if len(series.x) != len(series.y) or cell_len(series.marker) != 1:
        raise InvalidValueError(
            series.name, "has x and y of different lengths, or a marker that is not one column wide"
        )
    points: list[tuple[float, float] | None] = []
    for at, value in zip(series.x, series.y, strict=True):
        known = at is not None and value is not None and _is_drawable(at, x) and _is_drawable(value, y)
        points.append((float(at), float(value)) if known and at is not None and value is not None else None)
    return points


def _is_drawable(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and not (axis.log and value <= 0)


def _place(mark: Mark, scales: tuple[_Scale, _Scale]) -> float | None:
    if mark.value is None or not math.isfinite(mark.value):
        return None
    return scales["xy".index(mark.axis)].place(mark.value)


def _drawn(
    drawn: Sequence[tuple[Series, Sequence[tuple[float, float] | None]]],
    marks: Sequence[tuple[Mark, float]],
    scales: tuple[_Scale, _Scale],
    width: int,
    height: int,
) -> list[str]:
    """Let plotext draw. It gets places between 0 and 1 alone, and a figure of its own, which no other plot shares."""
    import plotext

    terminal = type(plotext.terminal)()
    terminal.limit(False, False)
    figure = type(plotext.figure)(parent=terminal)
    figure.plot_size(width, height)
    figure.axes(False, axis="x", side="upper")
    figure.axes(False, axis="y", side="right")
    for axis, side, scale in zip("xy", ("lower", "left"), scales, strict=True):
        ruler = figure.ruler(axis, side)
        ruler.lim(0, 1)
        ruler.ticks([place for place, _ in scale.ticks], [text for _, text in scale.ticks])
    for mark, place in marks:
        figure.line(place, orientation=1 if mark.axis == "x" else 0, style=mark.style)
    for series, points in reversed(drawn):
        for run in _runs(points, scales):
            kept = _thinned(run, width)
            signal = figure.signal([x for x, _ in kept], [y for _, y in kept], marker=series.marker)
            figure.draw(signal.lines(series.joined))
    return [line.rstrip() for line in figure.build().string(colorless=True).splitlines() if line.strip()]


def _runs(
    points: Sequence[tuple[float, float] | None], scales: tuple[_Scale, _Scale]
) -> Iterator[list[tuple[float, float]]]:
    """Yield neighbours that are inside the window, as places. A gap ends a run."""
    run: list[tuple[float, float]] = []
    for point in (*points, None):
        places = (None, None) if point is None else (scales[0].place(point[0]), scales[1].place(point[1]))
        if places[0] is not None and places[1] is not None:
            run.append((places[0], places[1]))
        elif run:
            yield run
            run = []


def _thinned(run: Sequence[tuple[float, float]], columns: int) -> Sequence[tuple[float, float]]:
    """Keep the least and the largest value of each column, in their order. More would cover each other."""
    if len(run) <= 2 * columns:
        return run
    kept: dict[int, tuple[int, int]] = {}
    for number, (x, y) in enumerate(run):
        column = int(x * columns)
        low, high = kept.get(column, (number, number))
        kept[column] = (number if y < run[low][1] else low, number if y > run[high][1] else high)
    return [run[number] for number in sorted({number for pair in kept.values() for number in pair})]


def _legend(entries: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Write the entries in at most three lines. Long names are cut, until each has the room that it gets."""
    names = [one_line(name) for _, name in entries]
    longest = max(map(cell_len, names), default=0)
    for room in range(min(longest, width - 2), 0, -1):
        lines = _filled(
            [f"{symbol} {_cut(name, room)}" for (symbol, _), name in zip(entries, names, strict=True)], width
        )
        if len(lines) <= _LEGEND_LINES or room <= 12:
            return lines
    return []


def _filled(entries: Sequence[str], width: int) -> list[str]:
    """Put entries into lines."""
    lines: list[str] = []
    for entry in entries:
        if lines and cell_len(lines[-1]) + 3 + cell_len(entry) <= width:
            lines[-1] += f"   {entry}"
        else:
            lines.append(entry)
    return lines


def _cut(text: str, room: int) -> str:
    """Shorten a text to a number of columns."""
    return text if cell_len(text) <= room else f"{(chop_cells(text, max(1, room - 1)) or [''])[0]}…"
