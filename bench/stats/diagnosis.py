"""The diagnoses of a configuration, merged over its seeds (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """

    factors: dict[str, Any]
    title: str
    sentence: str
    try_next: str
    seeds: tuple[int, ...]
    n: int


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
        )
        for cases in found.values()
    ]
    return sorted(merged, key=lambda diagnosis: -len(diagnosis.seeds))
