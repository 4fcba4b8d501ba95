"""What several devices made of the throughput of one, on a page."""

from __future__ import annotations

from fusetune.bench.page import Cell, Column, DataTable, Section
from fusetune.bench.report.training_texts import SCALING_HEADINGS, scaling_cells, scaling_notes
from fusetune.bench.stats import Scaling, Summary, configuration_label


def devices(summary: Summary) -> Section:
    """Return the scaling of each configuration on several devices. Without any there is no section.

    Args:
        summary: from `bench.stats.summarize`.
    """
    if not summary.scaling:
        return Section("devices", ())
    columns = (Column("configuration"), *(Column(name, numeric=True) for name in SCALING_HEADINGS))
    rows = tuple(_row(scaling) for scaling in summary.scaling)
    table = DataTable("Scaling by configuration", columns, rows)
    return Section("devices", (table,), " ".join(scaling_notes(summary)))


def _row(scaling: Scaling) -> tuple[Cell, ...]:
    values = (
        scaling.devices,
        scaling.samples_per_s,
        scaling.efficiency,
        scaling.communication_share,
        scaling.overlap,
    )
    cells = zip(scaling_cells(scaling), values, strict=True)
    return (Cell(configuration_label(scaling.factors)), *(Cell(text, value) for text, value in cells))
