"""The landscape of launch configs as a plot of characters."""

from __future__ import annotations

from fusetune.bench.autotune.tuning import BOTH, CHOSEN, DEFAULT, OTHER, ROLES, Tuning
from fusetune.bench.stats import counted
from fusetune.bench.terminal import Axis, Series, TextPlot, brief_unit
from fusetune.bench.units import format_seconds

_HEIGHT = 8
_MARKERS = {CHOSEN: "C", DEFAULT: "D", BOTH: "D", OTHER: "o"}
# Of fewer the table's bars show as much.
_LEAST = 4
# From such a ratio of the slowest to the fastest on, equal ratios are equally far apart.
_WIDE = 4.0
# Noise of a few percent is not drawn from edge to edge.
_LEAST_RATIO = 1.1


def landscape_plot(tuning: Tuning) -> TextPlot | None:
    """Return the latency of each config that was timed, the fastest first. None with fewer than four.

    The config that launches take and the default have markers of their own.

    Args:
        tuning: of one case. Latencies are medians, in s.
    """
    timed = tuning.timed
    if len(timed) < _LEAST:
        return None
    places = range(1, len(timed) + 1)
    roles = [tuning.role(each) for each in timed]
    medians = [
        Series(
            role,
            places,
            [each.latency_s if found == role else None for each, found in zip(timed, roles, strict=True)],
            _MARKERS[role],
            joined=False,
        )
        for role in ROLES
        if role in roles
    ]
    fastest, slowest = timed[0].latency_s or 0.0, timed[-1].latency_s or 0.0
    y = Axis(
        high=max(slowest, _LEAST_RATIO * fastest),
        log=slowest > _WIDE * fastest,
        text=lambda value: brief_unit(format_seconds(value)),
    )
    title = f"latency of {counted(len(timed), 'config')}, the fastest first"
    return TextPlot(title, medians, x=Axis(whole=True), y=y, height=_HEIGHT)
