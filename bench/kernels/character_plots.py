"""Size sweeps of kernels as plots of characters: latency and bandwidth against bytes, with the roofline."""

from __future__ import annotations

from statistics import median

from fusetune.bench.kernels.plot import roof_of, sides_of, times_of
from fusetune.bench.kernels.study import RowStudy, Sweep
from fusetune.bench.terminal import Axis, Mark, Series, TextPlot, brief_unit
from fusetune.bench.units import format_bytes, format_rate, format_seconds

_HEIGHT = 8
_MARKERS = "ox+*#@%&"
_ROOF = "."


def sweep_plots(sweep: Sweep) -> tuple[TextPlot, TextPlot]:
    """Return latency and bandwidth of each side against the bytes moved.

    The roofline is the best copy of as many bytes in the same run: the least latency, and the most bandwidth. A copy
    that was not measured is not drawn. Both axes are logarithmic.

    Args:
        sweep: from `sweeps_of`. Times are in s, bandwidths in bytes/s.
    """
    rows = [row for row in sweep.rows if row.row.bytes_moved]
    moved = [row.row.bytes_moved or 0 for row in rows]
    times = {name: [_median_s(name, row) for row in rows] for name in sides_of(sweep)}
    roofs = [roof_of(row) for row in rows]
    x = Axis(log=True, ticks=moved, text=lambda value: brief_unit(format_bytes(value)))

    def lines(values: dict[str, list[float | None]], roof: list[float | None]) -> list[Series]:
        drawn = [
            Series(name, moved, of_side, _MARKERS[place % len(_MARKERS)])
            for place, (name, of_side) in enumerate(values.items())
        ]
        return [*drawn, Series("copy of as many bytes", moved, roof, _ROOF)]

    rates = {name: _ratios(moved, of_side) for name, of_side in times.items()}
    sheets = [sheet for sheet in dict.fromkeys(row.row.datasheet_bytes_per_s for row in rows) if sheet]
    # Else a line above the data would lie outside of the window.
    drawn = [value for values in (roofs, *rates.values()) for value in values if value]
    top = max([*drawn, *sheets], default=None) if sheets else None
    return (
        TextPlot(
            f"{sweep.name}: latency against bytes",
            lines(times, _ratios(moved, roofs)),
            x=x,
            y=Axis(log=True, text=lambda value: brief_unit(format_seconds(value))),
            height=_HEIGHT,
        ),
        TextPlot(
            f"{sweep.name}: bandwidth against bytes",
            lines(rates, roofs),
            x=x,
            y=Axis(high=top, log=True, text=lambda value: brief_unit(format_rate(value))),
            marks=[Mark("data sheet", sheet, "y", "dotted") for sheet in sheets],
            height=_HEIGHT,
        ),
    )


def _median_s(name: str, row: RowStudy) -> float | None:
    """Return the median of a side in seconds. None: it has no time in this row."""
    return next(
        (median(times) for side in row.row.sides if side.name == name and (times := times_of(side, row))),
        None,
    )


def _ratios(moved: list[int], values: list[float | None]) -> list[float | None]:
    """Return bytes over seconds, which are bytes/s, or bytes over bytes/s, which are seconds."""
    return [each / value if value else None for each, value in zip(moved, values, strict=True)]
