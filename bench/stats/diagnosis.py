"""The diagnoses of a configuration, merged over its seeds (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusetune.bench.results import Record


@dataclass(frozen=True)
class Diagnosis:
    """One finding about one configuration.

    Args:
        factors: the configuration's factors.
        title: the finding in a few words.
        sentence: the evidence from the first seed with the finding.
        try_next: advice.
        seeds: seeds of the trials with the finding.
        n: number of recorded trials.
        evidence: name -> number, of the first seed with the finding.
        confidence: `sure` or `likely`, of the first seed with the finding. Empty if the record lacks it.
    """

    factors: dict[str, Any]
    title: str
    sentence: str
    try_next: str
    seeds: tuple[int, ...]
    n: int
    evidence: Mapping[str, float] = field(default_factory=dict)
    confidence: str = ""


def merge(records: Sequence[Record]) -> list[Diagnosis]:
    """Return one configuration's findings, merged by name, with the most frequent first.

    Args:
        records: records that differ only in the seed, in the order of their seeds.

    Example:
        >>> finding = {"name": "overfitting", "title": "overfitting", "sentence": "It turns.", "try_next": "Stop."}
        >>> records = [Record("a", {}, 0, "ok"), Record("b", {}, 1, "ok", findings=[finding])]
        >>> [(diagnosis.title, diagnosis.seeds, diagnosis.n) for diagnosis in merge(records)]
        [('overfitting', (1,), 2)]
    """
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for record in records:
        for finding in record.findings:
            found.setdefault(finding["name"], []).append((record.seed, finding))
    merged = [
        Diagnosis(
            records[0].factors,
            cases[0][1]["title"],
            cases[0][1]["sentence"],
            cases[0][1]["try_next"],
            tuple(seed for seed, _ in cases),
            len(records),
            cases[0][1].get("evidence") or {},
            cases[0][1].get("confidence") or "",
        )
        for cases in found.values()
    ]
    return sorted(merged, key=lambda diagnosis: -len(diagnosis.seeds))
