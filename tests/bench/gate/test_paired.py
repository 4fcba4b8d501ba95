"""The exact test over paired seeds, against scipy, R's worked example and counting by hand."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from fusetune.bench.gate.paired import (
    apart,
    compare_pairs,
    least_significant_rank_sum,
    signed_rank,
)

# Depression scores of nine patients before and after a therapy: Hollander and Wolfe 1973, table 3.1.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def by_hand(differences: list[float]) -> float:
    """Count the ways of giving signs, without the recurrence."""
    nonzero = [d for d in differences if d]
    sizes = [abs(d) for d in nonzero]
    ranks = [
        Fraction(sum(other < size for other in sizes))
        + Fraction(sum(other == size for other in sizes) + 1, 2)
        for size in sizes
    ]
    observed = sum(rank for rank, d in zip(ranks, nonzero, strict=True) if d > 0)
    ways = [
        sum(itertools.compress(ranks, signs)) >= observed
        for signs in itertools.product([0, 1], repeat=len(ranks))
    ]
    return sum(ways) / len(ways)


def test_the_published_example_has_its_published_p() -> None:
    # R: wilcox.test(depression$before, depression$after, paired = TRUE, alternative = "greater") gives V = 40.
    differences = [b - a for b, a in zip(BEFORE, AFTER, strict=True)]
    assert signed_rank(differences) == pytest.approx(0.01953, abs=5e-6)


def test_the_published_example_has_its_published_estimate_and_interval() -> None:
    # Hollander and Wolfe, examples 3.3 and 3.4: a shift of -0.46, from -0.786 to -0.010 with 96.1 %.
    found = compare_pairs(BEFORE, AFTER, least_shift=0.0)
    assert found.shift == pytest.approx(-0.46, abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(-0.786, abs=1e-3), pytest.approx(-0.010, abs=1e-3))


@pytest.mark.parametrize("n", [1, 2, 7, 12, 25, 40])
def test_without_ties_it_is_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (-0.5, 0.0, 0.3):
        differences = (rng.standard_normal(n) + shift).tolist()
        expected = stats.wilcoxon(differences, alternative="greater", method="exact").pvalue
        assert signed_rank(differences) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "differences",
    [
        [1.0, 1.0, -1.0, 2.0],
        [1.0, 1.0, 1.0, 1.0, 1.0],
        [0.0, 0.0, 3.0, -3.0, 5.0],
        [math.inf, math.inf, -1.0, 2.0],
        [math.inf, -math.inf, 1.0, 0.0],
        [-math.inf] * 6 + [4.0],
        [2.0, -2.0, 2.0, -2.0, 2.0, 7.0, 7.0, -1.0],
    ],
)
def test_ties_zeros_and_missed_targets_are_counted_exactly(differences: list[float]) -> None:
    assert signed_rank(differences) == pytest.approx(by_hand(differences), rel=1e-12)


def test_with_ties_it_is_scipys_over_all_signs() -> None:
    differences = np.array([1.0, 1.0, -1.0, 2.0, 2.0, 3.0, -2.0])
    every_sign = stats.PermutationMethod(n_resamples=2**7)
    expected = stats.wilcoxon(differences, alternative="greater", method=every_sign).pvalue
    assert signed_rank(differences.tolist()) == pytest.approx(expected, rel=1e-9)


def test_a_missed_target_counts_as_worse_than_any_number() -> None:
    base = [300.0, 310.0, 290.0, 305.0, 295.0, 300.0, 315.0, 299.0]
    all_missed = compare_pairs(base, [math.inf] * 8, least_shift=0.05)
    huge = compare_pairs(base, [1e6 + i for i in range(8)], least_shift=0.05)
    assert all_missed.worse == huge.worse == 1 / 2**8
    assert all_missed.shift == math.inf
    assert all_missed.low == math.inf
    one_missed = compare_pairs(base, [*base[:7], math.inf], least_shift=0.05)
    assert one_missed.worse == 0.5
    assert one_missed.shift == 0
    both_missed = compare_pairs([*base[:7], math.inf], [*base[:7], math.inf], least_shift=0.05)
    assert both_missed.worse == 1.0


def test_two_sides_that_are_apart_are_as_rare_as_the_orders_say() -> None:
    """One of C(2n, n) orders of two equal sides. Seeds that differ make it rarer, never more frequent."""
    assert apart([1.0] * 5, [math.inf] * 5) == 1 / 252
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((2, 200_000, 3))
    for spread in ([0, 0, 0], [0, 1, 2], [0, 0, 1]):
        base, head = draws + np.array(spread)
        seen = np.mean(base.max(axis=1) < head.min(axis=1))
        assert seen < 1 / 20 + 4 * math.sqrt(0.05 * 0.95 / len(base))


def test_fewer_than_seven_pairs_are_judged_by_whether_the_sides_are_apart() -> None:
    assert compare_pairs([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 9.0], least_shift=0).worse == 1 / 252
    assert compare_pairs([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 3.0, 4.0, 5.0, 6.0], least_shift=0).worse == 1.0
    four = compare_pairs([1.0, 2.0, 3.0, 4.0], [6.0, 7.0, 8.0, 9.0], least_shift=0)
    assert four.worse == 1 / 70 > four.alpha
    assert (four.low, four.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(("n", "alpha"), [(8, 0.025), (10, 0.01), (15, 0.05), (20, 0.005)])
def test_the_least_significant_sum_of_ranks_is_scipys(n: int, alpha: float) -> None:
    least = least_significant_rank_sum(n, alpha)
    p_of = {}
    for signs in (np.arange(n) >= cut for cut in range(n + 1)):
        ranks = np.arange(1, n + 1)
        statistic = int(ranks[signs].sum())
        p_of[statistic] = stats.wilcoxon(
            np.where(signs, ranks, -ranks), alternative="greater", method="exact"
        ).pvalue
    for statistic, p in p_of.items():
        assert (p <= alpha) == (statistic >= least)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("n", [5, 7, 10, 20])
def test_equal_sides_are_called_worse_in_at_most_a_hundredth_of_cases(n: int, staged: bool) -> None:
    rng = np.random.default_rng(n)
    draws = 1500
    wrong = 0
    for _ in range(draws):
        seeds = rng.standard_normal(n)
        base, head = seeds + rng.standard_normal(n), seeds + rng.standard_normal(n)
        found = compare_pairs(base.tolist(), head.tolist(), least_shift=0.0, staged=staged)
        wrong += found.worse <= found.alpha
    assert wrong <= stats.binom.ppf(0.9999, draws, 0.01)


@pytest.mark.parametrize("n", [7, 10, 20])
def test_the_detectable_shift_is_found_in_about_90_of_100_cases(n: int) -> None:
    rng = np.random.default_rng(n)
    spread, least = 0.1, 0.05
    noise = rng.standard_normal(n)
    noise = spread * (noise - noise.mean()) / noise.std(ddof=1)
    detectable = compare_pairs([0.0] * n, noise.tolist(), least_shift=least).detectable
    found = 0
    for _ in range(2000):
        head = detectable + spread * rng.standard_normal(n)
        one = compare_pairs([0.0] * n, head.tolist(), least_shift=least)
        found += one.worse <= one.alpha and one.shift > least
    assert 0.88 <= found / 2000 <= 0.92


def test_a_look_after_a_failure_has_a_level_of_its_own() -> None:
    """Looks at 5, 7, 10, 14 and 20 pairs, of which one failed at any time: the levels add up to 0.01."""
    rng = np.random.default_rng(0)
    differences = rng.standard_normal(20).tolist()

    def alpha(n: int) -> float:
        return compare_pairs([0.0] * n, differences[:n], least_shift=0.0, staged=True).alpha

    planned = (5, 7, 10, 14, 20)
    for failure_before in range(len(planned) + 1):
        seen = [n - (place >= failure_before) for place, n in enumerate(planned)]
        of_each = {n: alpha(n) for n in seen if n >= 5}
        assert sum(of_each.values()) <= 0.01 + 1e-12, seen
