"""Each factor's main effect on a page, as a forest plot and a table, and how pairs of factors go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fusetune.bench.page import (
    Block,
    Cell,
    Column,
    DataTable,
    Layer,
    Plot,
    Section,
    category,
    layered,
    log_quantity,
    mark,
    quantity,
    rule,
    series,
    texts,
)
from fusetune.bench.report.interactions import interaction_blocks
from fusetune.bench.report.short_names import distinct
from fusetune.bench.report.training_texts import difference_text, effects_notes, interval_text
from fusetune.bench.results import Record
from fusetune.bench.spec import key_id
from fusetune.bench.stats import Effect, Estimate, Level, Summary, counted, estimate_text, label
from fusetune.bench.units import METRICS

MOST_LEVELS = 24
_LEAST_RATIOS = (0.9, 1.1)  # an axis has them, so that a difference of a few percent does not look like much
_MEASURES = ("sooner", "= fewer steps", "x faster steps")
_STEPS_ALONE = "faster steps"


def effects(summary: Summary, records: Sequence[Record]) -> Section:
    """Return main effects and interactions. Without a factor of two levels there are none.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records.
    """
    if not summary.effects:
        return Section("effects", ())
    levels = [
        (effect, level) for effect in summary.effects for level in effect.levels if not level.is_reference
    ]
    blocks: list[Block] = [*_ratio_plot(summary, levels), *_score_plot(summary, levels)]
    blocks += [_table(summary), *interaction_blocks(summary, records)]
    return Section("effects", tuple(blocks), _lead(levels))


def _lead(levels: Sequence[tuple[Effect, Level]]) -> str:
    told = [e for _, level in levels for e in _estimates(level) if e and e.can_tell]
    compared = [e for _, level in levels for e in _estimates(level) if e]
    return (
        "Each level against the first of its factor, over trials with all else and the seed equal. "
        f"{len(told)} of {counted(len(compared), 'difference')} can be told from none."
    )


def _estimates(level: Level) -> tuple[Estimate | None, ...]:
    return level.time, level.steps, level.step_time, level.score


def _level_names(levels: Sequence[tuple[Effect, Level]]) -> list[str]:
    """Name each level with its factor and its reference."""
    return distinct(
        [
            f"{key_id(effect.factor)}: {label(level.value)} / {label(effect.levels[0].value)}"
            for effect, level in levels
        ]
    )


def _ratio_plot(summary: Summary, levels: Sequence[tuple[Effect, Level]]) -> Iterator[Plot]:
    """Yield the forest plot of ratios."""
    names = _level_names(levels)
    rows: list[tuple[str, str, Estimate]] = []
    for name, (_, level) in list(zip(names, levels, strict=True))[:MOST_LEVELS]:
        measures = (
            zip(_MEASURES, (level.time, level.steps, level.step_time), strict=True)
            if summary.target
            else ((_STEPS_ALONE, level.step_time),)
        )
        rows += [(name, measure, estimate) for measure, estimate in measures if estimate]
    if not rows:
        return
    table = _forest_table(
        [(name, measure, e, estimate_text(e), interval_text(None, e)) for name, measure, e in rows]
    )
    ends = [v for _, _, e in rows for v in (e.value, e.low, e.high) if v is not None]
    order = list(_MEASURES) if summary.target else [_STEPS_ALONE]
    value = log_quantity("value", "ratio, reference / level", [*_LEAST_RATIOS, *ends])
    yield _forest(
        "Main effects as ratios: above 1 the level is better than its reference",
        table,
        value,
        order,
        at=1.0,
        caption=_forest_caption(len(levels), table["told"]),
    )


def _score_plot(summary: Summary, levels: Sequence[tuple[Effect, Level]]) -> Iterator[Plot]:
    """Yield the forest plot of differences of the score."""
    metric = summary.score_metric
    shown = list(zip(_level_names(levels), levels, strict=True))[:MOST_LEVELS]
    rows = [(name, level.score) for name, (_, level) in shown if level.score]
    if not rows:
        return
    is_fraction = METRICS[metric].unit == "fraction"
    table = _forest_table(
        [
            (name, METRICS[metric].title, e, difference_text(metric, e), interval_text(metric, e))
            for name, e in rows
        ],
        100.0 if is_fraction else 1.0,
    )
    unit = "percentage points" if is_fraction else "nats"
    value = quantity("value", f"level - reference ({unit})", zero=True)
    better = "above" if METRICS[metric].better == "higher" else "below"
    yield _forest(
        f"Main effects on {METRICS[metric].title}: {better} 0 the level is better",
        table,
        value,
        [METRICS[metric].title],
        at=0.0,
        caption=_forest_caption(len(levels), table["told"]),
    )


def _forest_table(
    rows: Sequence[tuple[str, str, Estimate, str, str]], scale: float = 1.0
) -> dict[str, list[Any]]:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * scale

    return {
        "name": [name for name, *_ in rows],
        "measure": [measure for _, measure, *_ in rows],
        "value": [scaled(e.value) for _, _, e, *_ in rows],
        "low": [scaled(e.low) for _, _, e, *_ in rows],
        "high": [scaled(e.high) for _, _, e, *_ in rows],
        "told": [e.can_tell for _, _, e, *_ in rows],
        "figure": [figure for *_, figure, _ in rows],
        "interval": [interval or "none" for *_, interval in rows],
        "pairs": [e.n for _, _, e, *_ in rows],
    }


def _forest_caption(count: int, told: Sequence[bool]) -> str:
    return " ".join(
        filter(
            None,
            [
                "Rows are level / reference. Lines are 95 % intervals.",
                "Hollow and light (~): cannot be told from no difference." if not all(told) else "",
                f"The table has all {count} levels." if count > MOST_LEVELS else "",
            ],
        )
    )


def _forest(
    title: str, table: dict[str, list[Any]], value: Any, measures: Sequence[str], *, at: float, caption: str
) -> Plot:
    """Return a row for each level with a dot and an interval for each measure."""
    names = list(dict.fromkeys(table["name"]))
    several = len(measures) > 1
    offset = {"yOffset": {"field": "measure", "type": "nominal", "sort": list(measures)}} if several else {}
    color = {"color": series("measure", order=measures)} if several else {}
    place = {"y": category("name", order=names), **offset, **color}
    tips = texts(
        {
            "name": "level",
            "measure": "measure",
            "figure": "figure",
            "interval": "95 % interval",
            "pairs": "pairs",
        }
    )
    layers: list[Layer] = [*rule("x", at, "", "faint")]
    for told in (True, False):
        mine = {"filter": {"field": "told", "equal": told}}
        dot = {"filled": True} if told else {"filled": False, "strokeWidth": 2}
        if told not in table["told"]:
            continue
        intervals = {
            "transform": [mine, {"filter": "isValid(datum.low)"}],
            "mark": mark("rule", strokeWidth=2.5, strokeCap="round", opacity=1 if told else 0.45),
            "encoding": {**place, "x": {**value, "field": "low"}, "x2": {"field": "high"}},
        }
        known = any(
            low is not None for low, each in zip(table["low"], table["told"], strict=True) if each == told
        )
        layers += [
            *([intervals] if known else []),
            {
                "transform": [mine],
                "mark": mark("point", size=80, opacity=1, **dot),
                "encoding": {**place, "x": value, "tooltip": tips},
            },
        ]
    told_rows = [at_ for at_, told in enumerate(table["told"]) if told]
    found = "; ".join(
        f"{table['name'][i]}, {table['measure'][i]} {table['figure'][i]}" for i in told_rows[:4]
    )
    return Plot(
        title,
        f"{title}. {found or 'None of them'} can be told from no difference.",
        layered(layers),
        {"levels": table},
        caption,
        height=(18 * len(measures) + 18) * len(names) + 70,
    )


def _table(summary: Summary) -> DataTable:
    """Return the levels of every factor with their figures, as the terminal has them."""
    metric = summary.score_metric
    ratios = _MEASURES if summary.target else (_STEPS_ALONE,)
    columns = (
        Column("factor"),
        Column("level"),
        Column("reached" if summary.target else "trials", numeric=True),
        Column("pairs", numeric=True, meaning="Pairs of trials with all else and the seed equal"),
        *(Column(name, numeric=True) for name in ratios),
        Column(METRICS[metric].title, numeric=True),
    )
    rows = tuple(_row(summary, effect, level) for effect in summary.effects for level in effect.levels)
    return DataTable("Main effects", columns, rows, note=" ".join(effects_notes(summary)))


def _row(summary: Summary, effect: Effect, level: Level) -> tuple[Cell, ...]:
    count = Cell(f"{level.n}", level.n)
    if level.reached is not None:
        count = Cell(f"{level.reached}/{level.n}", level.reached / level.n if level.n else None)
    cells = [
        Cell(key_id(effect.factor)),
        Cell(label(level.value), small="reference" if level.is_reference else ""),
        count,
    ]
    width = (3 if summary.target else 1) + 2
    if level.is_reference:
        return (*cells, *(Cell("", None) for _ in range(width)))
    both_reached = f"{level.time.n if level.time else 0}/" if summary.target else ""
    cells.append(Cell(f"{both_reached}{level.pairs}", level.pairs))
    ratios = [(level.time, "-"), (level.steps, "-")] if summary.target else []
    for estimate, otherwise in [*ratios, (level.step_time, "same work" if level.same_work else "-")]:
        nothing = Cell(otherwise, None)
        cells.append(
            Cell(estimate_text(estimate), estimate.value, interval_text(None, estimate))
            if estimate
            else nothing
        )
    metric, score = summary.score_metric, level.score
    cells.append(
        Cell(difference_text(metric, score), score.value, interval_text(metric, score))
        if score
        else Cell("-", None)
    )
    return tuple(cells)
