"""Tunings as a table for a paper: what the fastest launch config gains over the default."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fusetune.bench.autotune.confirmation import RISK
from fusetune.bench.autotune.records import TuningsStudy
from fusetune.bench.autotune.run import config_text
from fusetune.bench.autotune.tuning import Tuning
from fusetune.bench.paper import Column, Figure, PaperTable
from fusetune.bench.report import made_by, run_cells, run_columns, table_label
from fusetune.bench.stats import counted


def tunings_table(study: TuningsStudy) -> PaperTable:
    """Return a row for each case. A gain is in bold where the test replaced the default.

    Args:
        study: from `study_tunings`.
    """
    run = study.run
    columns = (
        *run_columns(),
        Column("case", "kernel"),
        Column("default", "default"),
        Column("fastest", "fastest"),
        Column("winner", "to use", is_data=True),
        Column("configs", "configs", ""),
        Column("is_replaced", "replaced", is_data=True),
        Column("gain", "gain", "none", ("low", "high")),
        Column("p", "p", "none"),
    )
    return PaperTable(
        label=table_label(run),
        caption=f"Launch configs of {counted(len(study.tunings), 'case')}. {made_by(run)}",
        columns=columns,
        rows=tuple((*run_cells(run), *_row(tuning)) for tuning in study.tunings),
        notes=tuple(_notes(study)),
    )


def _row(tuning: Tuning) -> Iterator[str | Figure]:
    found = tuning.confirmation
    fastest = next((each.config for each in tuning.candidates if each.outcome == "fastest"), None)
    yield tuning.case.name
    yield config_text(tuning.default)
    yield "–" if fastest is None else config_text(fastest)
    yield config_text(tuning.winner)
    yield Figure(len(tuning.candidates))
    yield str(tuning.is_replaced).lower()
    if found is None or not found.defaults_s or math.isnan(found.gain):
        yield Figure(None)
        yield Figure(None)
        return
    has_ends = not math.isnan(found.low)
    yield Figure(
        found.gain,
        found.low if has_ends else None,
        found.high if has_ends else None,
        len(found.defaults_s),
        marks=() if tuning.is_replaced else ("tie",),
        is_best=tuning.is_replaced,
    )
    yield Figure(None if math.isnan(found.p) else found.p)


def _notes(study: TuningsStudy) -> Iterator[str]:
    if any(tuning.confirmation is not None for tuning in study.tunings):
        yield "Gain: time of the default over that of the fastest, over fresh paired rounds, with its 95 % interval."
    if any(tuning.is_replaced for tuning in study.tunings):
        yield f"Bold: the signed-rank test replaced the default. It does so by chance in at most {100 * RISK:g} %."
    if any(tuning.confirmation is not None and not tuning.is_replaced for tuning in study.tunings):
        yield "~ the rounds cannot tell the two configs apart, so the default stays."
    for tuning in study.tunings:
        if tuning.status != "ok":
            yield f"{tuning.case.name}: {tuning.status}{f', {tuning.reason}' if tuning.reason else ''}."
        yield from (f"{tuning.case.name}: {note}" for note in tuning.notes)
