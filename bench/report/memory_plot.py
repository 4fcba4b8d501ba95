"""Peak memory against time to target, with the configurations that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fusetune.bench.page import (
    Channel,
    Layer,
    Plot,
    Section,
    axis_unit,
    in_unit,
    layered,
    log_quantity,
    mark,
    quantity,
    texts,
    titled,
)
from fusetune.bench.report.short_names import distinct, names_note, short_names
from fusetune.bench.report.training_texts import rank_text
from fusetune.bench.results import Record
from fusetune.bench.stats import Configuration, Summary, configuration_label, counted, undecided
from fusetune.bench.units import METRICS, format_metric

MOST_POINTS = 200
MOST_NAMED = 20
_TIME = "time_to_target_s"


def memory(summary: Summary, records: Sequence[Record]) -> Section:
    """Return the Pareto front of time to target and peak memory. Fewer than two configurations have none.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records.
    """
    able = [
        c
        for c in summary.configurations
        if "peak_bytes" in c.metrics and _TIME in c.metrics and math.isfinite(c.metrics[_TIME].median)
    ]
    if len(able) < 2:
        return Section("batch-size", ())
    tied = undecided(summary)
    best = front([(c.metrics["peak_bytes"].median, c.metrics[_TIME].median) for c in able])
    chosen = [able[at] for at in best]
    # The front is drawn whole, whatever the ranks of its configurations.
    shown = [c for at, c in enumerate(able) if at < MOST_POINTS or at in set(best)]
    divisors = {
        name: axis_unit([c.metrics[name].median for c in shown], METRICS[name].unit)
        for name in ("peak_bytes", _TIME)
    }
    on_front = {c.rank for c in chosen}
    points: dict[str, list[Any]] = {
        "name": distinct(short_names(shown, tied)),
        "rank": [
            rank_text(c, tied).strip() if c.rank in on_front or at < MOST_NAMED else ""
            for at, c in enumerate(shown)
        ],
        "front": [c.rank in on_front for c in shown],
        **_places(shown, divisors),
        "low": [c.metrics[_TIME].low / divisors[_TIME][0] for c in shown],
        "high": [_highest(c) / divisors[_TIME][0] for c in shown],
        "time": [format_metric(_TIME, c.metrics[_TIME].median) for c in shown],
        "memory": [format_metric("peak_bytes", c.metrics["peak_bytes"].median) for c in shown],
    }
    x, y = (
        _axis(column, name, shown, divisors[name]) for column, name in (("x", "peak_bytes"), ("y", _TIME))
    )
    names = "; ".join(
        f"{configuration_label(c.factors)} with {format_metric('peak_bytes', c.metrics['peak_bytes'].median)} in "
        f"{format_metric('time_to_target_s', c.metrics['time_to_target_s'].median)}"
        for c in chosen[:4]
    )
    plot = Plot(
        "Time to target against peak memory",
        f"{counted(len(shown), 'configuration')}. None beats these in both: {names}.",
        layered(_layers(x, y)),
        {"points": points, "front": _places(chosen, divisors)},
        _caption(summary, records, len(able) - len(shown)),
        height=360,
    )
    lead = (
        f"{counted(len(chosen), 'configuration')} of {len(able)} that reached the target "
        f"{'is' if len(chosen) == 1 else 'are'} on the front: no other needs less time and less memory, by medians."
    )
    return Section("batch-size", (plot,), lead)


def _axis(column: str, metric: str, shown: Sequence[Configuration], unit: tuple[float, str]) -> Channel:
    """Return an axis that begins at 0, or a logarithmic one over more than a decade."""
    values = [c.metrics[metric].median for c in shown]
    title = titled(METRICS[metric].title, unit[1])
    if min(values) > 0 and max(values) > 10 * min(values):
        spreads = [c.metrics[metric] for c in shown] if metric == _TIME else []
        ends = [value for spread in spreads for value in (spread.low, spread.high)]
        return log_quantity(column, title, in_unit([*values, *ends], unit[0]))
    return quantity(column, title, zero=True)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other is at most equal to in both numbers and below in one.

    Args:
        points: pairs of numbers of which less is better.

    Returns:
        The places by the first number, without further points that equal one of them.

    Example:
        >>> front([(3.0, 1.0), (1.0, 5.0), (2.0, 6.0), (2.0, 2.0)])
        [1, 3, 0]
    """
    chosen: list[int] = []
    for at in sorted(range(len(points)), key=lambda place: points[place]):
        if not chosen or points[at][1] < points[chosen[-1]][1]:
            chosen.append(at)
    return chosen


def _highest(c: Configuration) -> float:
    """Return the largest time that is one: a range with a missed target ends at its median."""
    spread = c.metrics[_TIME]
    return spread.high if math.isfinite(spread.high) else spread.median


def _places(
    configurations: Sequence[Configuration], divisors: dict[str, tuple[float, str]]
) -> dict[str, list[float]]:
    return {
        axis: [c.metrics[name].median / divisors[name][0] for c in configurations]
        for axis, name in (("x", "peak_bytes"), ("y", _TIME))
    }


def _layers(x: Channel, y: Channel) -> list[Layer]:
    points = {"name": "points"}
    tips = texts({"name": "configuration", "time": "time to target", "memory": "peak memory"})
    layers: list[Layer] = [
        {
            "data": {"name": "front"},
            "mark": mark("line", "suggestion", interpolate="step-after", strokeWidth=1.5),
            "encoding": {"x": x, "y": y},
        },
        {
            "data": points,
            "mark": mark("rule", "faint", strokeWidth=1.5),
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
    ]
    layers += [
        {
            "data": points,
            "transform": [{"filter": {"field": "front", "equal": is_front}}],
            "mark": mark("point", "first" if is_front else "other", filled=True, size=90, opacity=1),
            "encoding": {"x": x, "y": y, "tooltip": tips},
        }
        for is_front in (False, True)
    ]
    layers.append(
        {
            "data": points,
            "mark": mark("text", align="left", baseline="bottom", dx=7, dy=-4, fontWeight=600),
            "encoding": {"x": x, "y": y, "text": {"field": "rank"}},
        }
    )
    return layers


def _caption(summary: Summary, records: Sequence[Record], left_out: int) -> str:
    methods = sorted({str(found) for r in records if (found := r.provenance.get("peak_bytes_of"))})
    sentences = [
        names_note(summary).replace("Names are", "Numbers are ranks. A pointer shows"),
        "Dots are medians and lines the range of times."
        if any(c.n > 1 for c in summary.configurations)
        else "",
        f"Peak memory is that of {' or '.join(methods)}." if methods else "",
        f"{counted(left_out, 'configuration')} of lower rank are left out." if left_out > 0 else "",
    ]
    return " ".join(filter(None, sentences))
