"""Batch sizes as a table for a paper: memory and throughput of each size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fusetune.bench.batch_size.measurements import MeasuredStudy, Measurements
from fusetune.bench.batch_size.study import ConfigurationStudy, SizeRow
from fusetune.bench.batch_size.wording import answer, devices_sentences
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
from fusetune.bench.stats import percent
from fusetune.tuner.batch_size import Throughput
from fusetune.tuner.measure import is_contended

_STATUS = {"ok": "fits", "out_of_memory": "does not fit", "failed": "failed", "predicted": "not tried"}


@dataclass(frozen=True)
class _Size:
    """A batch size of a configuration, as far as it is known."""

    configuration: ConfigurationStudy
    batch_size: int
    memory: SizeRow | None
    rate: Throughput | None
    is_recommended: bool


def batch_size_table(found: MeasuredStudy) -> PaperTable:
    """Return a row for each batch size of each configuration. It is no ranking, so nothing is bold.

    Args:
        found: from `study_measured`.
    """
    study = found.study
    run = study.run
    names = list(dict.fromkeys(name for each in study.configurations for name in each.factors))
    columns = (
        *run_columns(),
        *factor_columns(names),
        Column("batch_size", "batch size", "count"),
        Column("status", "under the limit"),
        Column("is_recommended", "recommended", is_data=True),
        Column("predicted_bytes", "tensors, predicted", "bytes"),
        Column("needed_bytes", "needed, measured", "bytes"),
        Column("limit_bytes", "limit", "bytes", is_data=True),
        Column("step_time_s", "step time", "s"),
        Column("samples_per_s", "throughput", "samples/s", ("low", "high")),
    )
    sizes = [
        size
        for configuration, measured in zip(study.configurations, found.measurements, strict=True)
        for size in _sizes(configuration, measured)
    ]
    return PaperTable(
        label=table_label(run),
        caption=f"{run.spec.name}: batch sizes under a memory limit. {made_by(run)}",
        columns=columns,
        rows=tuple(
            (*run_cells(run), *factor_cells(each.configuration.factors, names), *_row(each)) for each in sizes
        ),
        notes=tuple(_notes(found, sizes)),
    )


def _sizes(configuration: ConfigurationStudy, measured: Measurements) -> Iterator[_Size]:
    rows = {row.batch_size: row for row in configuration.rows}
    rates = {rate.batch_size: rate for rate in measured.throughputs}
    recommended = measured.recommendation.batch_size if measured.recommendation else None
    for size in sorted(rows.keys() | rates.keys()):
        yield _Size(configuration, size, rows.get(size), rates.get(size), size == recommended)


def _row(size: _Size) -> Iterator[str | Figure]:
    memory, rate = size.memory, size.rate
    yield Figure(size.batch_size)
    yield _STATUS.get(memory.status, memory.status) if memory else "not tried"
    yield str(size.is_recommended).lower()
    yield Figure(memory.predicted_bytes if memory else None)
    # What a size that does not fit wanted is a lower bound, and no measurement of its need.
    yield Figure(memory.needed_bytes if memory and memory.status == "ok" else None)
    yield Figure(size.configuration.limit_bytes)
    yield Figure(rate.step_time_s if rate else None)
    yield Figure(rate.samples_per_s, rate.low, rate.high, len(rate.step_times_s)) if rate else Figure(None)


def _notes(found: MeasuredStudy, sizes: list[_Size]) -> Iterator[str]:
    study = found.study
    yield from caveat_sentences(study.caveats)
    for configuration, measured in zip(study.configurations, found.measurements, strict=True):
        yield _capitalized(answer(configuration, study))
        if measured.recommendation is not None:
            found_size = measured.recommendation
            yield f"Recommended: batch_size {found_size.batch_size}. {_capitalized(found_size.reason)}."
        yield from devices_sentences(measured)
        missing = measured.processor_missing
        if missing is not None and is_contended(missing):
            yield f"Contended: others used {percent(missing)} of the processor while steps were timed."
    if any(size.rate for size in sizes):
        yield "Throughput: samples of a step over its median time, with the 95 % interval over rounds."


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
