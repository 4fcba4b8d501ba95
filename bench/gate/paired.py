"""Two sides over paired seeds: the exact signed-rank test, with ties and with targets that were missed.

A score is a number of which a lower one is better. It is infinite where the target was missed, so that a missed target
counts as worse than any number. Nothing is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fusetune.bench.gate.decision import looks_at
from fusetune.bench.stats import doubled_midranks

if TYPE_CHECKING:
    import numpy as np

ALPHA = 0.01
# Below this, all signs alike have a p above 0.01, and the sides have to be apart as a whole.
_LEAST_FOR_SIGNS = 7
_INTERVAL_TAIL = 0.025
_FOUND = 0.9
# As many draws as memory has room for: n pairs have n (n + 1) / 2 averages.
_LEAST_DRAWS, _MOST_DRAWS, _MOST_AVERAGES = 100, 4000, 4_000_000
_BEYOND = 1e9  # stands for infinity in sums of two differences


@dataclass(frozen=True)
class PairedComparison:
    """What two sides came to over paired seeds. Shifts are head's score less base's.

    Args:
        shift: the Hodges-Lehmann estimate: the median of all means of two differences. It may be infinite.
        low, high: 95 % interval. Infinite with fewer than six pairs.
        worse, better: exact one-sided p of head being worse, and of head being better.
        alpha: the largest p that counts.
        detectable: the shift that is found in 90 of 100 cases; None where none is known.
        n: pairs.
    """

    shift: float
    low: float
    high: float
    worse: float
    better: float
    alpha: float
    detectable: float | None
    n: int


def compare_pairs(
    base: Sequence[float], head: Sequence[float], *, least_shift: float, staged: bool = False
) -> PairedComparison:
    """Compare two sides over paired seeds.

    Args:
        base, head: scores, lower being better, infinite for a missed target. `base[i]` and `head[i]` have one seed.
        least_shift: a smaller shift does not count, for `detectable`.
        staged: whether the pairs are looked at several times, see `decision.LOOKS`.

    Example:
        >>> missed = compare_pairs([1.0, 1.1, 1.2, 1.0, 1.3], [math.inf] * 5, least_shift=0.05)
        >>> round(missed.worse, 4), missed.shift
        (0.004, inf)
    """
    differences = [_difference(ours, theirs) for ours, theirs in zip(head, base, strict=True)]
    n = len(differences)
    # Where a failure left fewer pairs than planned, the look still has a level of its own.
    alpha = looks_at(n)[-1].alpha if staged else ALPHA
    averages = _walsh_averages(differences)
    middle = len(averages) // 2
    shift = averages[middle] if len(averages) % 2 else (averages[middle - 1] + averages[middle]) / 2
    rank = least_significant_rank_sum(n, _INTERVAL_TAIL)
    low, high = (-math.inf, math.inf) if rank is None else (averages[-rank], averages[rank - 1])
    if n < _LEAST_FOR_SIGNS:
        worse, better = apart(base, head), apart(head, base)
    else:
        worse, better = signed_rank(differences), signed_rank([-d for d in differences])
    detectable = _detectable(differences, alpha, least_shift)
    return PairedComparison(_finite(shift), _finite(low), _finite(high), worse, better, alpha, detectable, n)


def signed_rank(differences: Sequence[float]) -> float:
    """Return the exact one-sided p of Wilcoxon's signed-rank test against differences below 0.

    P(W >= w) over all ways to give signs to the midranks of the absolute differences. Zeros are left out, as Wilcoxon
    did. Equal differences share a rank, and so do infinite ones, which rank last.

    Args:
        differences: head's score less base's, a pair each. No NaN.

    Returns:
        The p; 1.0 where no difference is other than 0.

    Example:
        >>> signed_rank([1.0, 2.0, math.inf]), signed_rank([0.0])
        (0.125, 1.0)

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods".
    """
    nonzero = [d for d in differences if d]
    if not nonzero:
        return 1.0
    ranks = doubled_midranks([abs(d) for d in nonzero])
    observed = sum(rank for rank, d in zip(ranks, nonzero, strict=True) if d > 0)
    return float(_sign_probabilities(tuple(sorted(ranks)))[observed:].sum())


def apart(lower: Sequence[float], upper: Sequence[float]) -> float:
    """Return the p of one side lying wholly above the other: 1 / C(2n, n) where it does, else 1.

    The bound holds whatever the seeds' own distributions F_i are. With g = (F_1 ... F_n)^(1/n), the chance is
    int prod(1 - F_i) d(prod F_i) <= int (1 - g)^n d(g^n) = n!^2 / (2n)!, since log(1 - exp(u)) is concave.

    Example:
        >>> apart([1.0, 2.0], [3.0, math.inf]), apart([1.0, 3.0], [3.0, 4.0])
        (0.16666666666666666, 1.0)
    """
    return 1 / math.comb(2 * len(lower), len(lower)) if max(lower) < min(upper) else 1.0


def least_significant_rank_sum(n: int, alpha: float) -> int | None:
    """Return the smallest sum of positive ranks of n pairs without ties with P(W >= sum) <= alpha, or None.

    Example:
        >>> least_significant_rank_sum(7, 0.01), least_significant_rank_sum(6, 0.01)
        (28, None)
    """
    import numpy as np

    upper = _sign_probabilities(tuple(range(1, n + 1)))[::-1].cumsum()[::-1]
    significant = np.flatnonzero(upper <= alpha)
    return int(significant[0]) if len(significant) else None


@lru_cache(maxsize=256)
def _sign_probabilities(ranks: tuple[int, ...]) -> np.ndarray:
    """Return the probability of each sum of positive ranks, if each rank is positive with probability 1/2.

    Only halves and sums of positive numbers are taken, so that no digits cancel.
    """
    import numpy as np

    found = np.zeros(sum(ranks) + 1)
    found[0] = 1.0
    for rank in ranks:
        found /= 2
        found[rank:] += found[:-rank].copy()
    return found


def _difference(ours: float, theirs: float) -> float:
    return 0.0 if ours == theirs else ours - theirs


def _walsh_averages(differences: Sequence[float]) -> list[float]:
    """Return the means of all pairs of differences, those of a difference with itself too, in order."""
    kept = [max(-_BEYOND, min(_BEYOND, d)) for d in differences]
    return sorted((a + b) / 2 for i, a in enumerate(kept) for b in kept[: i + 1])


def _finite(value: float) -> float:
    """Turn what stands for infinity back into it."""
    return math.copysign(math.inf, value) if abs(value) >= _BEYOND / 4 else value


def _detectable(differences: Sequence[float], alpha: float, least_shift: float) -> float | None:
    """Return the shift that is found in 90 of 100 cases, from normal draws with the differences' standard deviation.

    W is the number of Walsh averages above 0. So a draw needs the shift that lifts as many as are significant above 0,
    and its estimate must exceed the least shift.
    """
    import numpy as np

    n = len(differences)
    rank = least_significant_rank_sum(n, alpha)
    if rank is None or n < _LEAST_FOR_SIGNS or not all(map(math.isfinite, differences)):
        return None
    spread = float(np.std(differences, ddof=1))
    by_rank, by_size = _draws(n, rank)
    return float(np.quantile(np.maximum(spread * by_rank, least_shift + spread * by_size), _FOUND))


@lru_cache(maxsize=64)
def _draws(n: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for draws of n normal differences, the shifts that lift enough averages and the estimate above 0."""
    import numpy as np

    first, second = np.triu_indices(n)
    draws = max(_LEAST_DRAWS, min(_MOST_DRAWS, _MOST_AVERAGES // len(first)))
    drawn = np.random.default_rng(0).standard_normal((draws, n))
    averages = np.sort((drawn[:, first] + drawn[:, second]) / 2, axis=1)
    return -averages[:, -rank], -np.median(averages, axis=1)
