"""Size sweeps drawn: latency and bandwidth over the bytes moved, with the copy of the same run as the roofline."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fusetune.bench.kernels.row import SideResult
from fusetune.bench.kernels.study import KernelsStudy, RowStudy, Sweep, quantile, rates_of, sweeps_of
from fusetune.bench.results import Pictures, picture_text
from fusetune.bench.stats import percent
from fusetune.bench.units import format_bytes, format_count, format_rate, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour-blind readers. Markers and labels repeat the distinction.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY = "#666666"
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "kernels",  # equal pictures give equal files
}


def draw_sweeps(study: KernelsStudy, pictures: Pictures) -> None:
    """Draw each size sweep as `sweep` (`sweep-2` and so on for the others).

    Args:
        study: from `study_rows`.
        pictures: the collection that gets them.
    """
    for number, sweep in enumerate(sweeps_of(study.rows), 1):
        name = "sweep" if number == 1 else f"sweep-{number}"
        pictures.add(name, partial(draw, study.run.spec.name, sweep), style=_STYLE, dpi=150)


def sweep_table(sweep: Sweep) -> RenderableType:
    """Return a sweep for the terminal: a line a size.

    Args:
        sweep: from `sweeps_of`.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in ("elements", "bytes", "latency", "bandwidth", "of copy"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in sweep.rows:
        latency, rate = row.latency, row.bytes_per_s or 0.0
        shape = row.row.case.shape
        table.add_row(
            format_count(shape) if isinstance(shape, int) else shape,
            format_bytes(row.row.bytes_moved or 0),
            "-" if latency is None else format_seconds(latency.median_s),
            format_rate(rate),
            "-" if row.share_of_copy is None else percent(row.share_of_copy),
        )
    return Group(Text(f"{sweep.name} over its sizes", style="bold"), table)


def draw(title: str, sweep: Sweep) -> Figure:
    """Draw one sweep, with a panel for latency and one for bandwidth.

    Args:
        title: the spec's name.
        sweep: from `sweeps_of`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    figure.suptitle(picture_text(f"{title}, {sweep.name}"), fontsize=11)
    left, right = figure.subplots(1, 2)
    _latencies(left, sweep)
    _bandwidths(right, sweep)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("bytes moved")
        axes.xaxis.set_major_formatter(lambda value, _: format_bytes(value).replace(".00", ""))
        axes.minorticks_off()
    moved = [row.row.bytes_moved or 1 for row in sweep.rows]
    for axes in (left, right):
        axes.set_xticks(moved if len(moved) <= 8 else moved[:: 1 + len(moved) // 8])
        axes.tick_params(axis="x", rotation=30)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def roof_of(row: RowStudy) -> float | None:
    """Return the copy that a row is held to, bytes by second."""
    return row.row.copy.bytes_per_s if row.row.copy else None


def times_of(side: SideResult, row: RowStudy) -> tuple[float, ...]:
    """Return the rounds of a side by the row's own policy, in seconds. Empty for a side without a time."""
    own = row.row.policies[0].name
    return tuple(side.latencies_s.get(own, ())) if side.status == "ok" else ()


def sides_of(sweep: Sweep) -> list[str]:
    """Return the sides that have a time at any size, in the order of the rows."""
    return list(dict.fromkeys(name for row in sweep.rows for name in rates_of(row)))


def _latencies(axes: Axes, sweep: Sweep) -> None:
    """Draw each side's median with the 20 % and 80 % quantiles, and the least time that the copy allows."""
    axes.set_title("latency, 20 to 80 %")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: format_seconds(value))
    for place, name in enumerate(sides_of(sweep)):
        points = [
            (row.row.bytes_moved or 1, times)
            for row in sweep.rows
            for side in row.row.sides
            if side.name == name and (times := times_of(side, row))
        ]
        middle = [median(times) for _, times in points]
        spread = [
            [m - quantile(times, 0.2) for m, (_, times) in zip(middle, points, strict=True)],
            [quantile(times, 0.8) - m for m, (_, times) in zip(middle, points, strict=True)],
        ]
        axes.errorbar(
            [moved for moved, _ in points],
            middle,
            yerr=spread,
            capsize=2,
            linewidth=1.4,
            **_look(place, name),
        )
    roof = [(row.row.bytes_moved or 1, rate) for row in sweep.rows if (rate := roof_of(row))]
    axes.plot(
        [moved for moved, _ in roof], [moved / rate for moved, rate in roof], color=_GREY, linestyle="--"
    )


def _bandwidths(axes: Axes, sweep: Sweep) -> None:
    """Draw each side's bandwidth under the roofline: the copy of the same run, and the data sheet where it is known."""
    axes.set_title("bandwidth")
    axes.set_ylabel("GB/s")
    for place, name in enumerate(sides_of(sweep)):
        rates = [
            (row.row.bytes_moved or 1, found[name]) for row in sweep.rows if name in (found := rates_of(row))
        ]
        axes.plot(
            [moved for moved, _ in rates],
            [rate / 1e9 for _, rate in rates],
            linewidth=1.4,
            **_look(place, name),
        )
    roof = [(row.row.bytes_moved or 1, rate) for row in sweep.rows if (rate := roof_of(row))]
    if roof:
        axes.plot(
            [moved for moved, _ in roof],
            [rate / 1e9 for _, rate in roof],
            color=_GREY,
            linestyle="--",
            label="copy of as many bytes",
        )
    sheets = {row.row.datasheet_bytes_per_s for row in sweep.rows if row.row.datasheet_bytes_per_s}
    for sheet in sheets:
        axes.axhline(sheet / 1e9, color=_GREY, linestyle=":", label="data sheet")
    axes.set_ylim(bottom=0)


def _look(place: int, name: str) -> dict[str, Any]:
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "markersize": 5,
        "label": picture_text(name),
    }
