"""The verdicts on finished pairs: a row for each metric of each benchmark.

Timings go to `decide`. Exact metrics are compared without statistics, and what was learned over paired seeds. Failures
and missing metrics come before any speed. All of it is pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fusetune.bench.gate.decision import LEAST_PAIRS, LOOKS
from fusetune.bench.gate.decision import decide as decide_timing
from fusetune.bench.gate.estimators import Run
from fusetune.bench.gate.measured import Measured, Metric, Pair
from fusetune.bench.gate.paired import PairedComparison, compare_pairs
from fusetune.bench.gate.result import GateResult, Row
from fusetune.bench.gate.rules import TIMING_THRESHOLD, Rules
from fusetune.bench.gate.verdict import Outcome, Verdict
from fusetune.bench.gate.wording import (
    counted,
    duration_text,
    metric_title,
    percent_text,
    sentence,
    value_text,
)
from fusetune.bench.stats import holm
from fusetune.tuner.measure import is_contended

FAILURE = "failure"
LEAST_SEEDS = 7
# The later looks of a staged decision have less of the level.
LEAST_SEEDS_STAGED = 10
HOLM_FROM = 12
_ALPHA_OF_ALL = 0.05
# The upper end of the interval with which `decide` passes, in thresholds.
_TOLERATED_THRESHOLDS = 2.5
# Quantiles of the normal distribution: 0.975 for an interval, 0.99 for a test.
_NORMAL_INTERVAL = 1.96
_NORMAL_TEST = 2.326
# Beyond this many more pairs, another benchmark or a quieter machine is the better advice.
_MOST_PAIRS = 100
_UNCLEAR: Outcome = "can't tell"


class Decide(Protocol):
    """The decision on timings, see `bench.gate.decision.decide`."""

    def __call__(
        self,
        base: Sequence[Run],
        head: Sequence[Run],
        *,
        staged: bool = False,
        threshold: float = TIMING_THRESHOLD,
    ) -> Verdict:
        """Compare two sides."""


@dataclass(frozen=True)
class _Compared:
    """One metric of one benchmark with what its verdict needs. `sides` are the pairs in which both have it."""

    benchmark: str
    metric: str
    pairs: Sequence[Pair]
    rules: Rules
    decide: Decide
    staged: bool

    @property
    def sides(self) -> list[tuple[Metric, Metric]]:
        """The metric on both sides of each pair that has both."""
        return [
            (pair.base.metrics[self.metric], pair.head.metrics[self.metric])
            for pair in self.pairs
            if self.metric in pair.base.metrics and self.metric in pair.head.metrics
        ]

    @property
    def both(self) -> list[Pair]:
        """The pairs of `sides`."""
        return [p for p in self.pairs if self.metric in p.base.metrics and self.metric in p.head.metrics]


def judge(
    pairs: Iterable[Pair],
    rules: Rules,
    *,
    decide: Decide = decide_timing,
    staged: bool = False,
) -> tuple[Row, ...]:
    """Judge finished pairs.

    Args:
        pairs: in any order.
        rules: thresholds and directions.
        decide: the decision on timings.
        staged: whether the pairs are looked at in stages, see `bench.gate.decision.LOOKS`.

    Returns:
        A row for each metric of each benchmark, in the order in which base and then head named them. A benchmark of
        which a process failed has a row `failure` before them.

    Raises:
        InputError: the rules name what was not measured.

    Example:
        >>> size = lambda value: Measured({"peak_bytes": Metric((value,), "bytes", comparison="exact")})
        >>> rows = judge([Pair("digits", 0, base=size(1024.0), head=size(2048.0))], Rules())
        >>> rows[0].outcome, rows[0].sentence
        ('regressed', 'Head has 2.00 KiB and base 1.00 KiB (+100 %), the same in every process (n = 1).')
    """
    by_benchmark: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_benchmark.setdefault(pair.benchmark, []).append(pair)
    rules.check(pair for group in by_benchmark.values() for pair in group)
    rows: list[Row] = []
    for benchmark, group in by_benchmark.items():
        group.sort(key=lambda pair: pair.index)
        rows += _failure_rows(benchmark, group)
        for metric in _names(group):
            rows.append(_row(_Compared(benchmark, metric, group, rules, decide, staged)))
    return _corrected(rows)


def notes_on(pairs: Iterable[Pair], rows: Sequence[Row]) -> tuple[str, ...]:
    """Say what a reader of the rows must know first: what only one side has, failures on both sides, Holm, contention.

    Args:
        pairs: those that were judged.
        rows: what `judge` returned.
    """
    pairs = list(pairs)
    notes = []
    for benchmark in dict.fromkeys(pair.benchmark for pair in pairs):
        group = [pair for pair in pairs if pair.benchmark == benchmark]
        based = _metrics(pair.base for pair in group)
        headed = _metrics(pair.head for pair in group)
        if headed and not based and not any(pair.base.failure for pair in group):
            notes.append(f"Head alone has the benchmark {benchmark}.")
        elif based and (new := [name for name in headed if name not in based]):
            notes.append(f"Head alone has {', '.join(new)} of {benchmark}.")
        if both := [pair for pair in group if pair.base.failure and pair.head.failure]:
            notes.append(
                f"{benchmark} failed on both sides in {len(both)} of {counted(len(group), 'pair')}: "
                f"{both[0].head.failure}"
            )
        if alone := [pair for pair in group if pair.base.failure and not pair.head.failure]:
            notes.append(
                f"{benchmark} failed on base alone in {len(alone)} of {counted(len(group), 'pair')}: "
                f"{alone[0].base.failure}"
            )
        missed = [
            name for name in based
            if name in headed and all(math.isinf(v) for pair in group for side in (pair.base, pair.head)
                                      if name in side.metrics for v in side.metrics[name].values)
        ]  # fmt: skip
        if missed:
            notes.append(
                f"{benchmark} reached its target on neither side with any seed, so nothing is known of "
                f"{' and '.join(map(metric_title, missed))}."
            )
    tested = [row for row in rows if row.p is not None]
    if len(tested) >= HOLM_FROM:
        notes.append(f"Holm's correction at {_ALPHA_OF_ALL} holds over the {len(tested)} rows with a p.")
    if any(map(_differs_from_ratio, rows)):
        notes.append(
            "A change of a time is what is left of it beside the machine's own, which the reference loop shows. "
            "So it is not head over base."
        )
    contended = sum(_is_contended(pair) for pair in pairs)
    if contended:
        notes.append(
            f"{contended} of {counted(len(pairs), 'pair')} ran while others had more than 10 % of the processor."
        )
    return tuple(notes)


def exit_code(result: GateResult, strict: bool = False) -> int:
    """Return the exit code of a result: 0 pass or improved, 1 regressed or missing, 3 can't tell where that counts.

    Args:
        result: of a gate or a comparison.
        strict: whether `can't tell` is an error.
    """
    if result.outcome in ("regressed", "missing"):
        return 1
    return 3 if strict and result.outcome == _UNCLEAR else 0


def more_pairs(row: Row, noise: float | None = None) -> int | None:
    """Return how many more pairs would make an unclear timing clear, by the width of its interval.

    An interval's half-width h shrinks with the root of the number n of pairs. A comparison is clear when h is at most
    the gap g between the effect and what decides: 2.5 thresholds for a pass, 0 for a regression. For a regression g is
    1.96 / 2.326 of the effect, because its test is stricter than the interval. So it takes about n (h / g)^2 pairs in
    all. Without an interval, h = 1.96 s sqrt(2 / n) for a noise of s between processes.

    Args:
        row: with effect, threshold, n and, where there is one, interval.
        noise: standard deviation between processes as a relative change; None: not known.

    Returns:
        At least one; None where neither interval nor noise is known.

    Example:
        >>> row = Row("b", "step_time_s", "timing", "can't tell", "", effect=0.0, threshold=0.02, n=4)
        >>> more_pairs(row, noise=0.05)
        4
    """
    effect = abs(row.effect or 0.0)
    gap = effect * _NORMAL_INTERVAL / _NORMAL_TEST
    if effect <= row.threshold:
        gap = _TOLERATED_THRESHOLDS * row.threshold - effect
    if row.low is not None and row.high is not None:
        half = (row.high - row.low) / 2
    elif noise is not None and row.n:
        half = _NORMAL_INTERVAL * noise * math.sqrt(2 / row.n)
    else:
        return None
    return max(1, math.ceil(row.n * (half / gap) ** 2) - row.n)


def _differs_from_ratio(row: Row) -> bool:
    """Whether a timing's change is another than its typical values show, by more than what counts."""
    if row.comparison != "timing" or row.effect is None or not row.base or row.head is None:
        return False
    return abs(row.head / row.base - 1 - row.effect) > row.threshold


def _names(group: Sequence[Pair]) -> list[str]:
    """List the metrics of a benchmark that base has. Those of head alone are no rows."""
    return _metrics(pair.base for pair in group)


def _metrics(sides: Iterable[Measured]) -> list[str]:
    return list(dict.fromkeys(name for side in sides for name in side.metrics))


def _failure_rows(benchmark: str, group: Sequence[Pair]) -> list[Row]:
    """Judge the failures of a benchmark. No failure, no row."""
    n = len(group)
    of_head = [pair.head.failure for pair in group if pair.head.failure and not pair.base.failure]
    of_base = [pair.base.failure for pair in group if pair.base.failure and not pair.head.failure]
    of_both = [pair.head.failure for pair in group if pair.base.failure and pair.head.failure]

    def row(outcome: Outcome, said: str, advice: str = "") -> list[Row]:
        found = Row(
            benchmark, FAILURE, "exact", outcome, _ended(said), "count", n=n, threshold=0.0, advice=advice
        )
        return [replace(found, base=float(len(of_base + of_both)), head=float(len(of_head + of_both)))]

    pairs = counted(n, "pair")
    if of_head:
        return row("regressed", f"Head failed and base did not in {len(of_head)} of {pairs}: {of_head[0]}")
    if len(of_both) == n:
        said = f"Both sides failed in all of {pairs}: {of_both[0]}"
        return row(_UNCLEAR, said, "Mend the benchmark, for nothing was compared.")
    if of_base:
        return row("improved", f"Base failed and head did not in {len(of_base)} of {pairs}: {of_base[0]}")
    if of_both:
        return row("pass", f"Both sides failed alike in {len(of_both)} of {pairs}: {of_both[0]}")
    return []


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _row(compared: _Compared) -> Row:
    """Judge one metric that base has."""
    benchmark, metric, group = compared.benchmark, compared.metric, compared.pairs
    first = next(pair.base.metrics[metric] for pair in group if metric in pair.base.metrics)
    better = compared.rules.better(benchmark, metric) or first.better
    row = Row(
        benchmark,
        metric,
        first.comparison,
        "missing",
        "",
        first.unit,
        better,
        base=_middle([_typical(p.base.metrics[metric]) for p in group if metric in p.base.metrics]),
        threshold=compared.rules.threshold(benchmark, metric, first),
    )
    had = [pair for pair in group if metric in pair.base.metrics]
    lost = [pair for pair in had if metric not in pair.head.metrics and not pair.head.failure]
    if lost:
        where = "" if len(lost) == len(had) else f" in {len(lost)} of {counted(len(had), 'pair')}"
        what = "it" if any(pair.head.metrics for pair in group) else "the benchmark"
        return replace(row, sentence=f"Base has {what} and head does not{where}.", n=len(had))
    if not compared.both:
        said = "Head has no value, because it failed in every pair."
        return replace(row, outcome="regressed", sentence=said, n=len(had))
    row = replace(row, head=_middle([_typical(head) for _, head in compared.sides]))
    if first.comparison == "exact":
        return _exact(row, compared)
    if first.comparison == "learning":
        return _learning(row, compared)
    return _timing(row, compared)


def _exact(row: Row, compared: _Compared) -> Row:
    """Compare what is the same in every process of a side. What varies is compared as timings are."""
    sides = [(base.values, head.values) for base, head in compared.sides]
    if all(base == head for base, head in sides):
        value = value_text(row.base, row.unit)
        said = f"Both sides have {value} in every process (n = {len(sides)})."
        return replace(row, outcome="pass", sentence=said, effect=0.0, n=len(sides))
    of_base, of_head = {base for base, _ in sides}, {head for _, head in sides}
    if len(of_base) > 1 or len(of_head) > 1 or max(map(len, of_base | of_head)) > 1:
        given = compared.rules.given_threshold(row.benchmark, row.metric)
        return _timing(replace(row, threshold=given or TIMING_THRESHOLD), compared)
    (base,), (head,) = *of_base, *of_head
    effect = (head - base) / base if base and math.isfinite(base) and math.isfinite(head) else None
    worse = head > base if row.better != "higher" else head < base
    outcome: Outcome = "regressed" if worse else "improved"
    if row.better == "neither" or (effect is not None and abs(effect) <= row.threshold):
        outcome = "pass"
    change = f" ({percent_text(effect)})" if effect is not None else ""
    said = (
        f"Head has {value_text(head, row.unit)} and base {value_text(base, row.unit)}{change}, the same in every "
        f"process (n = {len(sides)})."
    )
    return replace(row, outcome=outcome, sentence=said, base=base, head=head, effect=effect, n=len(sides))


def _timing(row: Row, compared: _Compared) -> Row:
    """Compare processes by `decide`. A rate is compared by its reciprocal, which is a time."""
    higher = row.better == "higher"
    runs: tuple[list[dict[str, list[float]]], list[dict[str, list[float]]]] = ([], [])
    for pair in compared.both:
        for side, found in zip((pair.base, pair.head), runs, strict=True):
            values = side.metrics[compared.metric].values
            if not all(0 < value < math.inf for value in values):
                return _learning(row, compared)
            wall = [1 / value for value in values] if higher else list(values)
            ref = list(side.ref) if row.comparison == "timing" else []
            found.append({"wall": wall, "ref": ref})
    return _decided(row, compared, *runs)


def _decided(row: Row, compared: _Compared, base: Sequence[Run], head: Sequence[Run]) -> Row:
    """Make a row of `decide`'s verdict on times."""
    verdict = compared.decide(base, head, staged=compared.staged, threshold=row.threshold or TIMING_THRESHOLD)
    outcome = _UNCLEAR if verdict.outcome == "pass" and verdict.runs_used < LEAST_PAIRS else verdict.outcome
    higher = row.better == "higher"
    low, high = _finite(verdict.low), _finite(verdict.high)
    if higher:
        low, high = (None if high is None else _as_rate(high)), (None if low is None else _as_rate(low))
    detectable = verdict.detectable
    if higher and detectable is not None:
        detectable = -_as_rate(detectable)
    row = replace(
        row,
        outcome=_judged(row, outcome),
        effect=_as_rate(verdict.effect) if higher else verdict.effect,
        low=low,
        high=high,
        p=verdict.p,
        n=verdict.runs_used,
        detectable=detectable,
    )
    return _said(row, compared, reason=verdict.reason, noise=verdict.noise)


def _as_rate(change: float) -> float:
    """Turn a relative change of a time into that of a rate."""
    return 1 / (1 + change) - 1


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _judged(row: Row, outcome: Outcome) -> Outcome:
    """What nobody calls better is shown, and never judged."""
    return "pass" if row.better == "neither" else outcome


def _learning(row: Row, compared: _Compared) -> Row:
    """Compare paired seeds. A target that was missed is worse than any number."""
    sides = [(_typical(base), _typical(head)) for base, head in compared.sides]
    n = len(sides)
    if all(base == head for base, head in sides):
        said = f"Both sides are equal on every seed (median {value_text(row.base, row.unit)}, n = {n})."
        if all(math.isinf(value) for value, _ in sides):
            said = f"Both sides missed the target on every seed (n = {n})."
        return replace(row, outcome="pass", sentence=said, effect=0.0, n=n)
    if (runs := _times_of_equal_steps(row, compared)) is not None:
        return _decided(replace(row, threshold=_timing_threshold(row, compared)), compared, *runs)
    higher = row.better == "higher"
    logs = not higher and all(value > 0 for pair in sides for value in pair)
    scores = [tuple(_score(value, higher=higher, logs=logs) for value in pair) for pair in sides]
    scale = 1.0 if logs else abs(_middle([base for base, _ in sides if math.isfinite(base)]) or 1.0)
    least = math.log1p(row.threshold) if logs else row.threshold * scale
    found = compare_pairs(
        [b for b, _ in scores], [h for _, h in scores], least_shift=least, staged=compared.staged
    )

    def change(shift: float | None) -> float | None:
        if shift is None or math.isinf(shift):
            return None
        return math.expm1(shift) if logs else (-shift if higher else shift) / scale

    ends = (change(found.low), change(found.high))
    low, high = ends[::-1] if higher else ends
    row = replace(
        row,
        comparison="learning",
        outcome=_judged(row, _learned(found, least)),
        effect=change(found.shift),
        low=low if high is not None else None,
        high=high if low is not None else None,
        p=min(found.worse, found.better),
        n=n,
        detectable=None if found.detectable is None else abs(change(found.detectable) or 0.0),
    )
    return _said(row, compared, missed=[sum(math.isinf(v[i]) for v in sides) for i in (0, 1)])


def _learned(found: PairedComparison, least: float) -> Outcome:
    """Turn a comparison of paired seeds into an outcome."""
    if found.worse <= found.alpha and found.shift > least:
        return "regressed"
    if found.better <= found.alpha and found.shift < -least:
        return "improved"
    return "pass" if found.high <= least else _UNCLEAR


def _score(value: float, *, higher: bool, logs: bool) -> float:
    """Turn a value into a number of which a lower one is better. Without a value it is infinite."""
    if not math.isfinite(value):
        return math.inf
    return math.log(value) if logs else -value if higher else value


def _times_of_equal_steps(row: Row, compared: _Compared) -> tuple[list[Run], list[Run]] | None:
    """Return the seconds per step of each side where all seeds took equal steps to the target. Else None."""
    if row.metric != "time_to_target_s":
        return None
    runs: tuple[list[Run], list[Run]] = ([], [])
    for pair in compared.both:
        taken = [_only(side, "steps_to_target") for side in (pair.base, pair.head)]
        if taken[0] != taken[1] or not 0 < taken[0] < math.inf:
            return None
        for side, found in zip((pair.base, pair.head), runs, strict=True):
            seconds = _only(side, row.metric)
            if not 0 < seconds < math.inf:
                return None
            found.append({"wall": [seconds / taken[0]], "ref": list(side.ref)})
    return runs


def _only(side: Measured, metric: str) -> float:
    """Return the one value of a metric that a process has once. Infinite where it has none."""
    return side.metrics[metric].values[0] if metric in side.metrics else math.inf


def _timing_threshold(row: Row, compared: _Compared) -> float:
    return compared.rules.given_threshold(row.benchmark, row.metric) or TIMING_THRESHOLD


def _said(
    row: Row,
    compared: _Compared,
    *,
    reason: str = "",
    noise: float | None = None,
    missed: Sequence[int] = (0, 0),
) -> Row:
    """Add a row's sentence and advice. A reason that `decide` gives says that more pairs would not help."""
    advice = _advice(row, compared, noise, hopeless=bool(reason)) if row.outcome == _UNCLEAR else ""
    if any(missed):
        reason = f"the target was missed on {missed[0]} seeds of base and {missed[1]} of head"
    return replace(row, sentence=sentence(row, reason=reason), advice=advice)


def _advice(row: Row, compared: _Compared, noise: float | None, *, hopeless: bool) -> str:
    """Say what would make an unclear row clear."""
    contended = any(map(_is_contended, compared.both))
    quieter = "a quieter machine, because these timings are contended" if contended else "a quieter machine"
    if hopeless:
        return f"Use a longer benchmark or {quieter}."
    seeds = LEAST_SEEDS_STAGED if compared.staged else LEAST_SEEDS
    least = seeds if row.comparison == "learning" else LEAST_PAIRS
    more = max(least - row.n, more_pairs(row, noise) or 1)
    most = LOOKS[-1].pairs if compared.staged else row.n + _MOST_PAIRS
    if row.n + more > most:
        made = f", and a gate makes {most} at most" if compared.staged else ""
        return (
            f"About {counted(more, 'more pair')} would be needed{made}. Use a longer benchmark or {quieter}."
        )
    each = sum(pair.base.seconds + pair.head.seconds for pair in compared.pairs) / len(compared.pairs)
    time = f" ({duration_text(more * each)})" if each else ""
    also = f", or {quieter}" if contended else ""
    return f"About {counted(more, 'more pair')}{time} should make it clear{also}."


def _is_contended(pair: Pair) -> bool:
    return is_contended(pair.base.contention) or is_contended(pair.head.contention)


def _typical(metric: Metric) -> float:
    return _middle(metric.values) or 0.0


def _middle(values: Sequence[float]) -> float | None:
    """Return the median; None without values. Infinite values rank last."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Apply Holm's correction to the rows with a p from 12 of them on: each direction for itself."""
    tested = {index: row.p for index, row in enumerate(rows) if row.p is not None}
    found = list(rows)
    if len(tested) < HOLM_FROM:
        return tuple(found)
    for outcome in ("regressed", "improved"):
        adjusted = holm([p if _direction(rows[i]) == outcome else 1.0 for i, p in tested.items()])
        for index, p in zip(tested, adjusted, strict=True):
            row = rows[index]
            if row.outcome == outcome and p > _ALPHA_OF_ALL:
                reason = f"over {len(tested)} rows, Holm's correction makes p = {p:.2g} of it"
                found[index] = replace(row, outcome=_UNCLEAR)
                advice = "More pairs should make it clear."
                found[index] = replace(
                    found[index], sentence=sentence(found[index], reason=reason), advice=advice
                )
    return tuple(found)


def _direction(row: Row) -> Outcome:
    """Which outcome a row's change would be. A missed target has no finite effect."""
    if row.effect is None:
        return row.outcome
    worse = row.effect < 0 if row.better == "higher" else row.effect > 0
    return "regressed" if worse else "improved"
