"""Rows of `bench kernels` as a table for a paper: latencies, shares of the limits, and speedups."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fusetune.bench.kernels.study import KernelsStudy, RowStudy, lost
from fusetune.bench.paper import Column, Figure, Mark, PaperTable
from fusetune.bench.report import caveat_sentences, made_by, run_cells, run_columns, table_label
from fusetune.bench.stats import counted
from fusetune.tuner.measure import is_contended


def kernels_table(study: KernelsStudy) -> PaperTable:
    """Return a row for each case. Speedups that the rounds cannot tell from 1 have a `~`, and nothing is bold.

    Args:
        study: from `study_rows`.
    """
    run = study.run
    others = list(dict.fromkeys(name for row in study.rows for name in row.speedups or {}))
    columns = (
        *run_columns(),
        Column("name", "kernel"),
        Column("latency_s", "latency", "s", ("p20", "p80")),
        Column("bandwidth_bytes_per_s", "bandwidth", "bytes/s"),
        Column("share_of_copy", "of copy", "fraction"),
        Column("error", "error", "none"),
        *(Column(f"speedup_over_{name}", f"over {name}", "none", ("low", "high")) for name in others),
    )
    return PaperTable(
        label=table_label(run),
        caption=f"{run.spec.name}: {counted(len(study.rows), 'kernel benchmark')}. {made_by(run)}",
        columns=columns,
        rows=tuple(tuple(_row(study, row, others)) for row in study.rows),
        notes=tuple(_notes(study)),
    )


def _row(study: KernelsStudy, row: RowStudy, others: list[str]) -> Iterator[str | Figure]:
    latency, speedups = row.latency, row.speedups or {}
    contended = row.contention is not None and is_contended(row.contention)
    yield from run_cells(study.run)
    yield row.row.case.name
    if latency is None:
        yield Figure(None)
    else:
        marks: tuple[Mark, ...] = ("contended",) if contended else ()
        yield Figure(latency.median_s, latency.p20_s, latency.p80_s, latency.n, marks=marks)
    yield Figure(row.bytes_per_s)
    yield Figure(row.share_of_copy)
    error = row.verification.error if row.verification else math.inf
    yield Figure(error if math.isfinite(error) else None)
    for name in others:
        found = speedups.get(name)
        if found is None:
            yield Figure(None)
        else:
            yield Figure(
                found.value, found.low, found.high, found.n, marks=() if found.can_tell else ("tie",)
            )


def _notes(study: KernelsStudy) -> Iterator[str]:
    rows = [row for row in study.rows if row.is_ok]
    yield from caveat_sentences(study.caveats)
    if rows:
        policies = dict.fromkeys(row.row.policies[0].name for row in rows)
        yield f"Latency: median over rounds with the 20 % and 80 % quantiles. Clock: {'; '.join(policies)}."
        yield "Over: time of the other side over that of the kernel, median over paired rounds with its 95 % interval."
        yield "Error: against float64, relative to the scale of the tensor."
    if any(not each.can_tell for row in rows for each in (row.speedups or {}).values()):
        yield "~ the rounds cannot tell the two sides apart."
    if any(row.contention is not None and is_contended(row.contention) for row in rows):
        yield "‡ contended: others used the processor while the row was timed."
    for row in study.rows:
        if not row.is_ok:
            yield f"{row.row.case.name}: {lost(row.row.ours)}."
