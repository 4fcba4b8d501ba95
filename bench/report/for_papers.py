"""The ranking of `bench run` as a table for a paper, and what the tables of all kinds of runs share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fusetune.bench.paper import Column, Figure, Mark, PaperTable
from fusetune.bench.results import RunInfo
from fusetune.bench.stats import (
    STATUS_WORDS,
    Caveat,
    Configuration,
    Summary,
    configuration_label,
    counted,
    label,
    percent,
)
from fusetune.bench.units import METRICS
from fusetune.tuner.measure import CONTENDED

_MOST_FAILED = 4


def training_table(summary: Summary) -> PaperTable:
    """Return the ranking: medians over seeds with [min, max], and which places the data can tell apart.

    Only the metric that the tests compare can have its first place in bold, and only where they tell it from all.

    Args:
        summary: from `bench.stats.summarize`.
    """
    configurations = summary.configurations
    shown: tuple[str, ...] = (
        "time_to_target_s",
        "steps_to_target",
        "step_time_s",
        summary.score_metric,
        "peak_bytes",
    )
    if summary.target is None:
        shown = (summary.score_metric, "steps", "step_time_s", "peak_bytes")
    known = [name for name in METRICS if any(name in each.metrics for each in configurations)]
    metrics = [*(name for name in shown if name in known), *(name for name in known if name not in shown)]
    names = [*(configurations[0].factors if configurations else ())]
    run = summary.run
    columns = (
        *run_columns(),
        Column("rank", "rank", ""),
        Column("told_from_first", "told from the first", is_data=True),
        Column("p_adjusted", "p", "", is_data=True),
        *factor_columns(names),
        Column("is_baseline", "baseline", is_data=True),
        Column("n", "n", ""),
        *([Column("reached", "reached", "")] if summary.target else []),
        Column("statuses", "statuses", is_data=True),
        Column("contended", "contended", "", is_data=True),
        *(
            Column(name, METRICS[name].title, METRICS[name].unit, ("min", "max"), is_data=name not in shown)
            for name in metrics
        ),
    )
    return PaperTable(
        label=table_label(run),
        caption=_caption(summary),
        columns=columns,
        rows=tuple(tuple(_row(summary, each, metrics)) for each in configurations),
        notes=tuple(_notes(summary, [name for name in metrics if name in shown])),
    )


def table_label(run: RunInfo) -> str:
    """Return what references name a run's table by."""
    return f"tab:{run.spec.name}-{run.run_id}"


def run_columns() -> tuple[Column, ...]:
    """Return the columns of CSV that say where a row is from. `run_cells` fills them."""
    return (
        Column("run", "run", is_data=True),
        Column("spec", "spec", is_data=True),
        Column("stand_in", "stand-in", is_data=True),
    )


def run_cells(run: RunInfo) -> tuple[str, ...]:
    """Return the cells of `run_columns`."""
    return run.run_id, run.spec.name, run.stand_in or ""


def factor_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """Return a column of texts for each factor. In CSV it is called as in the tables of `fusetune.load`."""
    return tuple(Column(f"factor.{name}", name.replace("_", " ")) for name in names)


def factor_cells(factors: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Return the cells of `factor_columns`."""
    return tuple(label(factors[name]) if name in factors else "" for name in names)


def made_by(run: RunInfo) -> str:
    """Return the sentence of a caption on where the numbers are from."""
    where = run.machine.device_name or run.device
    commit = (
        f", commit {run.commit[:12]}{' with uncommitted changes' if run.dirty else ''}" if run.commit else ""
    )
    return f"Run {run.run_id}{f' on {where}' if where else ''}{commit}."


def caveat_sentences(caveats: Sequence[Caveat]) -> tuple[str, ...]:
    """Return every caveat as a note, banners such as those on stand-in data first."""
    return tuple(caveat.sentence for caveat in caveats)


def _caption(summary: Summary) -> str:
    run, spec = summary.run, summary.run.spec
    target = str(summary.target).replace(">=", "≥").replace("<=", "≤")
    what = f"time to {target}" if summary.target else METRICS[summary.score_metric].title
    return (
        f"{spec.name}: {counted(len(summary.configurations), 'configuration')} by {what}, {spec.model} on "
        f"{', '.join(run.data) or spec.data}. {made_by(run)}"
    )


def _row(summary: Summary, configuration: Configuration, metrics: Sequence[str]) -> Iterator[str | Figure]:
    comparison = (
        next((each for each in summary.first.comparisons if each.rank == configuration.rank), None)
        if summary.first
        else None
    )
    marks: list[Mark] = []
    if comparison is not None:
        marks.append("behind" if comparison.verdict == "pass" else "tie")
    if configuration.is_baseline:
        marks.append("baseline")
    yield from run_cells(summary.run)
    yield Figure(configuration.rank, marks=tuple(marks))
    yield "" if comparison is None else str(comparison.verdict == "pass").lower()
    yield Figure(None if comparison is None else comparison.p)
    yield from factor_cells(configuration.factors, configuration.factors)
    yield str(configuration.is_baseline).lower()
    yield Figure(configuration.n)
    if summary.target:
        yield Figure(configuration.reached)
    yield " ".join(f"{status}={count}" for status, count in configuration.statuses.items())
    yield Figure(configuration.contended)
    best = _compared(summary) if configuration.rank == 1 and _can_tell(summary) else None
    for metric in metrics:
        spread = configuration.metrics.get(metric)
        if spread is None:
            yield Figure(None)
            continue
        is_contended = configuration.contended and metric in ("step_time_s", "time_to_target_s")
        yield Figure(
            spread.median,
            spread.low if spread.n > 1 else None,
            spread.high if spread.n > 1 else None,
            spread.n,
            marks=("contended",) if is_contended else (),
            is_best=metric == best,
        )


def _can_tell(summary: Summary) -> bool:
    """Whether tests tell the first place from every other."""
    return summary.first is not None and summary.first.verdict == "pass"


def _compared(summary: Summary) -> str:
    """Return the metric that the tests of the first place compare."""
    reached = bool(summary.configurations and summary.configurations[0].reached)
    return "time_to_target_s" if summary.target and reached else summary.score_metric


def _notes(summary: Summary, shown: Sequence[str]) -> Iterator[str]:
    """Explain brackets, bold and marks, as far as they occur, after what a reader must know first."""
    configurations = summary.configurations
    yield from caveat_sentences(summary.caveats)
    if not configurations:
        yield "No trial has finished."
        return
    if any(each.n > 1 for each in configurations):
        yield "Medians over n seeds with [min, max], which are left out where they print as the median."
    if any(each.n == 1 for each in configurations):
        yield "With one seed, the spread between seeds is unknown."
    if summary.target and any(0 < (each.reached or 0) < each.n for each in configurations):
        yield "A seed that missed the target counts as ∞."
    yield from _test_notes(summary)
    if any(each.is_baseline for each in configurations):
        yield "* the spec's own configuration."
    if any(each.contended for each in configurations) and "step_time_s" in shown:
        yield f"‡ contended: others had more than {percent(CONTENDED)} of the processor in a trial."
    failed = [each for each in configurations if set(each.statuses) - {"ok"}]
    for each in failed[:_MOST_FAILED]:
        counts = ", ".join(f"{count} {STATUS_WORDS[status]}" for status, count in each.statuses.items())
        yield f"{configuration_label(each.factors)}: {counts}."
    if len(failed) > _MOST_FAILED:
        yield f"{len(failed) - _MOST_FAILED} more configurations have trials that were not ok."


def _test_notes(summary: Summary) -> Iterator[str]:
    """Say what the tests of the first place came to."""
    first = summary.first
    if first is None:
        return
    title = METRICS[_compared(summary)].title
    marks = [
        *(["† behind it (p ≤ 0.05)"] if any(each.verdict == "pass" for each in first.comparisons) else []),
        *(["~ not told from it"] if first.verdict != "pass" else []),
    ]
    yield (
        f"Compared with the first place by exact Mann-Whitney tests of the {title} over all pairs, with Holm's "
        f"correction: {', '.join(marks)}."
    )
    if first.verdict == "pass":
        yield "Bold: told from every other configuration by these tests."
    elif first.n < first.least_n:
        yield f"With n = {first.n}, no first place can be told from the others. That needs n = {first.least_n}."
    else:
        yield "Nothing is bold, because these data cannot tell the first place from every other."
