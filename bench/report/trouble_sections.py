"""What went wrong in trainings, what their curves say, and what would make the answer surer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fusetune.bench.page import Block, Cell, Column, Command, DataTable, Items, Prose, Section
from fusetune.bench.spec import freeze
from fusetune.bench.stats import (
    STATUS_WORDS,
    Diagnosis,
    Summary,
    Trouble,
    configuration_label,
    counted,
    missing,
    what_would_make_it_surer,
)
from fusetune.bench.units import format_metric


def diagnosis(summary: Summary) -> Section:
    """Return what the curves of each configuration say is wrong, with the numbers that show it and what to try."""
    if not summary.diagnoses:
        return Section("diagnosis", ())
    ranks = {freeze(c.factors): c.rank for c in summary.configurations}
    columns = (
        Column("#", numeric=True, meaning="Rank of the configuration"),
        Column("configuration"),
        Column("finding: what shows it, and what to try"),
    )
    rows = tuple(_finding(ranks[freeze(each.factors)], each) for each in summary.diagnoses)
    concerned = len({freeze(each.factors) for each in summary.diagnoses})
    lead = (
        f"{counted(len(rows), 'finding')} in {concerned} of {counted(len(summary.configurations), 'configuration')}. "
        "The numbers are those of the first seed with the finding."
    )
    first = [each for each in summary.diagnoses if ranks[freeze(each.factors)] == 1]
    words = tuple(f"The first place, {each.title}: {each.sentence} {each.try_next}" for each in first)
    table = DataTable("Findings by configuration", columns, rows)
    return Section("diagnosis", (*((Items(words),) if words else ()), table), lead)


def _finding(rank: int, found: Diagnosis) -> tuple[Cell, ...]:
    evidence = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.evidence.items())
    surely = ", ".join(filter(None, [found.confidence, f"{len(found.seeds)}/{found.n} seeds"]))
    figures = f"{surely}. {evidence}" if evidence else surely
    return (
        Cell(str(rank), rank),
        Cell(configuration_label(found.factors)),
        Cell(f"{found.title}: {found.sentence} {found.try_next}", None, figures),
    )


def failures(summary: Summary) -> Section:
    """Return the trials that diverged, ran out of memory or failed, with their reasons."""
    troubles = summary.troubles
    if not troubles:
        return Section("failures", ())
    with_bytes = any(trouble.wanted_bytes is not None for trouble in troubles)
    columns = (
        Column("status"),
        Column("configuration"),
        Column("seeds"),
        *((Column("wanted of limit", numeric=True),) if with_bytes else ()),
        Column("why"),
    )
    rows = tuple(_trouble(trouble, with_bytes=with_bytes) for trouble in troubles)
    count = sum(len(trouble.seeds) for trouble in troubles)
    lead = f"{counted(count, 'trial')} of {summary.recorded} could not be trained to the end."
    return Section("failures", (DataTable("Not trained to the end", columns, rows),), lead)


def _trouble(trouble: Trouble, *, with_bytes: bool) -> tuple[Cell, ...]:
    cells = [
        Cell(STATUS_WORDS[trouble.status], tone="bad" if trouble.status == "failed" else "note"),
        Cell(configuration_label(trouble.factors)),
        Cell(", ".join(map(str, trouble.seeds))),
    ]
    if with_bytes:
        wanted = format_metric("wanted_bytes", trouble.wanted_bytes)
        limit = format_metric("limit_bytes", trouble.limit_bytes)
        cells.append(Cell(wanted, trouble.wanted_bytes, "" if limit == "-" else f"of {limit}"))
    return (*cells, Cell(trouble.reason or "no reason recorded"))


def surer(summary: Summary) -> Section:
    """Return what would make the answer surer, and what is still to run, with the commands."""
    return Section("surer", (*_advice(what_would_make_it_surer(summary)), *_advice(missing(summary))))


def _advice(lines: Sequence[str]) -> Iterator[Block]:
    """Yield each piece of advice. A command in it stands on lines of its own."""
    for line in lines:
        words, _, command = line.partition("\n")
        yield Prose(words) if command else Items((words,))
        if command:
            yield Command(command)
