"""A search as a table for a paper: its best trainings, and the winner on fresh seeds."""

from __future__ import annotations

from collections.abc import Iterator

from fusetune.bench.paper import Column, Figure, PaperTable
from fusetune.bench.report import (
    caveat_sentences,
    factor_cells,
    factor_columns,
    made_by,
    run_cells,
    run_columns,
    table_label,
)
from fusetune.bench.search.plan import is_left
from fusetune.bench.search.study import CONFIDENCE, SearchStudy
from fusetune.bench.spec import freeze
from fusetune.bench.stats import counted
from fusetune.tuner.search import SearchTrial

_SHOWN = 10


def search_table(study: SearchStudy) -> PaperTable:
    """Return the trainings that reported a value, the best first. Nothing is bold, because nothing is compared.

    Args:
        study: from `study_search`.
    """
    trials = [trial for trial in study.trials if trial.values]
    metric, run = study.plan.metric, study.run
    unit = "fraction" if metric.endswith("accuracy") else "nats"
    title = metric.replace("_", " ")
    names = list(study.plan.space)
    columns = (
        *run_columns(),
        Column("rank", "rank", ""),
        *factor_columns(names),
        Column("status", "ended as", is_data=True),
        Column("epochs", "epochs", ""),
        Column(f"best_{metric}", f"{title} in the search", unit),
        Column(f"fresh_{metric}", f"{title} on fresh seeds", unit, ("low", "high")),
    )
    winner = next((trial for trial in trials if freeze(trial.config) == freeze(study.winner)), None)
    return PaperTable(
        label=table_label(run),
        caption=f"{run.spec.name}: search for the best {title}, {study.epochs_used} of {study.plan.budget_epochs} "
        f"epochs, {counted(len(study.trials), 'training')}. {made_by(run)}",
        columns=columns,
        rows=tuple(
            tuple(_row(study, place, trial, is_winner=trial is winner))
            for place, trial in enumerate(trials, start=1)
        ),
        notes=tuple(_notes(study, len(trials))),
        most_shown=_SHOWN,
    )


def _row(study: SearchStudy, place: int, trial: SearchTrial, *, is_winner: bool) -> Iterator[str | Figure]:
    fresh = study.fresh
    pick = max if study.plan.maximize else min
    yield from run_cells(study.run)
    yield Figure(place)
    yield from factor_cells(trial.config, study.plan.space)
    yield "paused at the budget's end" if is_left(trial) else trial.status
    yield Figure(trial.epochs)
    yield Figure(pick(trial.values))
    yield Figure(fresh.mean, fresh.low, fresh.high, len(fresh.values)) if is_winner else Figure(None)


def _notes(study: SearchStudy, count: int) -> Iterator[str]:
    yield from caveat_sentences(study.caveats)
    if not count:
        yield "No training reported a value."
        return
    yield (
        "In the search: the best epoch of one training. The best of many is partly luck, so these values are too good, "
        "and nothing is bold."
    )
    fresh = study.fresh
    if fresh.low is not None:
        yield (
            f"On fresh seeds: mean of the best epochs of n = {len(fresh.values)} trainings, with its "
            f"{100 * CONFIDENCE:.0f} % interval by Student's t."
        )
    elif fresh.mean is not None:
        yield "On fresh seeds: the best epoch of one training, without an interval."
    else:
        yield "The winner has not been trained on fresh seeds."
    if count > _SHOWN:
        yield f"The best {_SHOWN} of {count}."
