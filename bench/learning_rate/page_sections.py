"""What a page says of LR range tests: rates with intervals, sweeps, short trainings, scaling with the batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np

from fusetune.bench.learning_rate.plot import loss_window
from fusetune.bench.learning_rate.study import LRStudy, Tested, by_batch_size, is_narrow
from fusetune.bench.learning_rate.wording import (
    CANT_TELL,
    answer,
    judged,
    rate_text,
    scaling_sentence,
    span_text,
    sweep_words,
)
from fusetune.bench.page import (
    Beside,
    Block,
    Cell,
    Channel,
    Column,
    DataTable,
    Fold,
    Layer,
    Part,
    Plot,
    Prose,
    Section,
    category,
    layered,
    log_quantity,
    mark,
    quantity,
    ranges,
    rule,
    texts,
    tooltip,
)
from fusetune.bench.report import banners_of, caveat_notes, failed_trials, reproduce, run_facts
from fusetune.bench.results import Record
from fusetune.bench.spec import key_id
from fusetune.bench.stats import counted, label, shorts
from fusetune.tuner.learning_rate import LEAST_SIZES, LRScaling

# More curves stand behind a line that opens them.
_MOST_SHOWN = 6
_MOST_RATES = 40
_ROW_HEIGHT = 28
_ON_THE_LINE = 33
_LEAD = (
    "A sweep raises the learning rate with every step of one short training. "
    "The suggestion lies where the loss falls well, and below where training becomes unstable."
)


def lr_range_part(study: LRStudy, records: Sequence[Record]) -> Part:
    """Return what a page says of a run of `bench lr-range`.

    Args:
        study: from `study_learning_rates`.
        records: the same records.
    """
    run = study.run
    answered, more = answer(study)
    factors = " and ".join(name.replace("_", " ") for name in run.spec.levels)
    swept = (("sweep", sweep_words(study)),) if study.tested else ()
    return Part(
        title=run.spec.name,
        asked=f"Which learning rate, for each {factors}?" if factors else "Which learning rate?",
        answer=answered,
        more=" ".join(filter(None, (more, *shorts(study.caveats)))),
        banners=banners_of(study.caveats),
        facts=run_facts(run, study.directory or None, ("model", run.spec.model), *swept),
        sections=(
            _section(study),
            failed_trials([test.record for test in study.tested], [test.label for test in study.tested]),
            reproduce(run),
        ),
    )


def _section(study: LRStudy) -> Section:
    if not study.tested:
        return Section("learning-rate", ())
    curves = [_test_blocks(test, judged(study)) for test in study.tested if _has_curve(test)]
    hidden = [block for blocks in curves[_MOST_SHOWN:] for block in blocks]
    blocks: list[Block] = [
        *caveat_notes(study.caveats),
        _table(study.tested),
        *_rates(study.tested),
        *_scaling(study),
        *(block for blocks in curves[:_MOST_SHOWN] for block in blocks),
    ]
    if hidden:
        blocks.append(Fold(f"{counted(len(curves) - _MOST_SHOWN, 'more sweep')}", tuple(hidden)))
    return Section("learning-rate", tuple(blocks), _LEAD)


def _has_curve(test: Tested) -> bool:
    """Whether a test has at least two rates and a smoothed loss. One that failed has none."""
    return len(test.lrs) > 1 and any(loss is not None for loss in test.smoothed)


def _table(tested: Sequence[Tested]) -> DataTable:
    """Return the rates of every test. What a test cannot tell is said in words."""
    confirmed = any(test.outcome.confirm_lrs is not None for test in tested)
    columns = [
        Column("configuration"),
        Column("suggested", numeric=True, meaning="learning rate by the sweep alone"),
        Column("95 % interval", numeric=True, meaning="of the suggestion, by the spread of the repeats"),
        *([Column("confirmed", numeric=True, meaning="the best of short trainings")] if confirmed else []),
        Column(
            "cycle", numeric=True, meaning="lowest and highest rate of a triangular or one-cycle schedule"
        ),
        Column("diverges at", numeric=True, meaning="the rate at which the sweep's loss diverged"),
    ]
    rows = [_row(test, confirmed=confirmed) for test in tested]
    return DataTable("Learning rates by configuration", tuple(columns), tuple(rows))


def _row(test: Tested, *, confirmed: bool) -> tuple[Cell, ...]:
    values = test.values
    suggested = values.get("range_lr")
    cells = [
        Cell(test.label),
        Cell(CANT_TELL, tone="note") if suggested is None else Cell(rate_text(suggested), suggested),
        Cell(span_text(test, "lr_interval_low", "lr_interval_high"), values.get("lr_interval_low")),
    ]
    if confirmed:
        cells.append(Cell(rate_text(values.get("suggested_lr")), values.get("suggested_lr")))
    cells.append(Cell(span_text(test, "lr_low", "lr_high"), values.get("lr_low")))
    cells.append(Cell(rate_text(values.get("divergence_lr")), values.get("divergence_lr")))
    return tuple(cells)


def _rates(tested: Sequence[Tested]) -> list[Block]:
    """Return the suggestions of several tests beside each other, each with its interval."""
    known = [test for test in tested if "range_lr" in test.values]
    shown = known[:_MOST_RATES]
    if len(shown) < 2:
        return []
    columns = ("range_lr", "lr_interval_low", "lr_interval_high")
    names, note = _short_names(shown)
    lrs, lows, highs = ([test.values.get(name) for test in shown] for name in columns)
    data: dict[str, list[Any]] = {
        "name": names,
        "configuration": [test.label for test in shown],
        "lr": lrs,
        "low": lows,
        "high": highs,
    }
    spread = (
        *texts({"configuration": "configuration"}),
        *tooltip({"lr": "suggested", "low": "from", "high": "to"}),
    )
    layers = ranges(
        category("name"),
        log_quantity("lr", "learning rate", [*lrs, *lows, *highs]),
        low="low",
        high="high",
        tips=spread,
    )
    low, high = (pick(shown, key=lambda test: test.values["range_lr"]) for pick in (min, max))
    alt = (
        f"Suggested rates lie between {rate_text(low.values['range_lr'])} ({low.label}) and "
        f"{rate_text(high.values['range_lr'])} ({high.label}). Lines are 95 % intervals."
    )
    left_out = [f"{len(known) - len(shown)} more are in the table."] if len(known) > len(shown) else []
    if unknown := len(tested) - len(known):
        left_out.append(
            f"{counted(unknown, 'configuration')} without a suggestion: these data cannot tell one."
        )
    caption = " ".join([*note, "Lines are 95 % intervals by the spread of the repeats.", *left_out])
    height = 70 + _ROW_HEIGHT * len(shown)
    return [Plot("Suggested rates", alt, layered(layers), {"rates": data}, caption, height)]


def _short_names(shown: Sequence[Tested]) -> tuple[list[str], list[str]]:
    """Return a name for each test that fits beside a plot, and the sentence that explains such names."""
    factors = list(shown[0].record.factors)
    names = [", ".join(map(label, test.record.factors.values())) for test in shown]
    if not factors or len(set(names)) < len(names):
        return [test.label for test in shown], []
    return names, [f"Names are {', '.join(map(key_id, factors))}."]


def _test_blocks(test: Tested, loss: str) -> list[Block]:
    """Return what is said of one test: its sweep, its short trainings, its advice and its warnings."""
    sweep, confirmation = _sweep_plot(test, loss), _confirmation_plot(test)
    blocks: list[Block] = [Beside((sweep, confirmation)) if confirmation else sweep]
    if test.advice:
        blocks.append(Prose(f"{test.label}: {test.advice}."))
    blocks += [Prose(f"{test.label}: {note}.", "note") for note in test.notes]
    return blocks


def _sweep_plot(test: Tested, loss: str) -> Plot:
    """Return the loss against the rate, with what the sweep found."""
    low, high = loss_window(test)
    x = log_quantity("lr", "learning rate", [*test.lrs, *_marked(test)])
    y = quantity("loss", loss, domain=(low, high))
    raw = {
        "data": {"name": "repeats"},
        "mark": mark("line", "faint", strokeWidth=1, clip=True),
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "repeat", "type": "nominal"},
            "tooltip": tooltip({"lr": "learning rate", "loss": loss, "repeat": "repeat"}),
        },
    }
    smooth = {
        "data": {"name": "smoothed"},
        "mark": mark("line", "first", strokeWidth=2.5, clip=True),
        "encoding": {
            "x": x,
            "y": y,
            "tooltip": tooltip({"lr": "learning rate", "loss": f"{loss}, smoothed"}),
        },
    }
    spec = layered([*_interval_band(test), *_cycle(test), raw, smooth, *_marks(test)])
    data = {"repeats": _repeats(test), "smoothed": _columns(test.lrs, test.smoothed)}
    return Plot(f"Sweep: {test.label}", _sweep_alt(test, loss), spec, data, _sweep_caption(test, high), 340)


def _marked(test: Tested) -> list[float]:
    """Return the rates that the plot marks. An interval may reach beyond the sweep."""
    names = ("lr_interval_low", "lr_interval_high", "lr_low", "lr_high", "divergence_lr")
    return [test.values[name] for name in names if name in test.values]


def _columns(lrs: Sequence[float], losses: Sequence[float | None]) -> dict[str, list[Any]]:
    pairs = [(lr, loss) for lr, loss in zip(lrs, losses, strict=True) if loss is not None]
    return {"lr": [lr for lr, _ in pairs], "loss": [loss for _, loss in pairs]}


def _repeats(test: Tested) -> dict[str, list[Any]]:
    """Return the losses of every sweep below each other."""
    table: dict[str, list[Any]] = {"lr": [], "loss": [], "repeat": []}
    for number, losses in enumerate(test.repeats, start=1):
        columns = _columns(test.lrs, losses)
        table["lr"] += columns["lr"]
        table["loss"] += columns["loss"]
        table["repeat"] += [number] * len(columns["lr"])
    return table


def _interval_band(test: Tested) -> list[Layer]:
    """Return the 95 % interval as a band over the whole height."""
    values = test.values
    if "lr_interval_low" not in values:
        return []
    data = {"values": [{"from": values["lr_interval_low"], "to": values["lr_interval_high"]}]}
    x: Channel = {"field": "from", "type": "quantitative"}
    return [{"data": data, "mark": mark("rect", "band"), "encoding": {"x": x, "x2": {"field": "to"}}}]


def _cycle(test: Tested) -> list[Layer]:
    """Return the bounds of a cycle as a bar at the plot's foot."""
    values = test.values
    if "lr_low" not in values:
        return []
    data = {
        "values": [
            {
                "from": values["lr_low"],
                "to": values["lr_high"],
                "label": f"cycle {span_text(test, 'lr_low', 'lr_high')}",
            }
        ]
    }
    x: Channel = {"field": "from", "type": "quantitative"}
    foot, above = ({"value": {"expr": f"height - {pixels}"}} for pixels in (5, 11))
    return [
        {
            "data": data,
            "mark": mark("rule", "other", strokeWidth=6),
            "encoding": {"x": x, "x2": {"field": "to"}, "y": foot},
        },
        {
            "data": data,
            "mark": mark("text", "other", align="right", baseline="bottom"),
            "encoding": {"x": {**x, "field": "to"}, "y": above, "text": {"field": "label"}},
        },
    ]


def _marks(test: Tested) -> list[Layer]:
    """Return lines at the suggestion, the confirmed rate and the divergence, as far as the test found them."""
    values = test.values
    middle = math.sqrt(test.lrs[0] * test.lrs[-1])
    found: list[tuple[str, str, Any]] = []
    if "range_lr" in values:
        found.append(("suggested", "range_lr", "suggestion"))
    confirmed = values.get("suggested_lr")
    if confirmed is not None and not math.isclose(confirmed, values["range_lr"]):
        found.append(("confirmed", "suggested_lr", "first"))
    if "divergence_lr" in values:
        found.append(("diverges at", "divergence_lr", "limit"))
    layers: list[Layer] = []
    for line, (word, name, style) in enumerate(found):
        label = f"{word} {rate_text(values[name])}"
        layers += rule("x", values[name], label, style, line=line, before=values[name] > middle)
    return layers


def _sweep_alt(test: Tested, loss: str) -> str:
    """Return what the sweep shows, in words."""
    known = [(lr, value) for lr, value in zip(test.lrs, test.smoothed, strict=True) if value is not None]
    lowest = min(known, key=lambda pair: pair[1])
    text = (
        f"The smoothed {loss} starts at {known[0][1]:.3g} and is lowest at a rate of {lowest[0]:.3g}, "
        f"with {lowest[1]:.3g}."
    )
    values = test.values
    if "range_lr" not in values:
        return f"{text} These data cannot tell a rate."
    text += f" Suggested rate {rate_text(values['range_lr'])}"
    if "lr_interval_low" in values:
        text += f", 95 % interval {span_text(test, 'lr_interval_low', 'lr_interval_high')}"
    if "divergence_lr" in values:
        text += f". It diverges at {rate_text(values['divergence_lr'])}"
    return f"{text}."


def _sweep_caption(test: Tested, top: float) -> str:
    """Return what the lines are, and what the plot leaves out."""
    faint = "Faint lines: each sweep." if len(test.repeats) > 1 else "Faint line: the sweep."
    parts = [faint, "Strong line: " + ("their smoothed mean." if len(test.repeats) > 1 else "smoothed.")]
    if "lr_interval_low" in test.values:
        parts.append("Band: 95 % interval of the suggestion.")
    elif "range_lr" in test.values:
        parts.append("The suggestion has no interval, because an interval needs two sweeps.")
    else:
        parts.append("No rate is marked, because these data cannot tell one.")
    losses = [loss for each in (test.smoothed, *test.repeats) for loss in each if loss is not None]
    if max(losses) > top:
        parts.append(f"Losses above {top:.3g} are cut off.")
    return " ".join(parts)


def _confirmation_plot(test: Tested) -> Plot | None:
    """Return the validation loss of the short trainings around the suggestion."""
    lrs = test.record.samples.get("confirm_lr", [])
    losses = test.record.samples.get("confirm_val_loss", [])
    if len(lrs) < 2:
        return None
    values = test.values
    x = log_quantity("lr", "learning rate", lrs)
    y = quantity("loss", "validation loss")
    encoding = {"x": x, "y": y, "tooltip": tooltip({"lr": "learning rate", "loss": "validation loss"})}
    layers: list[Layer] = [
        {"mark": mark("line", "other", strokeWidth=1.5), "encoding": encoding},
        {"mark": mark("point", "first", size=80, opacity=1), "encoding": encoding},
    ]
    if "suggested_lr" in values:
        kept = values["suggested_lr"]
        layers += rule(
            "x", kept, f"kept {rate_text(kept)}", "suggestion", before=kept > math.sqrt(min(lrs) * max(lrs))
        )
    best = min(zip(losses, lrs, strict=True))
    alt = f"Of {counted(len(lrs), 'short training')} the lowest validation loss is {best[0]:.3g}, at {best[1]:.3g}."
    caption = "One short training at each rate, so small differences are chance."
    if diverged := len(test.outcome.confirm_lrs or ()) - len(lrs):
        caption += f" {counted(diverged, 'more rate')} diverged."
    title = f"Short trainings: {test.label}"
    return Plot(title, alt, layered(layers), {"trainings": {"lr": lrs, "loss": losses}}, caption, 340)


def _scaling(study: LRStudy) -> list[Block]:
    """Return how the suggested rate grows with the batch size, for each group of other factors."""
    points = by_batch_size(study)
    plots: list[Block] = []
    for name, fit in study.scalings.items():
        if plot := _scaling_plot(name, fit, points[name]):
            plots.append(plot)
        plots.append(Prose(f"{scaling_sentence(name, fit)}."))
    if len(study.scalings) <= _MOST_SHOWN:
        return plots
    return [Fold("Learning rate against batch size", tuple(plots))]


def _scaling_plot(name: str, fit: LRScaling | str, points: Sequence[tuple[int, Record]]) -> Plot | None:
    """Return the suggested rates against the batch size. The power law is drawn only where these data tell one."""
    if len({size for size, _ in points}) < LEAST_SIZES:
        return None
    values = [record.values for _, record in points]
    data: dict[str, dict[str, list[Any]]] = {
        "tests": {
            "size": [size for size, _ in points],
            "lr": [each["range_lr"] for each in values],
            "low": [each.get("lr_interval_low") for each in values],
            "high": [each.get("lr_interval_high") for each in values],
            "narrow": [is_narrow(record) for _, record in points],
        }
    }
    tests = data["tests"]
    x = log_quantity("size", "batch size", tests["size"], base=2)
    y = log_quantity("lr", "learning rate", [*tests["lr"], *tests["low"], *tests["high"]])
    layers: list[Layer] = []
    if isinstance(fit, LRScaling):
        used = [size for size, record in points if is_narrow(record)]
        data["fit"] = fit_columns(fit, used)
        layers = [
            {
                "data": {"name": "fit"},
                "mark": mark("area", "band"),
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "data": {"name": "fit"},
                "mark": mark("line", "suggestion"),
                "encoding": {"x": x, "y": y},
            },
        ]
    tips = tooltip({"size": "batch size", "lr": "suggested", "low": "from", "high": "to"})
    layers.append(
        {
            "data": {"name": "tests"},
            "mark": mark("rule", "other", strokeWidth=2),
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        }
    )
    layers.append(
        {
            "data": {"name": "tests"},
            "mark": mark("point", "first", size=80),
            "encoding": {
                "x": x,
                "y": y,
                "opacity": {"condition": {"test": "datum.narrow", "value": 1}, "value": 0.35},
                "tooltip": tips,
            },
        }
    )
    caption = "Vertical lines are 95 % intervals of the suggestions."
    if isinstance(fit, LRScaling):
        caption += " The band turns the line about its centre by the interval of the exponent."
        if fit.left_out:
            caption += " Pale points are left out of the fit."
    else:
        caption += " No line is drawn, because these data cannot tell an exponent."
    group = "" if name == "all" else f": {name}"
    alt = f"{scaling_sentence(name, fit)}."
    return Plot(f"Learning rate against batch size{group}", alt, layered(layers), data, caption, 320)


def fit_columns(fit: LRScaling, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Return the power law between the smallest and the largest batch size, with the interval of its exponent.

    The band is lr(c) (B / c)^e for e at both ends of the interval, with c the geometric mean of the sizes. There the
    fitted exponent does not change the rate.

    Args:
        fit: the power law.
        sizes: the batch size of each test that it was fitted to.

    Example:
        >>> fit = LRScaling(0.5, 0.25, 1.0, 0.0, (1, 4, 16), 3)
        >>> columns = fit_columns(fit, [1, 4, 16])
        >>> [round(columns[name][-1], 6) for name in ("size", "lr", "low", "high")]
        [16.0, 4.0, 2.828427, 8.0]
    """
    centre = math.exp(mean(math.log(size) for size in sizes))
    at = [float(size) for size in np.geomspace(min(sizes), max(sizes), _ON_THE_LINE)]
    ends = [
        [fit.lr_at(centre) * (size / centre) ** exponent for exponent in (fit.low, fit.high)] for size in at
    ]
    return {
        "size": at,
        "lr": [fit.lr_at(size) for size in at],
        "low": [min(pair) for pair in ends],
        "high": [max(pair) for pair in ends],
    }
