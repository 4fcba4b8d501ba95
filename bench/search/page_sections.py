"""What a page says of a search: the best so far, every training's curve and end, the winner on fresh seeds, factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusetune.bench.page import (
    Block,
    Cell,
    Column,
    DataTable,
    Items,
    Layer,
    Part,
    Plot,
    Prose,
    Section,
    by_column,
    category,
    layered,
    mark,
    quantity,
    rule,
    series,
    texts,
    tooltip,
)
from fusetune.bench.report import banners_of, caveat_notes, reproduce, run_facts
from fusetune.bench.results import Record
from fusetune.bench.search.event_log import FAILED
from fusetune.bench.search.page_factors import contour_blocks, importance_blocks, parallel_blocks, sample_of
from fusetune.bench.search.study import SearchStudy
from fusetune.bench.search.wording import ended_words, header, nothing_found, on_fresh_seeds
from fusetune.bench.spec import freeze
from fusetune.bench.stats import configuration_label, counted, places_of, shorts
from fusetune.tuner.search import SearchTrial

_LEAD = (
    "A search trains many configurations an epoch at a time, and continues those that are predicted to end well. "
    "Its best value is partly luck, so the winner is trained again on fresh seeds."
)
_MOST_POINTS = 6000


def search_part(study: SearchStudy, records: Sequence[Record]) -> Part:
    """Return what a page says of a search.

    Args:
        study: from `study_search`.
        records: the same records.
    """
    run = study.run
    factors = ", ".join(name.replace("_", " ") for name in study.plan.space)
    metric = _metric(study)
    seen = _seen(study)
    spent = (
        f"{study.epochs_used} of {study.plan.budget_epochs} epochs, {counted(len(study.trials), 'training')}"
    )
    facts = run_facts(
        run,
        str(study.path),
        ("model", run.spec.model),
        ("budget", spent),
        ("prior", study.prior),
        places=places_of(records),
    )
    return Part(
        title=run.spec.name,
        asked=f"Which choice of {factors} has the best {metric}, within {study.plan.budget_epochs} epochs?",
        answer=_answer(study),
        more=" ".join([*_more(study), *shorts(study.caveats)]),
        banners=banners_of(study.caveats),
        facts=facts,
        sections=(
            Section("search", tuple(_blocks(study, seen)) if study.trials else (), _LEAD),
            _diagnosis(study, records),
            _failures(study),
            reproduce(run),
        ),
    )


def _metric(study: SearchStudy) -> str:
    return study.plan.metric.replace("_", " ")


def _seen(study: SearchStudy) -> list[SearchTrial]:
    """Return the trainings that reported a value, in the order in which they began."""
    return sorted((trial for trial in study.trials if trial.values), key=lambda trial: trial.number)


def _answer(study: SearchStudy) -> str:
    if study.winner is None:
        return nothing_found(study) if study.failure else "Nothing is recorded yet."
    return f"Use {_short_label(study.winner)}."


def _short_label(config: Mapping[str, Any]) -> str:
    """Return a configuration with four digits of each number. The table of trainings has all digits."""
    return configuration_label(
        {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in config.items()}
    )


def _more(study: SearchStudy) -> list[str]:
    """Return how good the winner is, against fresh seeds and `train`, and what the budget left."""
    said = []
    if study.winner is not None:
        said.append(
            f"Its {_metric(study)} was {study.value:.4g} at epoch {study.epoch} in the search. The best of many is "
            f"partly luck; {on_fresh_seeds(study)}"
        )
        said.append(_against_train(study))
    if study.rates:
        rates = ", ".join(f"{rate:.3g} (seed {seed})" for seed, rate in study.rates)
        said.append(f"Its base_lr: auto chose {rates}.")
    if study.left:
        said.append(f"{counted(study.left, 'training')} could have continued when the budget was spent.")
    if study.waiting:
        said.append(
            f"The search is not over: {counted(study.waiting, 'training')} can continue with --resume."
        )
    return said


def _of_train(study: SearchStudy) -> SearchTrial | None:
    """Return the search's training of the spec's own configuration, if it is among them."""
    own = study.run.baseline
    same = [trial for trial in study.trials if trial.values and freeze(trial.config) == freeze(dict(own))]
    return same[0] if same and own else None


def _against_train(study: SearchStudy) -> str:
    own = _of_train(study)
    if own is None:
        return "The `train` configuration is not among the trainings of this search."
    if study.winner is not None and freeze(own.config) == freeze(study.winner):
        return "It is the `train` configuration itself."
    return (
        f"The `train` configuration came to {_best(study, own):.4g} in {counted(own.epochs, 'epoch')} of the search, "
        "on one seed, so these data cannot tell how much better the winner is."
    )


def _best(study: SearchStudy, trial: SearchTrial) -> float:
    return (max if study.plan.maximize else min)(trial.values)


def _blocks(study: SearchStudy, seen: Sequence[SearchTrial]) -> list[Block]:
    sample = sample_of(study)
    blocks: list[Block] = [*caveat_notes(study.caveats)]
    blocks += [Prose(f"{note[:1].upper()}{note[1:]}.", "note") for note in (*study.notes, *_lost(study))]
    blocks += [*_best_so_far(study), *_curves(study, seen), *_winner_plot(study)]
    blocks += importance_blocks(study, sample)
    blocks += parallel_blocks(study, sample)
    blocks += contour_blocks(study, sample)
    blocks.append(_trainings(study))
    return blocks


def _lost(study: SearchStudy) -> list[str]:
    """Return what workers that were lost have cost."""
    said = []
    if study.from_log:
        said.append(
            f"{counted(study.from_log, 'record')} rebuilt from the search's log, because the worker was lost"
        )
    if study.made_again:
        said.append(
            f"{counted(study.made_again, 'epoch')} trained again after a worker was lost or the run was resumed. "
            "They are not counted in the budget"
        )
    return said


def _best_so_far(study: SearchStudy) -> list[Block]:
    """Return every value and the best so far against the epochs that were spent."""
    if not study.spent:
        return (
            [Prose("The order of the epochs is not known, so the best so far is not drawn.", "note")]
            if study.trials
            else []
        )
    pick = max if study.plan.maximize else min
    best: list[float | None] = []
    for _, value in study.spent:
        known = [each for each in (best[-1] if best else None, value) if each is not None]
        best.append(pick(known) if known else None)
    count = len(study.spent)
    told = [(at, number, value) for at, (number, value) in enumerate(study.spent, 1) if value is not None]
    if not told:
        return []
    kept = told[:: -(-len(told) // _MOST_POINTS)]
    data: dict[str, Mapping[str, Sequence[Any]]] = {
        "best": {"epoch": list(range(1, count + 1)), "value": best},
        "values": by_column(("epoch", "training", "value"), kept),
    }
    metric = _metric(study)
    x, y = (
        quantity("epoch", "epochs spent", domain=(0, max(study.plan.budget_epochs, count))),
        quantity("value", metric),
    )
    layers: list[Layer] = [
        {
            "data": {"name": "values"},
            "mark": mark("point", "faint", size=22),
            "encoding": {
                "x": x,
                "y": y,
                "tooltip": tooltip({"epoch": "epochs spent", "training": "training", "value": metric}),
            },
        },
        {
            "data": {"name": "best"},
            "mark": mark("line", "first", strokeWidth=2.5, interpolate="step-after"),
            "encoding": {
                "x": x,
                "y": y,
                "tooltip": tooltip({"epoch": "epochs spent", "value": "best so far"}),
            },
        },
    ]
    fresh = study.fresh
    caption = "Dots: the value after each epoch of each training. Line: the best so far."
    if fresh.mean is not None:
        layers += rule("y", fresh.mean, f"winner on fresh seeds {fresh.mean:.4g}", "suggestion")
        caption += " Level: mean of the winner on fresh seeds, which is without the luck of a search."
    reached = next(at for at, value in enumerate(best, 1) if value == best[-1])
    alt = f"The best {metric}, {best[-1]:.4g}, was reached after {reached} of {count} epochs spent."
    return [Plot("Best so far", alt, layered(layers), data, caption, 320)]


def _curves(study: SearchStudy, seen: Sequence[SearchTrial]) -> list[Block]:
    """Return every training's curve and how it ended, with the winner's on top."""
    if not seen:
        return []
    best = next((trial for trial in study.trials if trial.values), seen[0])
    rows = [(t.number, epoch, value) for t in seen for epoch, value in enumerate(t.values, 1)]
    data: dict[str, Mapping[str, Sequence[Any]]] = {
        "curves": by_column(("training", "epoch", "value"), rows),
        "best": {"epoch": list(range(1, best.epochs + 1)), "value": best.values},
        "ends": {
            "epoch": [trial.epochs for trial in seen],
            "value": [trial.values[-1] for trial in seen],
            "ended": [ended_words(trial) for trial in seen],
            "name": [_short_label(trial.config) for trial in seen],
        },
    }
    metric = _metric(study)
    x = quantity("epoch", "epoch", domain=(0.5, study.plan.max_epochs + 0.5), number_format="d")
    y = quantity("value", metric)
    kinds = list(dict.fromkeys(data["ends"]["ended"]))
    ended = series("ended", order=kinds)
    tips = [
        *texts({"name": "configuration", "ended": "ended"}),
        *tooltip({"epoch": "epochs", "value": metric}),
    ]
    layers: list[Layer] = [
        {
            "data": {"name": "curves"},
            "mark": mark("line", "faint", strokeWidth=1),
            "encoding": {"x": x, "y": y, "detail": {"field": "training", "type": "nominal"}},
        },
        {
            "data": {"name": "best"},
            "mark": mark("line", "first", strokeWidth=3),
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"name": "ends"},
            "mark": mark("point", size=45, opacity=0.9),
            "encoding": {
                "x": x,
                "y": y,
                "color": {**ended, "legend": {**ended["legend"], "symbolType": "circle"}},
                "tooltip": tips,
            },
        },
    ]
    counts = [f"{sum(each == kind for each in data['ends']['ended'])} {kind}" for kind in kinds]
    alt = f"{counted(len(seen), 'training')}: {', '.join(counts)}. The best came to {_best(study, best):.4g}."
    caption = f"Strong: the best training, {_short_label(best.config)}. Dots: how each ended."
    if silent := len(study.trials) - len(seen):
        caption += f" {counted(silent, 'training')} without any value cannot be drawn."
    return [Plot("Every training", alt, layered(layers), data, caption, 380)]


def _winner_plot(study: SearchStudy) -> list[Block]:
    """Return the winner in the search and on fresh seeds, beside `train` in the search."""
    if study.winner is None or study.value is None:
        return []
    fresh, metric = study.fresh, _metric(study)
    rows: list[tuple[str, float]] = [("winner in the search", study.value)]
    rows += [("winner on fresh seeds", value) for value in fresh.values]
    own = _of_train(study)
    if own is not None and freeze(own.config) != freeze(study.winner):
        rows.append(("train in the search", _best(study, own)))
    if len(rows) < 2:
        return []
    data: dict[str, Mapping[str, Sequence[Any]]] = {
        "runs": {"name": [name for name, _ in rows], "value": [value for _, value in rows]}
    }
    order = list(dict.fromkeys(data["runs"]["name"]))
    y, x = category("name", order=order), quantity("value", metric, number_format=".4~g")
    layers: list[Layer] = []
    if fresh.low is not None:
        data["mean"] = {"name": [order[1]], "low": [fresh.low], "high": [fresh.high], "value": [fresh.mean]}
        layers.append(
            {
                "data": {"name": "mean"},
                "mark": mark("rule", "suggestion", strokeWidth=5, opacity=0.4),
                "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
            }
        )
        layers.append(
            {
                "data": {"name": "mean"},
                "mark": mark("tick", "suggestion", thickness=3, size=22),
                "encoding": {
                    "y": y,
                    "x": x,
                    "tooltip": tooltip({"value": "mean", "low": "from", "high": "to"}),
                },
            }
        )
    layers.append(
        {
            "data": {"name": "runs"},
            "mark": mark("point", "first", size=70, opacity=0.9),
            "encoding": {"y": y, "x": x, "tooltip": [*texts({"name": "run"}), *tooltip({"value": metric})]},
        }
    )
    caption = "Each dot is a training." + (
        " Band: 95 % interval of the mean." if fresh.low is not None else ""
    )
    alt = f"Winner in the search {study.value:.4g}; {on_fresh_seeds(study)}"
    return [
        Plot("The winner again, on fresh seeds", alt, layered(layers), data, caption, 70 + 36 * len(order))
    ]


def _trainings(study: SearchStudy) -> DataTable:
    """Return all trainings of the search, best first."""
    columns = (
        Column("#", numeric=True, meaning="in the order in which they began"),
        Column("configuration"),
        Column("epochs", numeric=True),
        Column(f"best {_metric(study)}", numeric=True),
        Column("ended"),
    )
    rows = tuple(
        (
            Cell(str(trial.number + 1), trial.number + 1),
            Cell(configuration_label(trial.config)),
            Cell(f"{trial.epochs}/{study.plan.max_epochs}", trial.epochs),
            Cell(f"{_best(study, trial):.4g}", _best(study, trial)) if trial.values else Cell("-"),
            Cell(
                ended_words(trial),
                small="" if ended_words(trial) in trial.reason else trial.reason,
                tone="bad" if trial.status in FAILED else "plain",
            ),
        )
        for trial in study.trials
    )
    strong = frozenset({0}) if study.winner is not None else frozenset()
    return DataTable("Trainings of the search", columns, rows, strong, f"{header(study)}.")


def _failures(study: SearchStudy) -> Section:
    """Return the trainings that failed, with their reasons."""
    rows = tuple(
        (Cell(configuration_label(trial.config)), Cell(ended_words(trial), tone="bad"), Cell(trial.reason))
        for trial in study.trials
        if trial.status in FAILED
    )
    columns = (Column("configuration"), Column("ended"), Column("why"))
    return Section("failures", (DataTable("Trainings that failed", columns, rows),) if rows else ())


def _diagnosis(study: SearchStudy, records: Sequence[Record]) -> Section:
    """Return what the winner's trainings were diagnosed with, each finding once."""
    if study.winner is None:
        return Section("diagnosis", ())
    wanted = freeze(study.winner)
    own = [record for record in records if freeze(record.factors) == wanted]
    found: dict[str, list[Any]] = {}
    for finding in (finding for record in own for finding in record.findings):
        found.setdefault(str(finding["title"]), []).append(finding)
    lines = [
        f"{title} ({len(cases)} of {counted(len(own), 'training')}): {cases[0]['sentence']} {cases[0]['try_next']}"
        for title, cases in found.items()
    ]
    blocks = (Items(tuple(lines)),) if lines else ()
    return Section("diagnosis", blocks, "What the winner's trainings show.")
