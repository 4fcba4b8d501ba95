"""LR range tests as a table for a paper: the suggested rates with their intervals."""

from __future__ import annotations

from collections.abc import Iterator

from fusetune.bench.learning_rate.study import LRStudy, Tested
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
from fusetune.bench.results import RangeTestOptions
from fusetune.bench.stats import counted

_RATES = {
    "suggested_lr": "rate to use",
    "lr_low": "cycle from",
    "lr_high": "cycle to",
    "divergence_lr": "diverges at",
}


def learning_rate_table(study: LRStudy) -> PaperTable:
    """Return a row for each test, in the order of the records. It is no ranking, so nothing is bold.

    Args:
        study: from `study_learning_rates`.
    """
    run, tested = study.run, study.tested
    options = RangeTestOptions.from_dict(run.options)
    names = list(dict.fromkeys(name for test in tested for name in test.record.factors))
    columns = (
        *run_columns(),
        *factor_columns(names),
        Column("seed", "seed", ""),
        Column("status", "status", is_data=True),
        Column("reason", "reason", is_data=True),
        Column("range_lr", "suggested", "none", ("low", "high")),
        *(Column(name, title, "none") for name, title in _RATES.items()),
    )
    return PaperTable(
        label=table_label(run),
        caption=f"{run.spec.name}: learning rates by LR range tests, {counted(options.repeats, 'sweep')} of "
        f"{options.steps} steps from {options.lr_min:g} to {options.lr_max:g}. {made_by(run)}",
        columns=columns,
        rows=tuple(tuple(_row(study, test, names)) for test in tested),
        notes=tuple(_notes(study)),
    )


def _row(study: LRStudy, test: Tested, names: list[str]) -> Iterator[str | Figure]:
    values = test.values
    yield from run_cells(study.run)
    yield from factor_cells(test.record.factors, names)
    yield Figure(test.record.seed)
    yield test.record.status
    yield test.record.reason
    yield Figure(values.get("range_lr"), values.get("lr_interval_low"), values.get("lr_interval_high"))
    yield from (Figure(values.get(name)) for name in _RATES)


def _notes(study: LRStudy) -> Iterator[str]:
    yield from caveat_sentences(study.caveats)
    if not study.tested:
        yield "No test has finished."
        return
    yield "Suggested: the rate of the range test, with its 95 % interval."
    if any(test.outcome.confirm_lrs is not None for test in study.tested):
        yield "Rate to use: the best of short trainings around the suggestion."
    for test in study.tested:
        if "range_lr" not in test.values:
            yield f"{test.label}: {test.record.reason or 'no suggestion'}."
