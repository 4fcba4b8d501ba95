"""The picture of a batch-size search: memory, samples/s, step time and noise over the batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fusetune.bench.batch_size.measurements import Measurements
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy
from fusetune.bench.results import Pictures, picture_text
from fusetune.bench.stats import configuration_label
from fusetune.tuner.batch_size import smoothed_step_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour-blind readers. Shapes and labels repeat the distinction.
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
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
    "svg.hashsalt": "batch-size",  # equal pictures give equal files
}
_MIB = 2**20


def draw_batch_size(study: BatchSizeStudy, measurements: Sequence[Measurements], pictures: Pictures) -> None:
    """Draw each configuration as `batch-size` (`batch-size-2` and so on for the others).

    Args:
        study: from `bench.batch_size.study.study_batch_sizes`.
        measurements: one for each configuration.
        pictures: the collection that gets them.
    """
    title = study.run.spec.name
    for number, (configuration, measured) in enumerate(
        zip(study.configurations, measurements, strict=True), 1
    ):
        if configuration.rows:
            name = "batch-size" if number == 1 else f"batch-size-{number}"
            pictures.add(name, partial(draw, title, configuration, measured), style=_STYLE, dpi=150)


def relative_times(measured: Measurements) -> dict[int, float]:
    """Return each size's expected time to the target, relative to the least. Empty without a critical batch size.

    T(B) = (1 + B / B_crit) * step time(B) / B, with the step time smoothed as for the recommendation
    """
    critical, _ = measured.critical_batch
    if not critical or not measured.throughputs:
        return {}
    times = {
        size: (1 + size * measured.accumulation_steps / critical) * step_time_s / size
        for size, step_time_s in smoothed_step_times(measured.throughputs).items()
    }
    least = min(times.values())
    return {size: time / least for size, time in times.items()}


def draw(title: str, configuration: ConfigurationStudy, measured: Measurements) -> Figure:
    """Draw one configuration, with four panels, or one for memory if only that is known."""
    from matplotlib.figure import Figure

    rich = bool(measured.throughputs)
    figure = Figure(figsize=(10, 8) if rich else (7, 4.5), layout="constrained")
    recommended = measured.recommendation
    subtitle = (
        f": batch_size {recommended.batch_size} recommended, {recommended.binds} binds" if recommended else ""
    )
    name = picture_text(f"{title}, {configuration_label(configuration.factors)}")
    figure.suptitle(f"{name}{subtitle}", fontsize=11)
    panels = figure.subplots(2, 2, squeeze=False).flat if rich else [figure.subplots()]
    axes: list[Axes] = list(panels)
    sizes = [row.batch_size for row in configuration.rows]
    for each in axes:
        each.set_xscale("log", base=2)
        each.set_xlim(min(sizes) / 1.3, max(sizes) * 1.5)
        each.set_xlabel("batch size")
        each.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if recommended:
            each.axvline(
                recommended.batch_size, color=_GREEN, linewidth=6, alpha=0.25, zorder=0, label="recommended"
            )
    _memory(axes[0], configuration)
    if rich:
        _throughput(axes[1], measured)
        _step_time(axes[2], measured)
        _noise(axes[3], measured)
    return figure


def _memory(axes: Axes, configuration: ConfigurationStudy) -> None:
    """Draw each size's memory and the limit. The scale is logarithmic, because sizes differ by a factor of 1000."""
    axes.set_title("memory")
    axes.set_yscale("log", base=2)
    axes.set_ylabel("MiB")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.2g}")
    rows = configuration.rows
    line = configuration.overhead
    needs = [line.needed_at_least(row.predicted_bytes) if line else row.predicted_bytes for row in rows]
    axes.plot(
        [row.batch_size for row in rows],
        [need / _MIB for need in needs],
        color=_BLUE,
        label="expected" if line else "tensors alone",
    )
    for fits, marker, colour, name in (
        (True, "o", _BLUE, "measured, fits"),
        (False, "X", _RED, "measured, does not fit"),
    ):
        run = [row for row in rows if row.needed_bytes and (row.status == "ok") == fits]
        if run:
            sizes = [row.batch_size for row in run]
            found = [(row.needed_bytes or 0) / _MIB for row in run]
            axes.plot(sizes, found, marker, color=colour, markersize=8, label=name)
    if configuration.limit_bytes:
        limit = configuration.limit_bytes / _MIB
        axes.axhline(limit, color=_RED, linestyle="--", linewidth=1.2, label=f"limit {limit:,.4g} MiB")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.2, high * 1.2)
    _legend(axes)


def _throughput(axes: Axes, measured: Measurements) -> None:
    """Draw samples/s with intervals, and the plateau. The scale is logarithmic, because rates differ by 100."""
    axes.set_title("throughput")
    axes.set_yscale("log", base=2)
    axes.set_ylabel("samples/s")
    rates = measured.throughputs
    sizes, medians = [rate.batch_size for rate in rates], [rate.samples_per_s for rate in rates]
    errors = [
        [rate.samples_per_s - rate.low for rate in rates],
        [rate.high - rate.samples_per_s for rate in rates],
    ]
    axes.errorbar(
        sizes, medians, yerr=errors, color=_BLUE, marker="o", markersize=4, capsize=3, label="median, 95 %"
    )
    plateau = measured.recommendation.plateau if measured.recommendation else None
    if plateau is not None:
        best = medians[sizes.index(plateau.best)]
        axes.axhspan(0.95 * best, best, color=_ORANGE, alpha=0.3, linewidth=0, label="within 5 % of the best")
        if plateau.reached:
            axes.axvline(plateau.start, color=_ORANGE, linestyle=":", label=f"plateau from {plateau.start:,}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.2g}")
    _legend(axes)


def _step_time(axes: Axes, measured: Measurements) -> None:
    axes.set_title("time of a step")
    axes.set_yscale("log", base=2)
    axes.set_ylabel("ms")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.2g}" if value < 10 else f"{value:,.0f}")
    sizes = [rate.batch_size for rate in measured.throughputs]
    times = [1e3 * rate.step_time_s for rate in measured.throughputs]
    axes.plot(sizes, times, color=_BLUE, marker="o", markersize=4, label="median")
    _legend(axes)


def _noise(axes: Axes, measured: Measurements) -> None:
    """Draw the noise of a step along training, and the expected time to the target, at each size."""
    axes.set_title("noise of a step, and time to the target")
    axes.set_yscale("log", base=2)
    axes.set_ylabel("noise / gradient, time / least time")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}" if value < 10 else f"{value:,.0f}")
    sizes = [rate.batch_size for rate in measured.throughputs]
    samples = [size * measured.accumulation_steps for size in sizes]
    known = [point for point in measured.noise if point.scale.value]
    for place, point in enumerate(known, start=1):
        scale, share = point.scale, place / len(known)
        label = "before training" if point.epoch == 0 else f"after epoch {point.epoch}"
        noise = [(scale.value or 0) / size for size in samples]
        axes.plot(sizes, noise, color=_ORANGE, alpha=0.3 + 0.7 * share, label=f"noise {label}")
        if math.isfinite(scale.high):
            low, high = ([edge / size for size in samples] for edge in (scale.low, scale.high))
            axes.fill_between(sizes, low, high, color=_ORANGE, alpha=0.2 * share, linewidth=0)
    times = relative_times(measured)
    if times:
        axes.plot(
            list(times), list(times.values()), color=_BLUE, marker="o", markersize=4, label="time, expected"
        )
    trainings = (
        [row for row in measured.runs.rows if math.isfinite(row.median_time_s)] if measured.runs else []
    )
    if trainings:
        least = min(row.median_time_s for row in trainings)
        axes.plot(
            [row.batch_size for row in trainings],
            [row.median_time_s / least for row in trainings],
            "s",
            color=_GREEN,
            label="time, trainings",
        )
    axes.axhline(1, color=_GREY, linewidth=1)
    if not known and not times and not trainings:
        axes.text(0.5, 0.5, "the noise scale is unknown", transform=axes.transAxes, ha="center")
        return
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Draw the legend below the axes, where it covers no data."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2, borderaxespad=0)
