"""The result of a gate or of a comparison of stored results: one object that every output renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusetune.bench.gate.measured import Comparison
from fusetune.bench.gate.verdict import Outcome


@dataclass(frozen=True)
class Side:
    """One of the two sides.

    Args:
        name: as the user gave it: a revision, `working tree`, or the path of a stored result.
        commit: full hash; None: not known.
        dirty: whether there were uncommitted changes; None: not known.
        machine: where it was measured, see `bench.machine.describe_machine`.
        versions: library -> version.
        environment: `shared`, or `own` where its dependencies differ from the other side's.
    """

    name: str
    commit: str | None = None
    dirty: bool | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    environment: str = "shared"


@dataclass(frozen=True)
class Row:
    """The verdict on one metric of one benchmark.

    Args:
        benchmark, metric: names. Metric `failure` is the correctness of the benchmark as a whole.
        comparison: how it was compared.
        outcome: the verdict.
        sentence: effect, interval, p, n and smallest detectable change in one sentence.
        unit, better: of the metric.
        base, head: typical values. Infinite for a missed target, None for what is missing.
        effect, low, high: relative change of head against base, with 95 % interval; None where there is none.
        p: one-sided; None for an exact comparison.
        n: pairs that the verdict rests on.
        detectable: smallest change for the worse that is found in 90 of 100 cases; None: not known.
        threshold: relative change from which on a difference counts.
        advice: what would make a `can't tell` clear. Else empty.
    """

    benchmark: str
    metric: str
    comparison: Comparison
    outcome: Outcome
    sentence: str
    unit: str = "s"
    better: str = "lower"
    base: float | None = None
    head: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    detectable: float | None = None
    threshold: float = 0.02
    advice: str = ""


@dataclass(frozen=True)
class GateResult:
    """All rows, with what was compared and what a reader must know first.

    Args:
        title: what was gated, e.g. the spec's path or the command.
        base, head: the two sides.
        rows: one for each benchmark and metric, in the order of the spec.
        notes: warnings, a sentence each: other versions, stand-in data, dirty trees, contention, Holm's correction.
        pairs: benchmark -> finished pairs.
        seconds: how long the measuring took.
        budget_s: how long it might have taken; None: no limit.
        directory: where raw pairs lie. Empty for stored results.
        kind: `gate`, `compare` or `self-test`.
    """

    title: str
    base: Side
    head: Side
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    pairs: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    budget_s: float | None = None
    directory: str = ""
    kind: str = "gate"

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the rows: regressed, missing, can't tell, pass, improved.

        A result without rows is `missing`. It is `improved` where a row is and all others pass.

        Example:
            >>> row = Row("digits", "step_time_s", "timing", "pass", "no change")
            >>> GateResult("digits.yaml", Side("main"), Side("working tree"), (row,)).outcome
            'pass'
        """
        found = {row.outcome for row in self.rows}
        order: tuple[Outcome, ...] = ("regressed", "missing", "can't tell", "improved", "pass")
        return next((outcome for outcome in order if outcome in found), "missing")
