"""The part of a page about `bench run`: its ranking, curves, effects, diagnosis and failures."""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.bench.page import Cell, Column, DataTable, Part, Section
from fusetune.bench.report.page_parts import banners_of, reproduce, run_facts
from fusetune.bench.results import Record
from fusetune.bench.stats import (
    Configuration,
    Summary,
    configuration_label,
    recommendation_sentences,
    undecided,
)
from fusetune.bench.units import METRICS, format_metric

_METRICS = ("time_to_target_s", "steps_to_target", "step_time_s", "samples_per_s", "peak_bytes")


def training_part(summary: Summary, records: Sequence[Record]) -> Part:
    """Return what a page says of trainings.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records, for curves.
    """
    spec = summary.run.spec
    factors = ", ".join(name.replace("_", " ") for name in spec.levels) or "configuration"
    answer, *more = recommendation_sentences(summary)
    goal = f"reaches {summary.target} first" if summary.target else "has the best validation accuracy"
    return Part(
        title=spec.name,
        asked=f"Which {factors} {goal}?",
        answer=answer,
        more=" ".join(more),
        banners=banners_of(summary.caveats),
        facts=run_facts(summary.run, summary.directory, ("model", spec.model)),
        sections=(_ranking(summary), reproduce(summary.run)),
    )


def _ranking(summary: Summary) -> Section:
    configurations = summary.configurations
    if not configurations:
        return Section("ranking", ())
    metrics = [
        metric
        for metric in (*_METRICS, summary.score_metric)
        if any(metric in c.metrics for c in configurations)
    ]
    columns = (
        Column("#", numeric=True),
        Column("configuration"),
        *(Column(METRICS[metric].title, numeric=True) for metric in metrics),
    )
    rows = tuple(_row(summary, configuration, metrics) for configuration in configurations)
    return Section("ranking", (DataTable("Configurations by rank", columns, rows, frozenset({0})),))


def _row(summary: Summary, configuration: Configuration, metrics: Sequence[str]) -> tuple[Cell, ...]:
    tie = "~" if configuration.rank in undecided(summary) else ""
    cells = [
        Cell(f"{tie}{configuration.rank}", configuration.rank),
        Cell(configuration_label(configuration.factors)),
    ]
    for metric in metrics:
        spread = configuration.metrics.get(metric)
        cells.append(
            Cell(format_metric(metric, spread.median if spread else None), spread.median if spread else None)
        )
    return tuple(cells)
