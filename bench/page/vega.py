"""Parts of Vega-Lite specifications that several plots share. Colours come from the page's theme, light or dark.

A part names columns of a plot's data, and titles of axes. It never holds a colour: `style` names one of the theme's
roles below, and series take the theme's palette in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

Channel = dict[str, Any]
Layer = dict[str, Any]

# Roles of marks. The page's script gives each a colour for light and for dark.
Style = Literal[
    "first", "other", "target", "limit", "suggestion", "band", "faint", "good", "bad", "on-low", "on-high"
]

_UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes")),
    "fraction": ((0.01, "%"),),
}
# Share of a logarithmic axis that is left empty at each end, and the factor around a single value.
_ROOM, _ALONE = 0.04, 2.0
_FEW_TICKS, _MOST_TICKS = 3, 9
_TIMES = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)  # ticks where the ends lie close together
_LOG_LABEL = (
    "datum.value < 0.001 || datum.value >= 1e6 ? format(datum.value, '~e') : format(datum.value, '~g')"
)
_LINE_HEIGHT = 16  # in CSS pixels, of a label in a plot
# Minutes and hours are an axis's unit only from a few of them on.
_LEAST_OF_A_UNIT = {3600.0: 3.0, 60.0: 5.0}


def axis_unit(values: Iterable[float | None], unit: str) -> tuple[float, str]:
    """Return the divisor and the name of the unit that suits the largest of some values.

    Args:
        values: in SI base units.
        unit: as in `bench.units.METRICS`.

    Returns:
        The divisor, and the unit's name for an axis, empty for a plain number.

    Example:
        >>> axis_unit([0.012, 0.4], "s"), axis_unit([2**21], "bytes"), axis_unit([0.5], "fraction")
        ((0.001, 'ms'), (1048576, 'MiB'), (0.01, '%'))
        >>> axis_unit([12.0], "count")
        (1.0, '')
    """
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    choices = _UNITS.get(unit, ((1.0, ""),))
    for divisor, name in choices:
        if largest >= divisor * _LEAST_OF_A_UNIT.get(divisor, 1.0):
            return divisor, name
    return choices[-1] if largest else next((each for each in choices if each[0] == 1.0), choices[-1])


def in_unit(values: Iterable[float | None], divisor: float) -> list[float | None]:
    """Return values in an axis's unit. What is not finite has no place on an axis and is None."""
    return [None if value is None or not math.isfinite(value) else value / divisor for value in values]


def by_column(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Return rows as a plot's data, column -> values.

    Args:
        names: of the columns.
        rows: each with a value for each name.

    Example:
        >>> by_column(("x", "y"), [(1, 2), (3, 4)]), by_column(("x",), [])
        ({'x': [1, 3], 'y': [2, 4]}, {'x': []})
    """
    kept = list(rows)
    return {name: [row[place] for row in kept] for place, name in enumerate(names)}


def titled(title: str, unit: str) -> str:
    """Return an axis's title with its unit.

    Example:
        >>> titled("step time", "ms"), titled("steps", "")
        ('step time (ms)', 'steps')
    """
    return f"{title} ({unit})" if unit else title


def quantity(
    column: str,
    title: str,
    *,
    log: bool = False,
    zero: bool = False,
    domain: tuple[float, float] | None = None,
    number_format: str | None = None,
) -> Channel:
    """Return an axis of numbers.

    Args:
        column: of the plot's data.
        title: with its unit.
        log: a logarithmic axis, for values above 0.
        zero: whether the axis begins at 0.
        domain: its ends. None: those of the data.
        number_format: of d3, such as `.3~g`. None: Vega's choice, and `~g` on a logarithmic axis.
    """
    scale: dict[str, Any] = {"type": "log"} if log else {"zero": zero}
    if domain is not None:
        scale |= {"domain": list(domain), "clamp": False, "nice": False}
    axis: dict[str, Any] = {}
    if number_format or log:
        axis["format"] = number_format or "~g"
    return {
        "field": column,
        "type": "quantitative",
        "title": title,
        "scale": scale,
        **({"axis": axis} if axis else {}),
    }


def log_quantity(
    column: str,
    title: str,
    values: Iterable[float | None],
    *,
    base: int = 10,
    number_format: str | None = None,
    si_unit: str = "",
) -> Channel:
    """Return a logarithmic axis that is just long enough for some values, with few ticks at round numbers.

    Vega's own logarithmic axis reaches to the next powers of ten, with a line of its grid at every digit.

    Args:
        column: of the plot's data.
        title: with its unit.
        values: what the axis must show. Those that are missing, not finite or not above 0 have no place on it.
        base: 10, or 2 for ticks at powers of two, which suit batch sizes.
        number_format: of d3.
        si_unit: written at each tick with a prefix, such as `ms` for 0.001 and `s`. The title then has no unit.

    Example:
        >>> axis = log_quantity("lr", "learning rate", [0.002, 0.2])
        >>> [round(end, 5) for end in axis["scale"]["domain"]], axis["axis"]["values"]
        ([0.00166, 0.24045], [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
        >>> log_quantity("size", "batch size", [16, 100], base=2)["axis"]["values"]
        [16, 32, 64]
        >>> log_quantity("speedup", "speedup", [0.85, 1.7])["axis"]["values"]
        [0.9, 1.0, 1.2, 1.5]
    """
    known = [value for value in values if value is not None and 0 < value < math.inf]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    room = _ROOM * math.log(high / low) or math.log(_ALONE)
    low, high = low / math.exp(room), high * math.exp(room)
    label = f"format(datum.value, '{number_format}')" if number_format else _LOG_LABEL
    if si_unit:
        label = f"replace(format(datum.value, '~s'), regexp('([^0-9.]?)$'), ' $1{si_unit}')"
    axis: dict[str, Any] = {"labelExpr": label}
    if ticks := _log_ticks(low, high, base):
        axis["values"] = ticks
    scale = {"type": "log", "base": base, "domain": [low, high], "nice": False}
    return {"field": column, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _log_ticks(low: float, high: float, base: int) -> list[float]:
    """Return powers of the base between two values, with 2 and 5 times those of ten where they are too few."""
    first, last = math.ceil(math.log(low, base)), math.floor(math.log(high, base))
    every = max(1, math.ceil((last - first + 1) / _MOST_TICKS))
    ticks = [float(f"{float(base) ** power:g}") for power in range(first, last + 1, every)]
    if base == 10 and len(ticks) < _FEW_TICKS:
        around = [float(f"{times}e{power}") for power in range(first - 1, last + 1) for times in (1, 2, 5)]
        ticks = [tick for tick in around if low <= tick <= high]
    if base == 10 and len(ticks) < _FEW_TICKS:
        ticks = _close_ticks(low, high)
    # With one tick a reader cannot tell the scale. Vega then chooses them.
    return [int(tick) if base == 2 and tick >= 1 else tick for tick in ticks] if len(ticks) > 1 else []


def _close_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two values that lie within a factor of a few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    around = [float(f"{times}e{power}") for power in powers for times in _TIMES]
    found = [tick for tick in around if low <= tick <= high]
    if len(found) >= _FEW_TICKS:
        return found
    tenth = 10.0 ** math.floor(math.log10(high - low)) / 10
    step = next(tenth * times for times in (1, 2, 5, 10, 20) if (high - low) / (tenth * times) < _MOST_TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{step * number:.6g}") for number in range(first, last + 1)]


def category(
    column: str, title: str = "", *, order: Sequence[Any] | None = None, lines: bool = False
) -> Channel:
    """Return an axis of names. Without `order` they stand as in the data.

    Args:
        column: of the plot's data.
        title: of the axis.
        order: of the names.
        lines: whether a line parts each name's room from the next, for several marks in one room.
    """
    return {
        "field": column,
        "type": "nominal",
        "title": title or None,
        "sort": list(order) if order is not None else None,
        **({"axis": {"grid": True, "tickBand": "extent"}} if lines else {}),
    }


def series(column: str, title: str = "", *, order: Sequence[Any] | None = None) -> Channel:
    """Return the colour of each series. A click on an entry of the legend shows that series alone."""
    channel = category(column, title, order=order)
    return {**channel, "legend": {"orient": "bottom", "symbolType": "stroke", "symbolOpacity": 1}}


def point_series(column: str, title: str = "", *, order: Sequence[Any] | None = None) -> dict[str, Channel]:
    """Return colour and shape of the points of each series. The legend has the colour.

    Example:
        >>> sorted(point_series("side", "side", order=("base", "head")))
        ['color', 'shape']
    """
    channel = category(column, title, order=order)
    return {"color": {**channel, "legend": {"orient": "bottom"}}, "shape": {**channel, "legend": None}}


def ramp(column: str, title: str, *, log: bool = False, reverse: bool = False) -> Channel:
    """Return a colour that grows with a number."""
    scale: dict[str, Any] = {"type": "log"} if log else {}
    if reverse:
        scale["reverse"] = True
    return {"field": column, "type": "quantitative", "title": title, **({"scale": scale} if scale else {})}


def tooltip(columns: Mapping[str, str]) -> list[Channel]:
    """Return what a pointer shows: column -> title. Numbers have four digits."""
    return [{"field": column, "title": title, "format": ".4~g"} for column, title in columns.items()]


def texts(columns: Mapping[str, str]) -> list[Channel]:
    """Return what a pointer shows of columns that hold texts: column -> title."""
    return [{"field": column, "title": title, "type": "nominal"} for column, title in columns.items()]


def mark(kind: str, style: Style | None = None, **more: Any) -> dict[str, Any]:
    """Return a mark of Vega-Lite, such as `line` or `point`, in a role of the theme."""
    return {"type": kind, **({"style": style} if style else {}), **more}


def rule(
    axis: Literal["x", "y"],
    value: float,
    label: str,
    style: Style = "target",
    *,
    line: int = 0,
    before: bool = False,
) -> list[Layer]:
    """Return a line across the plot at a value, with its label.

    Args:
        axis: which axis the value is on.
        value: in the axis's unit.
        label: any string.
        style: its role.
        line: of a vertical one: lines of text between the plot's top and the label, so that labels do not meet.
        before: of a vertical one: whether the label stands at its left.
    """
    data = {"values": [{"at": value, "label": label}]}
    at: Channel = {"field": "at", "type": "quantitative"}
    place: dict[str, Any] = {"align": "left", "baseline": "bottom", "dx": 4, "dy": -3}
    if before:
        place |= {"align": "right", "dx": -4}
    beside: dict[str, Any] = (
        {"x": {"value": 0}} if axis == "y" else {"y": {"value": 15 + _LINE_HEIGHT * line}}
    )
    return [
        {"data": data, "mark": mark("rule", style), "encoding": {axis: at}},
        {
            "data": data,
            "mark": mark("text", style, **place),
            "encoding": {axis: at, **beside, "text": {"field": "label"}},
        },
    ]


def banded_lines(
    x: Channel,
    y: Channel,
    by: Channel,
    *,
    low: str | None = None,
    high: str | None = None,
    points: bool = False,
) -> list[Layer]:
    """Return a line for each series, with a band from `low` to `high` around it.

    Args:
        x, y: axes.
        by: the series.
        low, high: columns of the band. None: without a band.
        points: whether each value has a point.
    """
    chosen = {"condition": {"param": "series", "value": 1.0, "empty": True}, "value": 0.08}
    faint = {"condition": {"param": "series", "value": 0.16, "empty": True}, "value": 0.02}
    picked = {
        "params": [
            {
                "name": "series",
                "select": {"type": "point", "fields": [by["field"]]},
                "bind": "legend",
            }
        ]
    }
    tip = [
        *texts({by["field"]: by.get("title") or "series"}),
        *tooltip({x["field"]: x["title"], y["field"]: y["title"]}),
    ]
    line = {
        **picked,
        "mark": mark("line", point=points, strokeWidth=2, interpolate="linear"),
        "encoding": {"x": x, "y": y, "color": by, "opacity": chosen, "tooltip": tip},
    }
    if low is None or high is None:
        return [line]
    edge = {key: value for key, value in y.items() if key != "field"}
    band = {
        "mark": mark("area", line=False),
        "encoding": {
            "x": x,
            "y": {"field": low, **edge},
            "y2": {"field": high},
            "color": by,
            "opacity": faint,
        },
    }
    return [band, line]


def ranges(
    name: Channel,
    value: Channel,
    *,
    low: str,
    high: str,
    by: Channel | None = None,
    tips: Sequence[Channel] = (),
) -> list[Layer]:
    """Return a dot for each name with a line from `low` to `high`, one row each.

    Args:
        name: the rows.
        value: the axis of the dot.
        low, high: columns of the line's ends.
        by: colour. None: the theme's.
        tips: what a pointer shows.
    """
    color = {"color": by} if by else {}
    return [
        {
            "mark": mark("rule", strokeWidth=2.5, strokeCap="round"),
            "encoding": {"y": name, "x": {**value, "field": low}, "x2": {"field": high}, **color},
        },
        {
            "mark": mark("point", filled=True, size=90, opacity=1),
            "encoding": {"y": name, "x": value, **color, "tooltip": list(tips)},
        },
    ]


def heat_map(
    x: Channel, y: Channel, value: Channel, *, text: str, is_high: str, tips: Sequence[Channel] = ()
) -> list[Layer]:
    """Return a cell for each pair of values, coloured by a number, with its text inside.

    Args:
        x, y: categories.
        value: the colour, from `ramp`.
        text: column with what stands in a cell.
        is_high: column that is true where a cell has a colour of the ramp's upper half, see `high_colors`.
        tips: what a pointer shows.
    """
    cells = {
        "mark": mark("rect", cornerRadius=2),
        "encoding": {"x": x, "y": y, "color": value, "tooltip": list(tips)},
    }
    styles: tuple[tuple[bool, Style], ...] = ((False, "on-low"), (True, "on-high"))
    written: list[Layer] = [
        {
            "transform": [{"filter": {"field": is_high, "equal": high}}],
            "mark": mark("text", style, fontSize=12),
            "encoding": {"x": x, "y": y, "text": {"field": text}},
        }
        for high, style in styles
    ]
    return [cells, *written]


def high_colors(values: Sequence[float | None], *, log: bool = False, reverse: bool = False) -> list[bool]:
    """Return for each value whether its colour is of the ramp's upper half. A value that is missing has no colour.

    Example:
        >>> high_colors([1.0, 2.0, 10.0, None]), high_colors([1.0, 2.0, 10.0], reverse=True)
        ([False, False, True, False], [True, True, False])
    """
    known = [value for value in values if value is not None]
    if not known:
        return [False] * len(values)
    low, high = min(known), max(known)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    return [value is not None and (value < middle if reverse else value > middle) for value in values]


def layered(layers: Sequence[Layer], **more: Any) -> dict[str, Any]:
    """Return a specification of layers above each other."""
    return {"layer": list(layers), **more}
