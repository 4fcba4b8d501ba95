"""Rules that call a benchmark slower, ours and those that others ship, on the same recorded processes.

The rules of others are written from their documentation. All of them run interleaved here, which is kind to them: base
and head are neighbours in time. Whether head is faster is not asked.

    pytest-benchmark 5.3  `--benchmark-compare-fail=STAT:5%`, its page "Comparing past runs". It fails where a statistic
                          of this run's rounds exceeds that of the saved run by more than so many percent. A run is one
                          process.
    asv 0.6               `asv continuous`, its page "Commands". Two interleaved processes a side, five samples each.
                          The medians must differ by the factor, and the samples by the Mann-Whitney U test with
                          p < 0.002.
    benchstat             golang.org/x/perf/cmd/benchstat, its page. Ten values a side, two-sided U test, p < 0.05.
                          `go test -count=10` makes ten values in one process, and a loop in the shell ten processes.
    Google Benchmark 1.9  `compare.py`, its page "Benchmark Tools". Two-sided U test, p < 0.05, over nine repetitions,
                          the least number at which it does not warn.

benchstat and Google Benchmark print a value for many iterations: the mean of successive rounds here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from fusetune.bench.gate import decide
from fusetune.bench.gate_bench.recording import Run
from fusetune.bench.stats import mann_whitney

Runs = Sequence[Run]

STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "min": lambda rounds: float(np.min(rounds)),
    "median": lambda rounds: float(np.median(rounds)),
    "mean": lambda rounds: float(np.mean(rounds)),
}
_ASV_SAMPLES = 5
_ASV_P = 0.002
_ASV_LEAST, _ASV_EXACT = 6, 20
_P = 0.05


@dataclass(frozen=True)
class Answer:
    """What a rule says.

    Args:
        slower: whether it calls head slower.
        pairs: how many pairs it took.
        outcome: in the rule's own words.
    """

    slower: bool
    pairs: int
    outcome: str


@dataclass(frozen=True)
class Rule:
    """One way to call head slower.

    Args:
        name: for the table.
        pairs: pairs that it takes, at most.
        judge: `judge(base, head)` of so many processes a side.
        ours: whether it is the gate's.
        as_shipped: whether the other program offers it. If not, it is kinder to the other than that.
    """

    name: str
    pairs: int
    judge: Callable[[Runs, Runs], Answer]
    ours: bool = False
    as_shipped: bool = True


def _rounds(runs: Runs, first: int | None = None) -> np.ndarray:
    """The rounds of all processes together."""
    return np.concatenate([np.asarray(run["wall"])[:first] for run in runs])


def _said(slower: bool, runs: Runs) -> Answer:
    return Answer(slower, len(runs), "slower" if slower else "not slower")


def compare_fail(statistic: str, percent: float) -> Callable[[Runs, Runs], Answer]:
    """pytest-benchmark's `--benchmark-compare-fail=STAT:N%`. The rounds of several processes are taken as one run's.

    Example:
        >>> compare_fail("min", 5)([{"wall": [1.0, 2.0]}], [{"wall": [1.06, 2.0]}]).slower
        True
    """

    def judge(base: Runs, head: Runs) -> Answer:
        before, now = (STATISTICS[statistic](_rounds(side)) for side in (base, head))
        return _said(now / before * 100 - 100 > percent, head)

    return judge


def asv_continuous(factor: float) -> Callable[[Runs, Runs], Answer]:
    """asv's rule: the medians differ by the factor, and the samples by the U test.

    Raises:
        ValueError: `judge` got fewer than six samples, for which asv has another rule.

    Example:
        >>> base, head = [{"wall": [1.0, 1.01, 1.02, 1.03, 1.04]}] * 2, [{"wall": [1.2, 1.21, 1.22, 1.23, 1.24]}] * 2
        >>> asv_continuous(1.1)(base, head).slower, asv_continuous(1.2)(base, head).slower
        (True, False)
    """

    def judge(base: Runs, head: Runs) -> Answer:
        before, now = (_rounds(side, _ASV_SAMPLES) for side in (base, head))
        slower = bool(np.median(before) < np.median(now) / factor) and asv_p(before, now) < _ASV_P
        return _said(slower, head)

    return judge


def asv_p(before: np.ndarray, now: np.ndarray) -> float:
    """Return asv's two-sided p of the U test: exact up to 20 samples a side, then that of the normal distribution.

    Times hardly ever tie. Where they do, asv's own p is larger.

    Raises:
        ValueError: fewer than six samples a side, so that no p of asv's level can be reached.

    Example:
        >>> asv_p(np.arange(10.0), np.arange(10.0) + 20) < 0.001
        True
    """
    if min(len(before), len(now)) < _ASV_LEAST:
        raise ValueError(f"{min(len(before), len(now))} samples, and at least {_ASV_LEAST} are needed")
    if max(len(before), len(now)) <= _ASV_EXACT:
        return mann_whitney(now.tolist(), before.tolist())
    return float(mannwhitneyu(now, before, method="asymptotic", use_continuity=False).pvalue)


def mean_values(runs: Runs, values: int) -> list[float]:
    """Return so many values: means of successive rounds of the one process, or of all rounds of each process.

    Example:
        >>> mean_values([{"wall": [1.0, 3.0, 5.0, 7.0]}], 2), mean_values([{"wall": [1.0, 3.0]}, {"wall": [5.0]}], 2)
        ([2.0, 6.0], [2.0, 5.0])
    """
    parts = (
        np.array_split(np.asarray(runs[0]["wall"]), values) if len(runs) == 1 else [r["wall"] for r in runs]
    )
    return [float(np.mean(part)) for part in parts]


def benchstat(values: int) -> Callable[[Runs, Runs], Answer]:
    """benchstat's rule: p < 0.05 by the exact two-sided U test. Slower is what has the higher median.

    Example:
        >>> sides = [{"wall": [1.0 + i / 100 for i in range(10)]}], [{"wall": [1.2 + i / 100 for i in range(10)]}]
        >>> benchstat(10)(*sides).slower
        True
    """

    def judge(base: Runs, head: Runs) -> Answer:
        before, now = (mean_values(side, values) for side in (base, head))
        return _said(bool(np.median(now) > np.median(before)) and mann_whitney(now, before) < _P, head)

    return judge


def compare_py(repetitions: int) -> Callable[[Runs, Runs], Answer]:
    """The rule of Google Benchmark's `compare.py`: p < 0.05 by SciPy's two-sided U test, as SciPy computes it.

    Example:
        >>> sides = [{"wall": [1.0 + i / 100 for i in range(9)]}], [{"wall": [1.2 + i / 100 for i in range(9)]}]
        >>> compare_py(9)(*sides).slower
        True
    """

    def judge(base: Runs, head: Runs) -> Answer:
        before, now = (mean_values(side, repetitions) for side in (base, head))
        p = float(mannwhitneyu(before, now, alternative="two-sided").pvalue)
        return _said(bool(np.median(now) > np.median(before)) and p < _P, head)

    return judge


def gate(*, staged: bool) -> Callable[[Runs, Runs], Answer]:
    """Our gate's decision, without a history, as `bench gate` asks for it.

    Example:
        >>> sides = [{"wall": [1.0 + i / 1000]} for i in range(10)], [{"wall": [1.2 + i / 1000]} for i in range(10)]
        >>> gate(staged=True)(*sides)
        Answer(slower=True, pairs=5, outcome='regressed')
    """

    def judge(base: Runs, head: Runs) -> Answer:
        verdict = decide(base, head, staged=staged)
        return Answer(verdict.outcome == "regressed", verdict.runs_used, verdict.outcome)

    return judge


# Those that are not as shipped have as many processes as our gate, which pytest-benchmark does not join.
RULES = (
    Rule("fusetune, 10 pairs", 10, gate(staged=False), ours=True),
    Rule("fusetune, staged", 20, gate(staged=True), ours=True),
    Rule("pytest-benchmark min:5%", 1, compare_fail("min", 5)),
    Rule("pytest-benchmark median:5%", 1, compare_fail("median", 5)),
    Rule("pytest-benchmark mean:5%", 1, compare_fail("mean", 5)),
    Rule("  min:5%, ten joined", 10, compare_fail("min", 5), as_shipped=False),
    Rule("  min:2%, ten joined", 10, compare_fail("min", 2), as_shipped=False),
    Rule("  median:5%, ten joined", 10, compare_fail("median", 5), as_shipped=False),
    Rule("asv, factor 1.1", 2, asv_continuous(1.1)),
    Rule("asv, factor 1.05", 2, asv_continuous(1.05)),
    Rule("asv, factor 1.05, rounds=10", 10, asv_continuous(1.05)),
    Rule("benchstat, count=10", 1, benchstat(10)),
    Rule("benchstat, ten processes", 10, benchstat(10)),
    Rule("compare.py, 9 repetitions", 1, compare_py(9)),
)
