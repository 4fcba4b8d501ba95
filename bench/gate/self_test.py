"""The gate's self-test: a revision against itself. What would the gate say on this machine, and how often wrongly?

Both sides are the same code, so each difference that it reports is a false alarm. The finished pairs tell besides what
noise there is between processes, and which slowdown the gate would find within its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fusetune.bench.gate.decision import LOOKS, decide, noise_and_power
from fusetune.bench.gate.estimators import Run
from fusetune.bench.gate.judging import judge
from fusetune.bench.gate.measured import Measured, Pair
from fusetune.bench.gate.rules import Rules
from fusetune.bench.gate.verdict import Outcome
from fusetune.errors import InvalidValueError

RELABELLINGS = 200
# Planted where so few pairs find no slowdown.
_CERTAIN = 1.0


@dataclass(frozen=True)
class SelfTestRow:
    """What the self-test found on one timing of one benchmark.

    Args:
        benchmark, metric: names.
        pairs: finished pairs of the revision with itself.
        seconds: that a pair took, on average.
        noise: standard deviation between processes, as a relative change.
        alarms: relabellings of the pairs in which the gate saw a difference. Any is false.
        relabellings: how many there were.
        affordable: pairs that the budget has room for, at most those of the last look.
        detectable: the smallest slowdown that so many pairs find in 90 of 100 gates; None: they find none.
        planted: the slowdown that was planted to see the outcomes.
        reached: outcome -> whether the gate said so, for a planted slowdown, a speedup, a lost metric, and nothing.
    """

    benchmark: str
    metric: str
    pairs: int
    seconds: float
    noise: float
    alarms: int
    relabellings: int
    affordable: int
    detectable: float | None
    planted: float
    reached: dict[Outcome, bool]

    @property
    def alarm_rate(self) -> float:
        """The share of false alarms."""
        return self.alarms / self.relabellings


@dataclass(frozen=True)
class SelfTest:
    """A self-test that is over.

    Args:
        rows: one for each timing of each benchmark.
        budget_s: time that a gate of the same benchmarks has.
        seconds: how long measuring took.
        directory: where the raw pairs lie.
        notes: what a reader must know first.
    """

    rows: tuple[SelfTestRow, ...]
    budget_s: float
    seconds: float = 0.0
    directory: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object.

        Example:
            >>> SelfTest((), 600.0).as_dict()["kind"]
            'self-test'
        """
        return {"schema_version": 1, "kind": "self-test", **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SelfTest:
        """Read the JSON object. Raises KeyError, TypeError or ValueError when it is none.

        Example:
            >>> SelfTest.from_dict(SelfTest((), 600.0).as_dict()) == SelfTest((), 600.0)
            True
        """
        rows = tuple(SelfTestRow(**row) for row in content["rows"])
        notes = tuple(map(str, content["notes"]))
        return cls(
            rows, float(content["budget_s"]), float(content["seconds"]), str(content["directory"]), notes
        )


def study_self_test(
    pairs: Iterable[Pair], rules: Rules, budget_s: float | None, *, relabellings: int = RELABELLINGS
) -> tuple[SelfTestRow, ...]:
    """Study the pairs of a revision with itself.

    A relabelling swaps the sides of a random half of the pairs and asks `decide` again. Each is a gate that might have
    been, since the two sides are the same code.

    Args:
        pairs: of one revision with itself, at least two of each benchmark.
        rules: thresholds and directions.
        budget_s: time that a gate has for each benchmark; None: no limit.
        relabellings: how many are drawn. The seed is fixed.

    Returns:
        A row for each timing of each benchmark.

    Raises:
        InvalidValueError: a benchmark with fewer than two pairs.

    Example:
        >>> from fusetune.bench.gate import Metric
        >>> side = lambda i: Measured({"step_time_s": Metric((1 + 0.001 * (i * 7 % 10),))}, seconds=30.0)
        >>> pairs = [Pair("digits", i, base=side(i), head=side(3 * i)) for i in range(10)]
        >>> row, = study_self_test(pairs, Rules(), budget_s=600, relabellings=20)
        >>> row.alarms, row.affordable, row.reached["regressed"], row.reached["pass"]
        (0, 10, True, True)
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.benchmark, []).append(pair)
    rows: list[SelfTestRow] = []
    for benchmark, group in groups.items():
        if len(group) < 2:
            raise InvalidValueError(
                f"self-test: {benchmark}",
                "has one pair",
                "noise takes at least two",
                "Give it more --minutes",
            )
        metrics = dict.fromkeys(name for pair in group for name in pair.base.metrics)
        rows += [
            _row(group, metric, rules, budget_s, relabellings)
            for metric in metrics
            if _is_timing(group, metric)
        ]
    return tuple(rows)


def _row(
    group: Sequence[Pair], metric: str, rules: Rules, budget_s: float | None, relabellings: int
) -> SelfTestRow:
    """Study one timing."""
    benchmark = group[0].benchmark
    threshold = rules.threshold(benchmark, metric, group[0].base.metrics[metric])
    base = [_run(pair.base, metric) for pair in group]
    head = [_run(pair.head, metric) for pair in group]
    seconds = sum(pair.base.seconds + pair.head.seconds for pair in group) / len(group)
    most = LOOKS[-1].pairs
    affordable = most if budget_s is None or not seconds else min(most, int(budget_s / seconds))
    noise, detectable = noise_and_power(base, head, affordable, threshold=threshold)
    # Twice what is found in 9 of 10 cases is found nearly always.
    planted = 2 * (detectable or _CERTAIN)
    return SelfTestRow(
        benchmark,
        metric,
        len(group),
        seconds,
        noise,
        _alarms(base, head, threshold, relabellings),
        relabellings,
        affordable,
        detectable,
        planted,
        _reached(group, metric, rules, planted),
    )


def _is_timing(group: Sequence[Pair], metric: str) -> bool:
    """Whether every process has the metric as a timing."""
    sides = [side for pair in group for side in (pair.base, pair.head)]
    return all(metric in side.metrics and side.metrics[metric].comparison == "timing" for side in sides)


def _run(side: Measured, metric: str) -> Run:
    """Return the rounds of one process as times. A rate becomes its reciprocal."""
    found = side.metrics[metric]
    return {
        "wall": [1 / value if found.better == "higher" else value for value in found.values],
        "ref": side.ref,
    }


def _alarms(base: Sequence[Run], head: Sequence[Run], threshold: float, relabellings: int) -> int:
    """Count the relabellings in which the gate sees a difference."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(relabellings):
        order = rng.permutation(len(base))[: LOOKS[-1].pairs]
        swapped = rng.random(len(base)) < 0.5
        sides = [(head[i], base[i]) if swapped[i] else (base[i], head[i]) for i in order]
        verdict = decide([b for b, _ in sides], [h for _, h in sides], staged=True, threshold=threshold)
        alarms += verdict.outcome in ("regressed", "improved")
    return alarms


def _reached(group: Sequence[Pair], metric: str, rules: Rules, planted: float) -> dict[Outcome, bool]:
    """Plant what each outcome stands for into head, and ask the gate."""

    def outcome(change: Callable[[Measured], Measured], row: str = metric) -> Outcome:
        changed = [replace(pair, head=change(pair.head)) for pair in group[: LOOKS[-1].pairs]]
        return next(found.outcome for found in judge(changed, rules) if found.metric == row)

    def scaled(factor: float) -> Callable[[Measured], Measured]:
        def scale(side: Measured) -> Measured:
            found = side.metrics[metric]
            by = 1 / factor if found.better == "higher" else factor
            slower = replace(found, values=tuple(value * by for value in found.values))
            return replace(side, metrics={**side.metrics, metric: slower})

        return scale

    def without(side: Measured) -> Measured:
        return replace(side, metrics={name: m for name, m in side.metrics.items() if name != metric})

    return {
        "regressed": outcome(scaled(1 + planted)) == "regressed",
        "improved": outcome(scaled(1 / (1 + planted))) == "improved",
        "missing": outcome(without) == "missing",
        "pass": outcome(lambda side: side) == "pass",
    }
