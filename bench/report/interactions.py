"""How two factors go together: medians of each pair of levels, as lines, or as cells for learning rate x batch size."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from fusetune.bench.page import (
    Beside,
    Block,
    Channel,
    Layer,
    Plot,
    axis_unit,
    category,
    heat_map,
    high_colors,
    in_unit,
    layered,
    log_quantity,
    mark,
    quantity,
    ramp,
    series,
    texts,
    titled,
)
from fusetune.bench.report.short_names import distinct, listed
from fusetune.bench.results import Record
from fusetune.bench.spec import freeze, key_id, name_of
from fusetune.bench.stats import Summary, label, reached
from fusetune.bench.units import METRICS, format_metric

MOST_PAIRS = 6
MOST_LINES = 8
MOST_CELLS = 24  # on each side of a heat map
_UPRIGHT = 60  # letters of all levels together, up to which their names stand upright on a phone
_TIME = "time_to_target_s"


@dataclass(frozen=True)
class _Grid:
    """Two factors with the figures of each pair of levels that was tried, over all else.

    Args:
        metric: what the values are of.
        across, along: the factors' names.
        across_levels, along_levels: their levels.
        cells: positions of two levels -> one value a trial. A missed target is infinite.
    """

    metric: str
    across: str
    along: str
    across_levels: list[Any]
    along_levels: list[Any]
    cells: dict[tuple[int, int], list[float]]

    @property
    def is_crossed(self) -> bool:
        """Whether every pair of levels was tried."""
        return len(self.cells) == len(self.across_levels) * len(self.along_levels)


def interaction_blocks(summary: Summary, records: Sequence[Record]) -> Iterator[Block]:
    """Yield the heat map of learning rate x batch size, and lines for the other pairs of factors that were crossed."""
    factors = [effect.factor for effect in summary.effects]
    levels = {effect.factor: _ordered([level.value for level in effect.levels]) for effect in summary.effects}
    scores = [summary.score_metric]
    metrics = [_TIME, *scores] if summary.target else scores
    rate, size = (name_of(field, factors) for field in ("train.base_lr", "train.batch_size"))
    if rate and size:
        yield from _heat_map(_grid(records, size, rate, levels, metrics))
    plots = []
    for one, other in combinations(factors, 2):
        if {one, other} == {rate, size}:
            continue
        # Lines are read best where few of them go over many levels.
        along, across = sorted((one, other), key=lambda name: len(levels[name]))
        found = _grid(records, across, along, levels, metrics)
        if (
            found.is_crossed
            and len(found.along_levels) <= MOST_LINES
            and len(found.across_levels) <= MOST_CELLS
        ):
            plots += list(_lines(found))
    if plots:
        yield Beside(tuple(plots[:MOST_PAIRS]))


def _ordered(levels: Sequence[Any]) -> list[Any]:
    """Return levels by size where all are numbers, else as they are."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in levels):
        return sorted(levels)
    return list(levels)


def _grid(
    records: Sequence[Record],
    across: str,
    along: str,
    levels: Mapping[str, list[Any]],
    metrics: Sequence[str],
) -> _Grid:
    """Collect the trials of each pair of levels, by the first of some metrics of which any median is a number."""
    places: dict[str, dict[Hashable, int]] = {
        name: {freeze(value): at for at, value in enumerate(levels[name])} for name in (across, along)
    }
    for metric in metrics:
        cells: dict[tuple[int, int], list[float]] = {}
        for record in records:
            a, b = (places[name][freeze(record.factors[name])] for name in (across, along))
            known = metric != _TIME or reached(record)
            cells.setdefault((a, b), []).append(record.values.get(metric, math.inf) if known else math.inf)
        if any(math.isfinite(median(values)) for values in cells.values()):
            break
    return _Grid(metric, across, along, levels[across], levels[along], cells)


def _level(column: str, factor: str, names: Sequence[str]) -> Channel:
    """Return the axis of a factor's levels. Names turn where they are too long to stand beside each other."""
    turned = 0 if sum(map(len, names)) <= _UPRIGHT else -40
    return {**category(column, key_id(factor), order=names), "axis": {"labelAngle": turned}}


def _figures(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Return median, least and largest, None where that is a missed target."""
    known = (median(values), min(values), max(values))
    return tuple(value if math.isfinite(value) else None for value in known)  # type: ignore[return-value]


def _cell_text(values: Sequence[float], metric: str) -> str:
    middle = median(values)
    if math.isfinite(middle):
        return format_metric(metric, middle)
    return "missed" if metric == _TIME else "none"


def _lines(grid: _Grid) -> Iterator[Plot]:
    """Yield the plot of a line for each level of the one factor over the levels of the other."""
    metric = grid.metric
    places = sorted(grid.cells)
    figures = [_figures(grid.cells[place]) for place in places]
    known = [value for each in figures for value in each if value is not None]
    if not any(middle is not None for middle, _, _ in figures):
        return
    divisor, unit = axis_unit(known, METRICS[metric].unit)
    x_names, lines = (
        distinct(list(map(label, grid.across_levels))),
        distinct(list(map(label, grid.along_levels))),
    )
    table: dict[str, list[Any]] = {
        "x": [x_names[at] for at, _ in places],
        "line": [lines[at] for _, at in places],
        "middle": in_unit([middle for middle, _, _ in figures], divisor),
        "low": in_unit([low for _, low, _ in figures], divisor),
        "high": in_unit([high for _, _, high in figures], divisor),
        "text": [_cell_text(grid.cells[place], metric) for place in places],
        "trials": [len(grid.cells[place]) for place in places],
    }
    title = titled(METRICS[metric].title, unit)
    up = (
        log_quantity("middle", title, in_unit(known, divisor))
        if metric == _TIME
        else quantity("middle", title)
    )
    x = _level("x", grid.across, x_names) | {"scale": {"type": "point", "padding": 0.5}}
    color = series("line", key_id(grid.along), order=lines)
    tips = texts({"x": "across", "line": "line", "text": METRICS[metric].title, "trials": "trials"})
    low = {**up, "field": "low"}
    # A missed target has no place, so a range with one is open at the top.
    is_open = any(low is not None and high is None for _, low, high in figures)
    layers: list[Layer] = [
        {
            "transform": [{"filter": "isValid(datum.middle)"}],
            "mark": mark("line", strokeWidth=2),
            "encoding": {"x": x, "y": up, "color": color},
        },
        {
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": mark("rule", strokeWidth=5, opacity=0.25),
            "encoding": {"x": x, "y": low, "y2": {"field": "high"}, "color": color},
        },
        {
            "transform": [{"filter": "isValid(datum.middle)"}],
            "mark": mark("point", filled=True, size=70, opacity=1),
            "encoding": {"x": x, "y": up, "color": color, "tooltip": tips},
        },
    ]
    if is_open:
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.low) && !isValid(datum.high)"}],
                "mark": mark("rule", strokeWidth=2, strokeDash=[2, 5], opacity=0.6),
                "encoding": {"x": x, "y": low, "y2": {"value": 0}, "color": color},
            }
        )
    missed = [
        f"{x_names[a]} with {lines[b]}"
        for (a, b), (middle, _, _) in zip(places, figures, strict=True)
        if middle is None
    ]
    captions = [
        "Medians over all other factors and seeds, with min..max.",
        "A dashed line is open: a trial missed the target, so that it has no time." if is_open else "",
        "Lines that are not parallel may be an interaction. No test is made of that.",
        f"Without a point, because half of the trials or more missed: {listed(missed)}." if missed else "",
    ]
    best = min if METRICS[metric].better == "lower" else max
    at = best((m, i) for i, (m, _, _) in enumerate(figures) if m is not None)[1]
    a, b = places[at]
    yield Plot(
        f"{METRICS[metric].title.capitalize()}: {key_id(grid.across)} with {key_id(grid.along)}",
        f"Medians of {len(places)} pairs of levels. Best: {x_names[a]} with {lines[b]}, {table['text'][at]}.",
        layered(layers),
        {"cells": table},
        " ".join(filter(None, captions)),
    )


def _heat_map(grid: _Grid) -> Iterator[Plot]:
    """Yield learning rate x batch size as cells with their medians. Missed cells say so and have no colour."""
    metric = grid.metric
    places = sorted(grid.cells)
    if max(len(grid.across_levels), len(grid.along_levels)) > MOST_CELLS or 2 * len(places) < (
        len(grid.across_levels) * len(grid.along_levels)
    ):
        return
    middles = [_figures(grid.cells[place])[0] for place in places]
    if all(middle is None for middle in middles):
        return
    divisor, unit = axis_unit(middles, METRICS[metric].unit)
    columns, rows = (
        distinct(list(map(label, grid.across_levels))),
        distinct(list(map(label, grid.along_levels))),
    )
    lower = METRICS[metric].better == "lower"
    known = [value for value in middles if value is not None]
    log = min(known) > 0 and max(known) > 10 * min(known)
    table: dict[str, list[Any]] = {
        "x": [columns[at] for at, _ in places],
        "y": [rows[at] for _, at in places],
        "value": in_unit(middles, divisor),
        # Without its unit, which the title has, a number has room in a cell on a phone.
        "text": [
            _cell_text(grid.cells[place], metric) if middle is None else f"{middle / divisor:.3g}"
            for place, middle in zip(places, middles, strict=True)
        ],
        "figure": [_cell_text(grid.cells[place], metric) for place in places],
        "is_high": high_colors(middles, log=log, reverse=lower),
        "trials": [len(grid.cells[place]) for place in places],
    }
    title = titled(METRICS[metric].title, unit)
    layers = heat_map(
        _level("x", grid.across, columns),
        category("y", key_id(grid.along), order=rows[::-1]),
        {**ramp("value", title, log=log, reverse=lower), "legend": {"orient": "bottom"}},
        text="text",
        is_high="is_high",
        tips=texts(
            {"x": "batch size", "y": "learning rate", "figure": METRICS[metric].title, "trials": "trials"}
        ),
    )
    best = min if lower else max
    found = f"Best: {_best_cell(best(known), middles, table)}."
    missed = sum(value is None for value in middles)
    yield Plot(
        f"{title.capitalize()} by learning rate and batch size",
        f"{len(places)} pairs of a learning rate and a batch size. {found} {missed} missed.",
        layered(layers),
        {"cells": table},
        "Medians over all other factors and seeds. Darker is better on white, brighter on black."
        + (
            " A cell that says missed has no time: half of its trials or more missed the target."
            if missed
            else ""
        ),
        height=min(600, 46 * len(rows) + 150),
    )


def _best_cell(value: float, middles: Sequence[float | None], table: Mapping[str, Sequence[Any]]) -> str:
    at = list(middles).index(value)
    return f"learning rate {table['y'][at]} with batch size {table['x'][at]}, {table['figure'][at]}"
