"""The part of a page about `bench run`: what was asked, the answer, and sections that say why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fusetune.bench.page import Part, Section
from fusetune.bench.report.curves_section import curves
from fusetune.bench.report.devices_section import devices
from fusetune.bench.report.effects_section import effects
from fusetune.bench.report.memory_plot import memory
from fusetune.bench.report.page_parts import banners_of, reproduce, run_facts
from fusetune.bench.report.provenance import training_facts
from fusetune.bench.report.ranking_section import ranking
from fusetune.bench.report.trouble_sections import diagnosis, failures, surer
from fusetune.bench.results import Record
from fusetune.bench.spec import key_id
from fusetune.bench.stats import Summary, counted, recommendation_sentences

_SHORT = 60  # letters


def training_part(summary: Summary, records: Sequence[Record]) -> Part:
    """Return what a page says of trainings.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records, for curves and the table of trials.

    Example:
        >>> from fusetune.bench.results import RunInfo, WrittenSpec
        >>> from fusetune.bench.stats import summarize
        >>> run = RunInfo(spec=WrittenSpec({"name": "demo", "model": "mlp", "data": "digits"}))
        >>> part = training_part(summarize(run, []), [])
        >>> part.asked, part.answer
        ('How well does mlp learn digits?', 'No trial has finished, so there is nothing to recommend.')
    """
    answer, *more = recommendation_sentences(summary)
    if summary.recorded < summary.planned:
        left = summary.planned - summary.recorded
        more.append(f"{counted(left, 'trial')} of {summary.planned} not run yet, so the answer may change.")
    notes = tuple(("note", caveat.sentence) for caveat in summary.caveats if not caveat.is_banner)
    return Part(
        title=summary.run.spec.name,
        asked=asked(summary),
        answer=answer,
        more=" ".join(more),
        banners=banners_of(summary.caveats),
        facts=run_facts(summary.run, summary.directory, *_facts(summary), places=summary.places) + notes,
        sections=(*training_sections(summary, records), reproduce(summary.run)),
    )


def training_sections(summary: Summary, records: Sequence[Record]) -> tuple[Section, ...]:
    """Return the sections on trainings: ranking, curves, effects, devices, memory, diagnosis, failures, advice.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records.
    """
    return (
        ranking(summary, records),
        curves(summary, records),
        effects(summary, records),
        devices(summary),
        memory(summary, records),
        diagnosis(summary),
        failures(summary),
        surer(summary),
    )


def asked(summary: Summary) -> str:
    """Return what a run of trainings asks, as one question."""
    spec = summary.run.spec
    names = [key_id(name) for name in spec.levels]
    data = f" on {spec.data}"
    if not names:
        if summary.target:
            return f"How soon does {spec.model} reach {summary.target}{data}?"
        return f"How well does {spec.model} learn {spec.data}?"
    which = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    if summary.target:
        return f"With which {which} does {spec.model} reach {summary.target}{data} first?"
    return f"With which {which} does {spec.model} have the best validation accuracy{data}?"


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield the facts of the terminal's report. Lines that continue one are joined."""
    joined: dict[str, list[str]] = {}
    last = ""
    for name, text in training_facts(summary):
        last = name or last
        joined.setdefault(last, []).append(text)
    pairs = [(name, "; ".join(parts)) for name, parts in joined.items()]
    # Long texts come last, so that the short ones stand beside each other.
    yield from sorted(pairs, key=lambda pair: len(pair[1]) > _SHORT)
