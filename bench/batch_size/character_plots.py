"""Throughput and memory against the batch size, as plots of characters."""

from __future__ import annotations

import math

from fusetune.bench.batch_size.measurements import Measurements
from fusetune.bench.batch_size.study import ConfigurationStudy
from fusetune.bench.batch_size.wording import short_number
from fusetune.bench.terminal import Axis, Mark, Series, TextPlot
from fusetune.bench.units import format_bytes, format_count

_HEIGHT = 8
_MOST_TICKS = 4


def throughput_plot(measured: Measurements) -> TextPlot | None:
    """Return samples/s with intervals, or None with fewer than two measured sizes."""
    rates = measured.throughputs
    if len(rates) < 2:
        return None
    sizes = [rate.batch_size for rate in rates]
    found = measured.recommendation
    plateau = found.plateau if found is not None else None
    return TextPlot(
        "samples/s against batch size",
        [
            Series("median", sizes, [rate.samples_per_s for rate in rates], "o", joined=False),
            Series(
                "95 % interval",
                [*sizes, *sizes],
                [*(rate.low for rate in rates), *(rate.high for rate in rates)],
                "-",
                joined=False,
            ),
        ],
        x=Axis(log=True, ticks=sizes, text=format_count),
        y=Axis(log=True, text=short_number),
        marks=[
            *_recommended(measured),
            *(
                [Mark(f"plateau from {plateau.start:,}", plateau.start, "x", "dotted")]
                if plateau is not None and plateau.reached
                else []
            ),
        ],
        height=_HEIGHT,
    )


def memory_plot(configuration: ConfigurationStudy, measured: Measurements) -> TextPlot | None:
    """Return the memory of each size and the limit, or None with fewer than two sizes.

    The measured memory of a size that does not fit is the least that it needs.
    """
    rows = configuration.rows
    if len(rows) < 2:
        return None
    line, limit = configuration.overhead, configuration.limit_bytes
    needs = [line.needed_at_least(row.predicted_bytes) if line else row.predicted_bytes for row in rows]
    sizes = [row.batch_size for row in rows]
    series = []
    for name, marker, fits in (("ran in full", "o", True), ("did not fit", "x", False)):
        run = [row for row in rows if row.needed_bytes and (row.status == "ok") == fits]
        if run:
            found = [row.needed_bytes for row in run]
            series.append(Series(name, [row.batch_size for row in run], found, marker, joined=False))
    series.append(Series("expected" if line else "expected of the tensors alone", sizes, needs, "."))
    shown = [value for each in series for value in each.y if value] + ([limit] if limit else [])
    return TextPlot(
        "memory against batch size",
        series,
        x=Axis(log=True, ticks=sizes, text=format_count),
        y=Axis(
            min(shown), max(shown), log=True, ticks=_powers_of_two(min(shown), max(shown)), text=format_bytes
        ),
        marks=[
            *_recommended(measured),
            *([Mark(f"limit {format_bytes(limit)}", limit, "y", "dotted")] if limit else []),
        ],
        height=_HEIGHT,
    )


def _recommended(measured: Measurements) -> list[Mark]:
    found = measured.recommendation
    return [Mark(f"recommended {found.batch_size:,}", found.batch_size, "x")] if found is not None else []


def _powers_of_two(low: float, high: float) -> list[float]:
    """Return a few powers of two of a window of bytes."""
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    return [2.0**power for power in range(first, last + 1, max(1, -(-(last - first + 1) // _MOST_TICKS)))]
