"""Exact tests, multiple-testing corrections and confidence intervals over plain lists of numbers.

This module imports no torch. numpy and scipy.special are imported on use, so that `bench report` starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from fusetune.errors import InvalidValueError

if TYPE_CHECKING:
    import numpy as np

Verdict = Literal["pass", "fail", "can't tell"]

ALPHA = 0.05
LEAST_PAIRS = 3  # with two pairs the t quantile is 12.7, so that the interval is useless
# Counting all ways to share out more values takes seconds. The approximation needs so many on each side.
_MOST_COUNTED = 100
_LEAST_APPROXIMATED = 30


@dataclass(frozen=True)
class Estimate:
    """A mean effect over n pairs with its 95 % confidence interval.

    Args:
        value: geometric mean ratio (neutral 1) or mean difference (neutral 0).
        low, high: ends of the 95 % interval. None with fewer than three pairs.
        n: number of pairs.
        neutral: the value of no effect, 1.0 for ratios and 0.0 for differences.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    neutral: float

    @property
    def can_tell(self) -> bool:
        """Whether the interval exists and excludes `neutral`."""
        return self.low is not None and self.high is not None and not self.low <= self.neutral <= self.high


def ratio(pairs: Sequence[tuple[float, float]]) -> Estimate | None:
    """Return the geometric mean of first / second, with its interval.

    exp(mean(log a_i - log b_i)), with Student's t interval on the logs. The ratio of b to a is therefore the exact
    reciprocal, and ratios of factors multiply to the ratio of their product.

    Args:
        pairs: positive, finite numbers. Pairs must be independent.

    Returns:
        The estimate, or None when there is no pair.

    Example:
        >>> ratio([(2.0, 1.0), (8.0, 1.0)]).value
        4.0
    """
    return ratio_of_logs([math.log(a) - math.log(b) for a, b in pairs])


def ratio_of_logs(differences: Sequence[float]) -> Estimate | None:
    """Return `ratio` of pairs from the differences of their natural logarithms.

    Example:
        >>> ratio_of_logs([math.log(2), math.log(8)]).value
        4.0
    """
    estimate = mean_difference(differences)
    if estimate is None:
        return None
    low = None if estimate.low is None else math.exp(estimate.low)
    high = None if estimate.high is None else math.exp(estimate.high)
    return Estimate(math.exp(estimate.value), low, high, estimate.n, neutral=1.0)


def difference(pairs: Sequence[tuple[float, float]]) -> Estimate | None:
    """Return the mean of first - second, with Student's t interval over the pairs.

    Args:
        pairs: finite numbers. Pairs must be independent.

    Returns:
        The estimate, or None when there is no pair.

    Example:
        >>> difference([(3.0, 1.0), (2.0, 1.0)]).value
        1.5
    """
    return mean_difference([a - b for a, b in pairs])


def mean_difference(differences: Sequence[float]) -> Estimate | None:
    """Return `difference` of pairs from their differences.

    Example:
        >>> mean_difference([2.0, 1.0]).value
        1.5
    """
    n = len(differences)
    if n == 0:
        return None
    mean = math.fsum(differences) / n
    if n < LEAST_PAIRS:
        return Estimate(mean, None, None, n, neutral=0.0)
    from scipy.special import stdtrit

    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    half = float(stdtrit(n - 1, 1 - ALPHA / 2)) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n, neutral=0.0)


def median(values: Sequence[float]) -> float:
    """Return the median. Infinite values (missed targets) count like any other.

    The median is finite if more than half of the values are. Between a finite and an infinite value it is infinite.

    Raises:
        ValueError: when there is no value.

    Example:
        >>> median([3.0, math.inf, 1.0]), median([3.0, math.inf])
        (3.0, inf)
    """
    if not values:
        raise InvalidValueError("median", "no values", "at least one is needed")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def mann_whitney(
    ours: Sequence[float],
    theirs: Sequence[float],
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> float:
    """Return the exact p-value of the Mann-Whitney U test, with ties and infinities.

    p = P(W >= w), or 2 min(P(W <= w), P(W >= w)) and at most 1

    W is the rank sum under all assignments of the pooled midranks to the two sides. The p-value is exact for any ties.

    Above 100 values with 30 or more on each side, it is Edgeworth's approximation by mean, variance and kurtosis. From
    50 values a side on, it is off by at most 0.2 % of a p above 0.001, and by at most 6 % of a p above 0.00001. With
    three different values in all, it was off by 11 %.

    Args:
        ours, theirs: at least one number each, without NaN. Infinity ranks last and ties with infinity.
        alternative: `greater`: the p-value of ours being greater. `two-sided`: of either being greater.

    Raises:
        ValueError: when a side is empty.

    Memory: O(n N^2) counts for n = the smaller side, N = both sides.

    Example:
        >>> mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, math.inf])
        0.1
        >>> mann_whitney([4.0, 5.0, math.inf], [1.0, 2.0, 3.0], "greater")
        0.05

    Sources: Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger".
    Fix and Hodges 1955, "Significance probabilities of the Wilcoxon test", for the approximation.
    """
    if not ours or not theirs:
        raise InvalidValueError("mann_whitney", "a side has no values", "at least one on each is needed")
    ranks = doubled_midranks([*ours, *theirs])
    lower, upper = tails(tuple(sorted(ranks)), len(ours), [sum(ranks[: len(ours)])])
    p_value = upper if alternative == "greater" else two_sided(lower, upper)
    return float(p_value[0])


def two_sided(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return two-sided p-values from the two tails: 2 min(lower, upper), and at most 1."""
    import numpy as np

    p_values: np.ndarray = np.minimum(1.0, 2.0 * np.minimum(lower, upper))
    return p_values


def tails(
    ranks: tuple[int, ...], first: int, observed: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return P(W <= w) and P(W >= w) for each sum w, where W is the sum of any choice of so many of the ranks.

    Args:
        ranks: of all values, doubled, in ascending order.
        first: how many are chosen, at least 1 and fewer than all.
        observed: sums w of so many ranks.

    Example:
        >>> [tail.tolist() for tail in tails((2, 4, 6, 8), 2, [6, 14])]
        [[0.16666666666666666, 1.0], [1.0, 0.16666666666666666]]
    """
    import numpy as np

    total, rest = len(ranks), len(ranks) - first
    step = math.gcd(*(rank - ranks[0] for rank in ranks)) or 1
    sums = np.asarray(observed)
    if total > _MOST_COUNTED and min(first, rest) >= _LEAST_APPROXIMATED:
        mean = sum(ranks) / total
        spread = sum((rank - mean) ** 2 for rank in ranks) / (total * (total - 1))
        excess, sides, variance = sums - first * mean, (first, rest), first * rest * spread
        # The sums lie on a lattice. Half of its step belongs to the sum that was observed.
        half = step / 2
        return _edgeworth_tail(-excess - half, sides, variance), _edgeworth_tail(
            excess - half, sides, variance
        )
    # What one side has is what the other leaves, so the smaller one is counted.
    size = min(first, rest)
    chosen = sums if first <= rest else sum(ranks) - sums
    at_most, at_least = _rank_sum_tails(tuple((rank - ranks[0]) // step for rank in ranks), size)
    places = (chosen - size * ranks[0]) // step
    found = at_most[places], at_least[places]
    return found if first <= rest else found[::-1]


def _edgeworth_tail(excess: np.ndarray, sides: tuple[int, int], variance: float) -> np.ndarray:
    """Approximate the probability that U exceeds its mean by so much: a normal tail, corrected by the kurtosis of U.

    kurtosis = -6/5 (N (N + 1) - n m) / (n m (N + 1)) for n and m values on the sides and N = n + m
    """
    import numpy as np
    from scipy.special import ndtr

    ours, theirs = sides
    total = ours + theirs
    kurtosis = -1.2 * (total * (total + 1) - ours * theirs) / (ours * theirs * (total + 1))
    if not variance:  # all values are equal
        return np.ones(len(excess))
    z = excess / math.sqrt(variance)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    tail: np.ndarray = np.clip(ndtr(-z) + density * kurtosis / 24 * (z**3 - 3 * z), 0.0, 1.0)
    return tail


def least_significant_u(n: int, alpha: float) -> int | None:
    """Return the smallest U of two samples of n, without ties, whose one-sided p is at most alpha; None: there is none.

    Example:
        >>> least_significant_u(5, 0.004), least_significant_u(4, 0.01)
        (25, None)
    """
    import numpy as np

    if 2 * n > _MOST_COUNTED:
        excess = np.arange(n * n + 1) - n * n / 2 - 0.5
        upper = _edgeworth_tail(excess, (n, n), n * n * (2 * n + 1) / 12)
    else:
        upper = _u_counts(n)[::-1].cumsum()[::-1] / math.comb(2 * n, n)
    significant = np.flatnonzero(upper <= alpha)
    return int(significant[0]) if len(significant) else None


def doubled_midranks(values: Sequence[float]) -> list[int]:
    """Return twice the midranks, which are integers. Ranks begin at 1, and equal values share their mean rank.

    Example:
        >>> doubled_midranks([10.0, 30.0, 10.0])
        [3, 6, 3]
    """
    ordered = sorted(values)
    first = {value: index for index, value in reversed(list(enumerate(ordered)))}
    last = {value: index for index, value in enumerate(ordered)}
    return [first[value] + last[value] + 2 for value in values]


@lru_cache(maxsize=64)
def _u_counts(n: int) -> np.ndarray:
    """Return the number of ways to each U of two samples of n without ties."""
    return _rank_sum_counts(tuple(range(2 * n)), n)[n * (n - 1) // 2 :][: n * n + 1]


@lru_cache(maxsize=512)
def _rank_sum_tails(ranks: tuple[int, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each sum the probability that a subset of `ranks` with that size has at most it, and at least it."""
    counts = _rank_sum_counts(ranks, size)
    total = counts.sum()
    return counts.cumsum() / total, counts[::-1].cumsum()[::-1] / total


def _rank_sum_counts(ranks: tuple[int, ...], size: int) -> np.ndarray:
    """Return for each sum the number of subsets of `ranks`, in ascending order, with that size and sum.

    Counts are float64 and exact up to 2^53.
    """
    import numpy as np

    most = sum(ranks[-size:])
    ways = np.zeros((size + 1, most + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : most + 1 - rank].copy()
    counts: np.ndarray = ways[size]
    return counts


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by the Holm-Bonferroni method, which bounds the family-wise error rate.

    Step-down: the i-th smallest of m is multiplied by m - i + 1, raised to the one before it, and cut to 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = running
    return adjusted


def least_n(comparisons: int) -> int:
    """Return the smallest n per side with which `mann_whitney` can be significant after a Bonferroni correction.

    The smallest possible p-value, for sides that do not overlap, is 2 / C(2n, n).

    Args:
        comparisons: number of tests, at least 1.

    Example:
        >>> least_n(1), least_n(6)
        (4, 5)
    """
    n = 1
    while 2 * comparisons > ALPHA * math.comb(2 * n, n):
        n += 1
    return n


def smallest_visible_shift(n: int, comparisons: int) -> float | None:
    """Return the smallest shift between two normal samples of n that the test detects with a power of 80 %.

    A draw is significant when at most u of its n^2 pairs are in the wrong order. Here u is the largest significant U
    after the correction. The shift that a draw needs is therefore the (u + 1)-th largest x - y of all pairs. The result
    is the 80 % quantile of that shift over 4,000 seeded draws, or fewer above 100 samples.

    Args:
        n: samples on each side.
        comparisons: number of tests for the Bonferroni correction. Holm's has at least that power.

    Returns:
        The shift in standard deviations. None when n is below `least_n(comparisons)`, so that none is detected.

    Example:
        >>> smallest_visible_shift(3, 1) is None
        True
    """
    if n < least_n(comparisons):
        return None
    import numpy as np

    right_pairs = least_significant_u(n, ALPHA / comparisons / 2)
    assert right_pairs is not None
    draws = min(4000, max(100, 4 * 10**7 // n**2))
    x, y = np.random.default_rng(0).standard_normal((2, draws, n))
    needed = []
    many = max(1, 2**20 // n**2)  # all draws at once would take gigabytes
    for at in range(0, draws, many):
        gaps = (x[at : at + many, :, None] - y[at : at + many, None, :]).reshape(-1, n * n)
        # A copy, for a view would keep the gaps of all draws in memory.
        needed.append(np.partition(gaps, right_pairs - 1, axis=1)[:, right_pairs - 1].copy())
    return float(np.quantile(np.concatenate(needed), 0.8))


def median_ratio(pairs: Sequence[tuple[float, float]]) -> Estimate | None:
    """Return the median of first / second, with an interval that holds whatever the distribution of the ratios.

    The interval is between two order statistics: as many ratios are left out below it and above it as a binomial
    variable of n and 1/2 stays under with at most 2.5 %. A round that a neighbour slowed moves it little.

    Args:
        pairs: positive, finite numbers. Pairs must be independent.

    Returns:
        The estimate, or None when there is no pair. Fewer than six pairs have no interval.

    Example:
        >>> found = median_ratio([(2.0, 1.0), (3.0, 1.0), (2.5, 1.0), (2.2, 1.0), (40.0, 1.0), (2.1, 1.0)])
        >>> found.value, found.low, found.high
        (2.35, 2.0, 40.0)

    Source: Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    ratios = sorted(a / b for a, b in pairs)
    n = len(ratios)
    if n == 0:
        return None
    below, chance = -1, 0.0
    while chance + math.comb(n, below + 1) / 2**n <= ALPHA / 2:
        below += 1
        chance += math.comb(n, below) / 2**n
    if below < 0:
        return Estimate(median(ratios), None, None, n, neutral=1.0)
    return Estimate(median(ratios), ratios[below], ratios[n - 1 - below], n, neutral=1.0)
