"""Each rule of others against its own code, its published example, or SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.utils import parse_compare_fail
from scipy.stats import mannwhitneyu

from fusetune.bench.gate import decide
from fusetune.bench.gate_bench.recording import Run
from fusetune.bench.gate_bench.rules import (
    STATISTICS,
    asv_continuous,
    asv_p,
    benchstat,
    compare_fail,
    compare_py,
    gate,
    mean_values,
)
from fusetune.bench.stats import mann_whitney


def side(rng: np.random.Generator, processes: int, slower: float = 0.0) -> list[Run]:
    walls = (1 + slower) * np.exp(
        0.04 * rng.standard_normal((processes, 1)) + 0.03 * rng.random((processes, 30))
    )
    return [{"wall": wall.tolist(), "ref": [1.0] * 12} for wall in walls]


@pytest.mark.parametrize("statistic", ["min", "median", "mean"])
def test_compare_fail_is_pytest_benchmarks(statistic: str) -> None:
    rng = np.random.default_rng(0)
    check = parse_compare_fail(f"{statistic}:5%")
    said = set()
    for _ in range(40):
        (base,), (head,) = side(rng, 1), side(rng, 1, 0.05)
        before, now = ({statistic: STATISTICS[statistic](np.array(run["wall"]))} for run in (base, head))
        theirs = check.fails(now, before) is not None
        assert compare_fail(statistic, 5)([base], [head]).slower == theirs
        said.add(theirs)
    assert said == {True, False}


# What asv 0.6.6 says of these samples: its `mann_whitney_u(before, now)[1]`.
ASV = [
    (2, 0.0, 0.7959362618805343),
    (2, 0.05, 1.0825088224361175e-05),
    (4, 0.05, 0.04909032518937297),
    (10, 0.02, 6.446471211320136e-07),
    (10, 0.05, 6.006841377869665e-15),
]


@pytest.mark.parametrize(("processes", "slower", "expected"), ASV)
def test_the_p_of_asv_is_asvs(processes: int, slower: float, expected: float) -> None:
    rng = np.random.default_rng(processes)
    before, now = (
        np.concatenate([run["wall"][:5] for run in side(rng, processes, s)]) for s in (0.0, slower)
    )
    assert asv_p(before, now) == pytest.approx(expected, rel=1e-9)


def test_asv_takes_both_a_factor_and_a_difference() -> None:
    base: list[Run] = [{"wall": [1.0, 1.01, 1.02, 1.03, 1.04]}] * 2
    certain = [{"wall": [1.08 * wall for wall in run["wall"]]} for run in base]
    wide: list[Run] = [{"wall": [0.9, 0.95, 1.2, 1.3, 1.4]}] * 2
    assert asv_continuous(1.05)(base, certain).slower
    assert not asv_continuous(1.1)(base, certain).slower
    assert not asv_continuous(1.1)(base, wide).slower  # its median is 18 % higher, and p is 0.1
    with pytest.raises(ValueError, match="5 samples"):
        asv_p(np.arange(5.0), np.arange(5.0))


def test_benchstat_says_what_its_own_page_says() -> None:
    """The example of benchstat's documentation: 17.20 % faster with p=0.000, and no difference with p=0.446."""
    json = (
        [1726, 1723, 1707, 1707, 1713, 1729, 1736, 1707, 1705, 1774],
        [*(1423, 1416, 1411, 1413, 1412, 1426, 1422, 1424, 1447, 1425)],
    )
    gob = (
        [3069, 3075, 3069, 3067, 3207, 3064, 3064, 3058, 3059, 3062],
        [*(3075, 3065, 3059, 3065, 3060, 3081, 3186, 3135, 3087, 3062)],
    )
    assert mann_whitney(*gob) == pytest.approx(0.446, abs=0.0005)
    assert mann_whitney(*json) == pytest.approx(0.0, abs=0.0005)
    sides = {name: [[{"wall": values}] for values in both] for name, both in (("json", json), ("gob", gob))}
    judge = benchstat(10)
    assert judge(*sides["json"][::-1]).slower
    assert not judge(*sides["json"]).slower
    assert not any(judge(*order).slower for order in (sides["gob"], sides["gob"][::-1]))


def test_compare_py_is_scipys_test_of_the_means_of_nine_repetitions() -> None:
    rng = np.random.default_rng(1)
    for slower in (0.0, 0.02, 0.2):
        base, head = side(rng, 1), side(rng, 1, slower)
        values = [np.array_split(np.array(run["wall"]), 9) for (run,) in (base, head)]
        means = [[float(part.mean()) for part in some] for some in values]
        found = mannwhitneyu(*means)
        assert compare_py(9)(base, head).slower == (
            found.pvalue < 0.05 and np.median(means[1]) > np.median(means[0])
        )


def test_faster_is_not_slower() -> None:
    rng = np.random.default_rng(2)
    base, head = side(rng, 10, 0.5), side(rng, 10)
    for judge in (
        benchstat(10),
        compare_py(10),
        compare_fail("min", 5),
        asv_continuous(1.05),
        gate(staged=False),
    ):
        assert not judge(base, head).slower
        assert judge(head, base).slower


def test_ten_values_are_of_one_process_or_of_ten() -> None:
    rng = np.random.default_rng(3)
    runs = side(rng, 10)
    np.testing.assert_allclose(mean_values(runs, 10), [np.mean(run["wall"]) for run in runs])
    np.testing.assert_allclose(mean_values(runs[:1], 10), np.reshape(runs[0]["wall"], (10, 3)).mean(axis=1))


def test_the_gate_is_asked_without_a_history() -> None:
    rng = np.random.default_rng(4)
    base, head = side(rng, 20), side(rng, 20, 0.05)
    for staged in (False, True):
        verdict, answer = decide(base, head, staged=staged), gate(staged=staged)(base, head)
        assert (answer.outcome, answer.pairs) == (verdict.outcome, verdict.runs_used)
