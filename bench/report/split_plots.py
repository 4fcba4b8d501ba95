"""Time to target as steps times step time: of every configuration, and of the first place's gain over `train`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fusetune.bench.page import (
    Block,
    Cell,
    Channel,
    Column,
    DataTable,
    Layer,
    Plot,
    Prose,
    Style,
    axis_unit,
    category,
    in_unit,
    layered,
    log_quantity,
    mark,
    rule,
    texts,
    titled,
)
from fusetune.bench.report.short_names import distinct, names_note, short_names
from fusetune.bench.report.training_texts import difference_text, gain_notes, interval_text, rank_text
from fusetune.bench.stats import (
    Configuration,
    Estimate,
    Gain,
    Summary,
    configuration_label,
    counted,
    estimate_text,
    gain_obstacle,
    percent,
    ratio_text,
)
from fusetune.bench.units import METRICS, format_metric, format_seconds

MOST_POINTS = 20
_LEAST_RATIOS = (0.9, 1.1)  # an axis has them, so that a gain of a few percent does not look like much
_ROOM = 1.15  # above the highest point, as a factor, for the times of the lines
_FEW_LINES, _MOST_LINES = 4, 8


def split_blocks(summary: Summary, tied: Sequence[int]) -> tuple[Block, ...]:
    """Return what shows a time to target as steps times step time. Empty where there is nothing to split."""
    return (*_factors_plot(summary, tied), *_gain_blocks(summary))


def _factors_plot(summary: Summary, tied: Sequence[int]) -> tuple[Plot, ...]:
    """Return steps against step time on logarithmic axes, with lines on which their product is equal."""
    able = [c for c in summary.configurations if math.isfinite(_median(c, "time_to_target_s"))]
    shown = able[:MOST_POINTS]
    if len(shown) < 2:
        return ()
    step_times = [c.metrics["step_time_s"] for c in shown]
    steps = [c.metrics["steps_to_target"] for c in shown]
    divisor, unit = axis_unit([s.median for s in step_times], "s")
    x = [s.median / divisor for s in step_times]
    y = [s.median for s in steps]
    table: dict[str, list[Any]] = {
        "name": distinct(short_names(shown, tied)),
        "rank": [rank_text(c, tied).strip() for c in shown],
        "first": [c.rank == 1 for c in shown],
        "x": x,
        "x_low": [s.low / divisor for s in step_times],
        "x_high": [s.high / divisor for s in step_times],
        "y": y,
        "y_low": [s.low for s in steps],
        "y_high": in_unit([s.high for s in steps], 1.0),
        "time": [format_metric("time_to_target_s", _median(c, "time_to_target_s")) for c in shown],
        "steps": [format_metric("steps_to_target", s.median) for s in steps],
        "step_time": [format_metric("step_time_s", s.median) for s in step_times],
    }
    across = log_quantity("x", titled("step time", unit), [*x, *table["x_low"], *table["x_high"]])
    tallest = [value * _ROOM for value in (*y, *table["y_high"]) if value is not None]
    up = log_quantity("y", "steps to target", [*tallest, *table["y_low"]])
    lines = _equal_times(across["scale"]["domain"], up["scale"]["domain"], divisor)
    open_note = "A range without an end at the top has a seed that missed the target."
    notes = [
        "Time to target = steps to target x step time. It is equal along a dashed line, so left and down is sooner.",
        names_note(summary).replace("Names are", "Numbers are ranks. A pointer shows"),
        "Dots are medians over seeds and lines min..max." if any(c.n > 1 for c in shown) else "",
        open_note if any(math.isinf(s.high) for s in steps) else "",
        f"{counted(len(able) - len(shown), 'configuration')} of lower rank are left out."
        if len(able) > len(shown)
        else "",
    ]
    return (
        Plot(
            "Why the times differ: steps to target against step time",
            _factors_alt(shown),
            layered(_factors_layers(across, up, shown)),
            {"points": table, "lines": lines},
            " ".join(filter(None, notes)),
            height=380,
        ),
    )


def _median(c: Configuration, metric: str) -> float:
    spread = c.metrics.get(metric)
    return spread.median if spread else math.inf


def _factors_layers(across: Channel, up: Channel, shown: Sequence[Configuration]) -> list[Layer]:
    points = {"name": "points"}
    layers: list[Layer] = [
        {
            "data": {"name": "lines"},
            "mark": mark("line", "faint", strokeDash=[4, 4], strokeWidth=1, clip=True),
            "encoding": {"x": across, "y": up, "detail": {"field": "time", "type": "nominal"}},
        },
        {
            "data": {"name": "lines"},
            "transform": [{"filter": "datum.is_start"}],
            "mark": mark("text", "faint", align="left", baseline="top", dx=5, dy=1, fontSize=11, opacity=1),
            "encoding": {"x": across, "y": up, "text": {"field": "time"}},
        },
    ]
    roles: tuple[tuple[bool, Style], ...] = ((False, "other"), (True, "first"))
    for is_first, style in roles:
        mine = [c for c in shown if (c.rank == 1) == is_first]
        if mine:
            layers += _point_layers(across, up, style, mine)
    # The first place has its number at the left, so that a neighbour's does not hide it.
    layers += [
        {
            "data": points,
            "transform": [{"filter": {"field": "first", "equal": is_first}}],
            "mark": mark("text", align=align, baseline="bottom", dx=dx, dy=-5, fontWeight=600),
            "encoding": {"x": across, "y": up, "text": {"field": "rank"}},
        }
        for is_first, align, dx in ((True, "right", -7), (False, "left", 7))
    ]
    return layers


def _point_layers(
    across: Channel, up: Channel, style: Style, mine: Sequence[Configuration]
) -> Iterator[Layer]:
    """Yield the ranges and dots of the first place, or of the others."""
    points = {"data": {"name": "points"}}
    role = {"filter": {"field": "first", "equal": style == "first"}}
    thin = mark("rule", style, strokeWidth=1.5, opacity=0.6)
    tips = texts(
        {
            "name": "configuration",
            "time": "time to target",
            "steps": "steps to target",
            "step_time": "step time",
        }
    )
    yield {
        **points,
        "transform": [role],
        "mark": thin,
        "encoding": {"y": up, "x": {**across, "field": "x_low"}, "x2": {"field": "x_high"}},
    }
    # A seed that missed the target leaves the range open at the top.
    low = {**up, "field": "y_low"}
    is_open = [math.isinf(c.metrics["steps_to_target"].high) for c in mine]
    if not all(is_open):
        yield {
            **points,
            "transform": [role, {"filter": "isValid(datum.y_high)"}],
            "mark": thin,
            "encoding": {"x": across, "y": low, "y2": {"field": "y_high"}},
        }
    if any(is_open):
        yield {
            **points,
            "transform": [role, {"filter": "!isValid(datum.y_high)"}],
            "mark": {**thin, "strokeDash": [2, 5]},
            "encoding": {"x": across, "y": low, "y2": {"value": 0}},
        }
    yield {
        **points,
        "transform": [role],
        "mark": mark("point", style, filled=True, size=110, opacity=1),
        "encoding": {"x": across, "y": up, "tooltip": tips},
    }


def _equal_times(ends_x: Sequence[float], ends_y: Sequence[float], divisor: float) -> dict[str, list[Any]]:
    """Return the ends of each line steps x step time = constant, inside of the plot."""
    table: dict[str, list[Any]] = {"time": [], "x": [], "y": [], "is_start": []}
    for seconds in _round_times(ends_x[0] * ends_y[0] * divisor, ends_x[1] * ends_y[1] * divisor):
        product = seconds / divisor
        for is_start, x in (
            (True, max(ends_x[0], product / ends_y[1])),
            (False, min(ends_x[1], product / ends_y[0])),
        ):
            table["time"].append(format_seconds(seconds))
            table["x"].append(x)
            table["y"].append(product / x)
            table["is_start"].append(is_start)
    return table


def _round_times(low: float, high: float) -> list[float]:
    """Return at most eight round times between two times, of more digits where 1, 2 and 5 are too few.

    Example:
        >>> _round_times(0.4, 30.0), _round_times(1.2, 4.0)
        ([0.5, 1.0, 2.0, 5.0, 10.0, 20.0], [1.5, 2.0, 3.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [float(f"{digit}e{power}") for power in powers for digit in digits]
        inside = [time for time in found if low < time < high]
        if len(inside) >= _FEW_LINES:
            break
    return inside[:: -(-len(inside) // _MOST_LINES)] if inside else []


def _factors_alt(shown: Sequence[Configuration]) -> str:
    def figures(c: Configuration) -> str:
        texts_ = (format_metric(name, _median(c, name)) for name in ("steps_to_target", "step_time_s"))
        return f"{configuration_label(c.factors)} takes {' steps of '.join(texts_)}"

    fewest = min(shown, key=lambda c: _median(c, "steps_to_target"))
    fastest = min(shown, key=lambda c: _median(c, "step_time_s"))
    return (
        f"{counted(len(shown), 'configuration')} by their median step time and steps to target. The first place, "
        f"{figures(shown[0])}. Fewest steps: {figures(fewest)}. Fastest steps: {figures(fastest)}."
    )


def _gain_blocks(summary: Summary) -> Iterator[Block]:
    """Yield the gain of the first place over `train`, in words, as bars and as a table."""
    gain = summary.gain
    if gain is None or gain.obstacle == "first is train":
        return
    title = "Gain of the first place over the `train` configuration"
    rows = list(_gain_rows(summary, gain))
    if obstacle := gain_obstacle(summary):
        yield Prose(f"{title}: {obstacle}", "note")
    if gain.time and gain.steps and gain.step_time:
        yield _bars(gain, gain.time, gain.steps, gain.step_time)
    if rows:
        columns = (
            Column("measure"),
            Column("figure", numeric=True),
            Column("95 % interval"),
            Column("share of the gain"),
        )
        yield DataTable(title.replace("`", ""), columns, tuple(rows), note=" ".join(gain_notes(gain)))


def _gain_rows(summary: Summary, gain: Gain) -> Iterator[tuple[Cell, ...]]:
    ratios = [
        ("sooner", gain.time, ""),
        *zip(("= fewer steps", "x faster steps"), (gain.steps, gain.step_time), _shares(gain), strict=False),
    ]
    for name, estimate, share in ratios:
        if estimate:
            alone = name if gain.time else "faster steps"
            yield (
                Cell(alone),
                Cell(estimate_text(estimate), estimate.value),
                Cell(interval_text(None, estimate)),
                Cell(share),
            )
    if gain.score:
        metric = summary.score_metric
        yield (
            Cell(METRICS[metric].title),
            Cell(difference_text(metric, gain.score), gain.score.value),
            Cell(interval_text(metric, gain.score)),
            Cell(""),
        )


def _shares(gain: Gain) -> tuple[str, str]:
    """Return the shares of log(time) due to fewer steps and to faster steps, empty where one of the two does harm."""
    if gain.steps_share is None or gain.time is None or ratio_text(gain.time.value) == ratio_text(1):
        return "", ""
    return percent(gain.steps_share), percent(1 - gain.steps_share)


def _bars(gain: Gain, time: Estimate, steps: Estimate, step_time: Estimate) -> Plot:
    names = ["sooner", "= fewer steps", "x faster steps"]
    estimates = [time, steps, step_time]
    shares = ["", *(f", {share} of it" if share else "" for share in _shares(gain))]
    signs = ["", "= ", "x "]
    rows = [
        f"{sign}{estimate_text(each)} {name.removeprefix(sign)}"
        for sign, name, each in zip(signs, names, estimates, strict=True)
    ]
    table: dict[str, list[Any]] = {
        "name": rows,
        "one": [1.0, 1.0, 1.0],
        "ratio": [each.value for each in estimates],
        "low": [each.low for each in estimates],
        "high": [each.high for each in estimates],
        "told": [each.can_tell for each in estimates],
    }
    ends = [value for each in estimates for value in (each.value, each.low, each.high) if value is not None]
    row = category("name", order=rows)
    value = log_quantity("ratio", "ratio, train / first place", [*_LEAST_RATIOS, *ends])
    layers: list[Layer] = []
    roles: tuple[tuple[bool, Style], ...] = ((True, "first"), (False, "other"))
    for told, style in roles:
        if told not in table["told"]:
            continue
        layers.append(
            {
                "transform": [{"filter": {"field": "told", "equal": told}}],
                "mark": mark("bar", style, height=16, opacity=0.85 if told else 0.6),
                "encoding": {"y": row, "x": {**value, "field": "one"}, "x2": {"field": "ratio"}},
            }
        )
    if any(each.low is not None for each in estimates):
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": mark("rule", strokeWidth=1.5, opacity=0.7),
                "encoding": {"y": row, "x": {**value, "field": "low"}, "x2": {"field": "high"}},
            }
        )
    layers += rule("x", 1.0, "", "faint")
    figures = (f"{row}{share}" for row, share in zip(rows, shares, strict=True))
    return Plot(
        "Gain over train = fewer steps x faster steps",
        f"The first place against train: {', '.join(figures)}.",
        layered(layers),
        {"gain": table},
        "Above 1 the first place is better. Lines are 95 % intervals. Grey (~) cannot be told from no gain.",
        height=170,
    )
