"""The ranking on a page: a plot of the first places with their ranges, a table of all, and every trial."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusetune.bench.page import (
    Block,
    Cell,
    Channel,
    Column,
    DataTable,
    Fold,
    Layer,
    Plot,
    Section,
    Style,
    axis_unit,
    category,
    in_unit,
    layered,
    log_quantity,
    mark,
    quantity,
    rule,
    texts,
    titled,
)
from fusetune.bench.report.short_names import distinct, names_note, short_names
from fusetune.bench.report.split_plots import split_blocks
from fusetune.bench.report.training_texts import extent, outcome_words, rank_text, ranking_notes
from fusetune.bench.results import Record
from fusetune.bench.spec import freeze, key_id
from fusetune.bench.stats import (
    STATUS_WORDS,
    Configuration,
    Spread,
    Summary,
    configuration_label,
    counted,
    label,
    undecided,
)
from fusetune.bench.units import METRICS, format_metric

MOST_DRAWN = 20
MOST_TRIALS = 5_000
_TIME = "time_to_target_s"
_COSTS = ("samples_per_s", "peak_bytes")
_MEANINGS = {
    "time_to_target_s": "Training clock at the end of the first epoch that reached the target.",
    "steps_to_target": "Optimizer updates up to there.",
    "step_time_s": "Mean time of a step up to the target, else of all steps.",
    "samples_per_s": "Samples of a step over its time.",
    "peak_bytes": "Peak memory of a trial.",
    "test_accuracy": "On the test set, after the training.",
}
_ROW_HEIGHT = 34
_AXIS_HEIGHT = 60


def ranking(summary: Summary, records: Sequence[Record]) -> Section:
    """Return the ranking, the split of its times into steps and step time, and a table of all trials.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records.
    """
    if not summary.configurations:
        return Section("ranking", ())
    tied = undecided(summary)
    blocks = (
        *ranking_plot(summary, tied),
        ranking_table(summary, tied),
        *split_blocks(summary, tied),
        *_trials(summary, records),
    )
    return Section("ranking", blocks, _lead(summary, tied))


def _lead(summary: Summary, tied: Sequence[int]) -> str:
    """Say how far the order of the configurations can be trusted."""
    count = len(summary.configurations)
    if count == 1:
        return "There is one configuration, so there is nothing to rank."
    if summary.first and summary.first.verdict == "pass":
        return f"The first place is ahead of the other {counted(count - 1, 'configuration')} by exact rank tests."
    others = "any other" if len(tied) == count - 1 else f"{len(tied)} of the other {count - 1}"
    return f"These data cannot tell the first place from {others}, marked ~."


@dataclass(frozen=True)
class _Row:
    """A row of the plot. A number that does not exist is None."""

    name: str
    role: str
    low: float | None
    middle: float | None
    high: float | None
    is_open: bool
    note: str
    figures: str


def ranking_plot(summary: Summary, tied: Sequence[int]) -> tuple[Plot, ...]:
    """Return the plot of the first places: a dot and a range each. Empty where no configuration has a number.

    A missed target has no number. A range with a missed seed is open, and a configuration that missed has words only.
    """
    by_time = summary.target is not None and any(c.reached for c in summary.configurations)
    metric = _TIME if by_time else summary.score_metric
    shown = summary.configurations[:MOST_DRAWN]
    rows = [
        _row(summary, c, metric, tied, name)
        for c, name in zip(shown, distinct(short_names(shown, tied)), strict=True)
    ]
    numbers = [value for row in rows for value in (row.low, row.middle, row.high) if value is not None]
    if not numbers:
        return ()
    divisor, unit = axis_unit(numbers, METRICS[metric].unit)
    table: dict[str, list[Any]] = {
        "name": [row.name for row in rows],
        "role": [row.role for row in rows],
        "low": in_unit([row.low for row in rows], divisor),
        "middle": in_unit([row.middle for row in rows], divisor),
        "high": in_unit([row.high for row in rows], divisor),
        "open": [row.is_open for row in rows],
        "note": [row.note for row in rows],
        "figures": [row.figures for row in rows],
    }
    log = min(numbers) > 0 and max(numbers) > 10 * min(numbers)
    title = titled(METRICS[metric].title, unit)
    value = (
        log_quantity("middle", title, in_unit(numbers, divisor))
        if log
        else quantity("middle", title, zero=by_time)
    )
    names = category("name", order=table["name"])
    layers = _layers(names, value, rows)
    if summary.target and not by_time:
        bound = summary.target.at_least if summary.target.at_least is not None else summary.target.at_most
        assert bound is not None
        layers += rule("x", bound / divisor, f"target {format_metric(metric, bound)}")
    left_out = len(summary.configurations) - len(shown)
    captions = [
        names_note(summary),
        "A dot is the median over seeds and its line min..max."
        if any(c.n > 1 for c in shown)
        else "A dot is one seed.",
        "A hollow dot (~) cannot be told from the first place." if tied else "",
        "A dashed line is open: a seed missed the target, so that it has no time."
        if any(table["open"])
        else "",
        f"{counted(left_out, 'configuration')} of lower rank are in the table only." if left_out else "",
    ]
    return (
        Plot(
            f"{METRICS[metric].title.capitalize()} by configuration",
            _alt(summary, rows, METRICS[metric].title, tied),
            layered(layers),
            {"rows": table},
            " ".join(filter(None, captions)),
            height=_ROW_HEIGHT * len(rows) + _AXIS_HEIGHT,
        ),
    )


def _row(summary: Summary, c: Configuration, metric: str, tied: Sequence[int], name: str) -> _Row:
    spread = c.metrics.get(metric)
    role = "first" if c.rank == 1 else "tied" if c.rank in tied else "other"
    words = outcome_words(c)
    if metric != _TIME:
        figures = (
            f"{format_metric(metric, spread.median)} {_ranged(metric, spread)}".strip() if spread else "none"
        )
        ends = (spread.low, spread.median, spread.high) if spread else (None, None, None)
        low, middle, high = ends
        return _Row(name, role, low, middle, high, False, ", ".join(words), figures)
    if spread is None:
        score = c.metrics.get(summary.score_metric)
        reason = ", ".join(words) or "missed"
        title = METRICS[summary.score_metric].title
        best = f", {title} {format_metric(summary.score_metric, score.median)}" if score else ""
        return _Row(name, role, None, None, None, False, reason, f"{reason}{best}")
    note = "" if c.reached == c.n else f"reached by {c.reached} of {c.n}"
    return _Row(
        name,
        role,
        spread.low,
        spread.median if math.isfinite(spread.median) else None,
        spread.high if math.isfinite(spread.high) else None,
        math.isinf(spread.high),
        note,
        f"{format_metric(metric, spread.median)} {_ranged(metric, spread)}".strip(),
    )


def _ranged(metric: str, spread: Spread) -> str:
    span = extent(metric, spread)
    return f"({span})" if span else ""


def _layers(names: Channel, value: Channel, rows: Sequence[_Row]) -> list[Layer]:
    """Return the marks of the plot: closed ranges, open ranges, dots by role, and words.

    A layer without rows is left out, because an axis over nothing has no ends.
    """
    tips = [*texts({"name": "configuration", "figures": value["title"], "note": "seeds"})]
    low = {**value, "field": "low"}
    thick = {"strokeWidth": 2.5, "strokeCap": "round"}
    layers: list[Layer] = []
    styles: dict[str, Style] = {"first": "first", "tied": "first", "other": "other"}
    for role, style in styles.items():
        mine = {"filter": {"field": "role", "equal": role}}
        of_role = [row for row in rows if row.role == role]
        if any(row.high is not None for row in of_role):
            layers.append(
                {
                    "transform": [mine, {"filter": "isValid(datum.high)"}],
                    "mark": mark("rule", style, **thick),
                    "encoding": {"y": names, "x": low, "x2": {"field": "high"}},
                }
            )
        if any(row.is_open for row in of_role):
            layers.append(
                {
                    "transform": [mine, {"filter": "datum.open"}],
                    "mark": mark("rule", style, strokeWidth=2, strokeDash=[2, 5]),
                    "encoding": {"y": names, "x": low, "x2": {"value": "width"}},
                }
            )
        if not any(row.middle is not None for row in of_role):
            continue
        hollow = (
            {"filled": False, "fill": "transparent", "strokeWidth": 2} if role == "tied" else {"filled": True}
        )
        layers.append(
            {
                "transform": [mine, {"filter": "isValid(datum.middle)"}],
                "mark": mark("point", style, size=90, opacity=1, **hollow),
                "encoding": {"y": names, "x": value, "tooltip": tips},
            }
        )
    layers.append(
        {
            "transform": [{"filter": "datum.note != ''"}],
            "mark": mark("text", align="right", baseline="bottom", dy=-8, fontSize=11),
            "encoding": {"y": names, "x": {"value": "width"}, "text": {"field": "note"}},
        }
    )
    return layers


def _alt(summary: Summary, rows: Sequence[_Row], title: str, tied: Sequence[int]) -> str:
    first = configuration_label(summary.configurations[0].factors)
    sentences = [
        f"{title} of {counted(len(rows), 'configuration')} by rank. First: {first}, {rows[0].figures}."
    ]
    if tied:
        sentences.append(f"{len(tied)} of the others cannot be told from it.")
    worded = [row.name for row in rows if row.middle is None]
    if worded:
        sentences.append(f"{len(worded)} have no dot, because they missed the target or have no score.")
    return " ".join(sentences)


def ranking_table(summary: Summary, tied: Sequence[int]) -> DataTable:
    """Return every configuration by rank, each figure as its median with min..max below it."""
    configurations = summary.configurations
    target = [_TIME, "steps_to_target"] if summary.target else [summary.score_metric, "steps"]
    scores = [summary.score_metric] if summary.target else []
    wanted = dict.fromkeys((*target, "step_time_s", *_COSTS, *scores, "test_accuracy"))
    metrics = [name for name in wanted if any(name in c.metrics for c in configurations)]
    columns = (
        Column("#", numeric=True, meaning="Rank"),
        *_factor_columns(configurations),
        Column(
            "reached" if summary.target else "trials", numeric=True, meaning="Seeds, and what became of them"
        ),
        *(Column(METRICS[m].title, numeric=True, meaning=_MEANINGS.get(m, "")) for m in metrics),
    )
    ties = frozenset(tied)
    rows = tuple(
        (
            Cell(rank_text(c, ties).strip(), c.rank),
            *_factor_cells(c.factors),
            _outcome(c),
            *(metric_cell(c, m) for m in metrics),
        )
        for c in configurations
    )
    return DataTable(
        f"{counted(len(rows), 'configuration').capitalize()} by rank",
        columns,
        rows,
        frozenset({0}),
        " ".join(ranking_notes(summary)),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _factor_columns(configurations: Sequence[Configuration]) -> tuple[Column, ...]:
    """Return a column for each factor, or one for the only configuration of a run without factors."""
    columns = (
        Column(key_id(name), numeric=all(_is_number(c.factors[name]) for c in configurations))
        for name in configurations[0].factors
    )
    return tuple(columns) or (Column("configuration"),)


def _factor_cells(factors: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return a configuration's cells for `_factor_columns`."""
    cells = (Cell(label(value), float(value) if _is_number(value) else None) for value in factors.values())
    return tuple(cells) or (Cell("train"),)


def _outcome(c: Configuration) -> Cell:
    words = ", ".join(outcome_words(c))
    text = f"{c.n}" if c.reached is None else f"{c.reached}/{c.n}"
    order = c.n if c.reached is None else c.reached / c.n
    return Cell(text, order, words, "note" if words else "plain")


def metric_cell(c: Configuration, metric: str) -> Cell:
    """Return a configuration's median of a metric with its range. One that is missed is said in words."""
    spread = c.metrics.get(metric)
    if spread is None:
        return Cell("missed" if metric.endswith(("_to_target", "_to_target_s")) else "-", None)
    mark_ = "!" if c.contended and metric == "step_time_s" else ""
    order = spread.median if math.isfinite(spread.median) else None
    return Cell(f"{format_metric(metric, spread.median)}{mark_}", order, extent(metric, spread))


def _trials(summary: Summary, records: Sequence[Record]) -> tuple[Block, ...]:
    """Return a table of the trials behind a line that opens it."""
    places: Mapping[Hashable, int] = {freeze(c.factors): c.rank for c in summary.configurations}
    ordered = sorted(records, key=lambda record: (places[freeze(record.factors)], record.seed))[:MOST_TRIALS]
    scores = (summary.score_metric, "test_accuracy")
    wanted = dict.fromkeys((_TIME, "steps_to_target", "step_time_s", *_COSTS, *scores, "epochs"))
    metrics = [name for name in wanted if any(name in record.values for record in ordered)]
    columns = (
        Column("#", numeric=True, meaning="Rank of its configuration"),
        *_factor_columns(summary.configurations),
        Column("seed", numeric=True),
        Column("status"),
        *(Column(METRICS[name].title, numeric=True) for name in metrics),
    )
    rows = tuple(
        (
            Cell(str(places[freeze(record.factors)]), places[freeze(record.factors)]),
            *_factor_cells(record.factors),
            Cell(str(record.seed), record.seed),
            Cell(STATUS_WORDS[record.status]),
            *(Cell(format_metric(m, record.values.get(m)), record.values.get(m)) for m in metrics),
        )
        for record in ordered
    )
    left_out = len(records) - len(ordered)
    note = f"{counted(left_out, 'trial')} of lower rank are in records.jsonl only." if left_out else ""
    return (Fold(f"All {counted(len(rows), 'trial')}", (DataTable("Trials", columns, rows, note=note),)),)
