"""The decision: two sides of processes that ran in pairs, and whether head is slower.

The function is pure. It reads no file and no clock, and draws nothing at random that is not seeded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusetune.bench.gate.estimators import Run, Values, choose, estimators, log_values
from fusetune.bench.gate.verdict import Outcome, Verdict
from fusetune.bench.stats import least_significant_u, mann_whitney
from fusetune.errors import InvalidValueError

THRESHOLD = 0.02
# A slowdown of so many thresholds is excluded by a pass.
_EXCLUDED_THRESHOLDS = 2.5
# Fewer reach no p of 0.01: with 4 pairs, the smallest is 1/70.
LEAST_PAIRS = 5
_ALPHA = 0.01
# An improvement holds nothing up, so it gets half of the level, and a table has fewer false differences of either kind.
_OF_IMPROVED = 0.5
_RESAMPLES = 500
# The quantile of the slowdowns that resampled comparisons need, so that 9 of 10 real ones are found. It is above 0.9
# because the noise is itself known from a few runs only.
_FOUND = 0.92
# With 20 pairs, a shift of so many standard deviations between processes is found 9 times of 10.
_SHIFT_AT_LAST_LOOK = 1.35
_HOPELESS_THRESHOLDS = 5.0
_NO_SIGN = 0.1


@dataclass(frozen=True)
class Look:
    """One look at the pairs so far.

    Args:
        pairs: how many there are by then.
        alpha: the largest p of a difference.
        clear: the largest effect, in thresholds, that passes here. None: any, for it is the last look.
        spent: the alphas of this look and of those before it. None: there are none before.
    """

    pairs: int
    alpha: float
    clear: float | None = None
    spent: float | None = None

    @property
    def alpha_so_far(self) -> float:
        """The chance of a false alarm at this look or before it."""
        return self.alpha if self.spent is None else self.spent


# The alphas add up to 0.01, so that all looks together raise a false alarm in 1 of 100 comparisons at most.
LOOKS = (
    Look(5, 0.004, 0.5, spent=0.004),
    Look(7, 0.0015, 0.625, spent=0.0055),
    Look(10, 0.0015, 0.75, spent=0.007),
    Look(14, 0.0015, 0.875, spent=0.0085),
    Look(20, 0.0015, spent=0.01),
)


def decide(
    base: Sequence[Run],
    head: Sequence[Run],
    history: Sequence[Run] = (),
    *,
    staged: bool = False,
    more: bool = False,
    threshold: float = THRESHOLD,
) -> Verdict:
    """Decide whether head is slower than base, from processes that ran side by side.

    A process becomes one number by the least noisy estimators for this benchmark, see `estimators`. `regressed`: the
    exact one-sided Mann-Whitney U test over these numbers has p <= 0.01, and the median of the pairs' differences
    exceeds the threshold. `improved`: the same in the other direction, with half of that p. `pass`: a slowdown of 2.5
    thresholds is excluded with 95 % certainty. All else is `can't tell`.

    Args:
        base, head: a run is `{"wall": [seconds...], "ref": [seconds...]}`, the rounds of one fresh process and those of
            a reference loop around it. `base[i]` and `head[i]` ran side by side. `ref` may be empty.
        history: earlier runs of the unchanged benchmark, in the order of time. May be empty.
        staged: look after 5, 7, 10, 14 and 20 pairs, and stop as soon as the outcome is clear or hopeless. It is
            hopeless where 20 pairs would miss a slowdown of 5 thresholds, and nothing hints at one.
        more: of a staged decision, whether pairs may still come. Only the planned looks are taken then.
        threshold: relative change from which on a difference counts.

    Returns:
        The verdict. Fewer than 5 pairs are never a `pass`, because no slowdown could have been seen.

    Raises:
        InvalidValueError: sides of different length, no pairs, or a time that is not a finite number above 0.

    Example:
        >>> base = [{"wall": [1.0 + 0.001 * (i * 7 % 10)], "ref": [1.0]} for i in range(10)]
        >>> head = [{"wall": [1.1 + 0.001 * (i * 3 % 10)], "ref": [1.0]} for i in range(10)]
        >>> verdict = decide(base, head, [])
        >>> verdict.outcome, round(verdict.effect, 2)
        ('regressed', 0.1)
        >>> decide(head, head, []).outcome
        'pass'
    """
    pairs = len(base)
    if pairs != len(head):
        raise InvalidValueError("decide", f"base has {pairs} runs and head {len(head)}", "they are pairs")
    if not pairs:
        raise InvalidValueError("decide", "there are no pairs", "at least one is needed")
    if not 0 < threshold < math.inf:
        raise InvalidValueError("decide", f"threshold {threshold!r} is not a finite number above 0")
    runs = [*history, *base, *head]
    candidates = estimators(
        min(len(run.get("wall", ())) for run in runs),
        with_reference=all(len(run.get("ref", ())) for run in runs),
    )
    values = log_values(runs, candidates)
    past, base_values, head_values = np.split(values, [len(history), len(history) + pairs], axis=1)
    for look in looks_at(pairs, more=more) if staged else (Look(pairs, _ALPHA),):
        base_so_far, head_so_far = base_values[:, : look.pairs], head_values[:, : look.pairs]
        chosen = choose(past, base_so_far, head_so_far)
        verdict = _compare(
            base_so_far[chosen].mean(axis=0), head_so_far[chosen].mean(axis=0), look, threshold
        )
        if verdict.outcome != "can't tell" or verdict.reason:
            break
    return replace(verdict, estimator=candidates[chosen[0]].name)


def looks_at(pairs: int, *, more: bool = False) -> tuple[Look, ...]:
    """Return the looks that a staged decision takes at so many pairs: the planned ones, and one at their end.

    Args:
        pairs: how many there are.
        more: whether pairs may still come, so that this is not the end.

    Example:
        >>> [look.pairs for look in looks_at(12)], [look.pairs for look in looks_at(12, more=True)]
        ([5, 7, 10, 12], [5, 7, 10])
    """
    planned = tuple(look for look in LOOKS if look.pairs <= pairs)
    if planned and (more or planned[-1] == LOOKS[-1]):
        return planned
    if not planned:
        return (Look(pairs, LOOKS[0].alpha, spent=LOOKS[0].alpha),)
    last = planned[-1]
    if (
        last.pairs == pairs
    ):  # A second look at the same pairs spends nothing. It passes any effect, as the last one.
        return (*planned, replace(last, clear=None))
    return (*planned, Look(pairs, LOOKS[-1].alpha, spent=last.alpha_so_far + LOOKS[-1].alpha))


def _compare(base: Values, head: Values, look: Look, threshold: float) -> Verdict:
    """Compare one value per process."""
    pairs = len(base)
    log_threshold = math.log1p(threshold)
    effect = float(np.median(head - base))
    slower = mann_whitney(head.tolist(), base.tolist(), "greater")
    faster = mann_whitney(base.tolist(), head.tolist(), "greater")
    residuals = _residuals(base, head)
    noise = _noise(residuals)
    outcome: Outcome = "can't tell"
    if slower <= look.alpha and effect > log_threshold:
        outcome = "regressed"
    elif faster <= _OF_IMPROVED * look.alpha and effect < -log_threshold:
        outcome = "improved"
    elif pairs >= LEAST_PAIRS:
        is_small = look.clear is None or abs(effect) < math.log1p(look.clear * threshold)
        excluded = _bounds(base, head, 0.05)[1] < math.log1p(_EXCLUDED_THRESHOLDS * threshold)
        outcome = "pass" if is_small and excluded else outcome
    hopeless = (
        outcome == "can't tell"
        and look.clear is not None
        and slower > _NO_SIGN
        and _SHIFT_AT_LAST_LOOK * noise > math.log1p(_HOPELESS_THRESHOLDS * threshold)
    )
    low, high = _bounds(base, head, 0.025)
    return Verdict(
        outcome,
        math.expm1(effect),
        math.expm1(low) if math.isfinite(low) else None,
        math.expm1(high) if math.isfinite(high) else None,
        min(slower, faster),
        _detectable(residuals, pairs, look.alpha_so_far, log_threshold),
        pairs,
        noise=math.expm1(noise) if pairs > 1 else None,
        reason="more pairs would not help against so much noise" if hopeless else "",
    )


def _bounds(base: Values, head: Values, alpha: float) -> tuple[float, float]:
    """Bounds of the shift, each of which is wrong with a probability of alpha at most.

    They are the shifts that the exact test just does not reject: order statistics of the differences of every run of
    head with every run of base. Infinite where there are too few pairs.

    Source: Hodges and Lehmann 1963, "Estimates of location based on rank tests".
    """
    differences = np.sort((head[:, None] - base[None, :]).ravel())
    rejected = least_significant_u(len(base), alpha)
    if rejected is None:
        return -math.inf, math.inf
    outside = len(differences) - rejected
    return float(differences[outside]), float(differences[-1 - outside])


def noise_and_power(
    base: Sequence[Run], head: Sequence[Run], pairs: int, *, threshold: float = THRESHOLD
) -> tuple[float, float | None]:
    """Return the noise between processes, and the smallest slowdown that 90 of 100 comparisons would find.

    Args:
        base, head: runs of an unchanged benchmark side by side, at least two pairs.
        pairs: how many pairs the comparisons have at most. They are staged, so with fewer than 20 pairs they have
            spent less of the level than 0.01.
        threshold: as for `decide`.

    Returns:
        Both as relative changes. The slowdown is None where so few pairs find nothing.

    Example:
        >>> runs = [{"wall": [1.0 + 0.001 * (i * 7 % 10)]} for i in range(10)]
        >>> noise_and_power(runs, runs[::-1], 4)[1] is None
        True
        >>> noise, detectable = noise_and_power(runs, runs[::-1], 10)
        >>> 0.002 < noise < 0.004, 0.02 < detectable < 0.03
        (True, True)
    """
    runs = [*base, *head]
    candidates = estimators(
        min(len(run.get("wall", ())) for run in runs),
        with_reference=all(len(run.get("ref", ())) for run in runs),
    )
    values = log_values(runs, candidates)
    sides = values[:, : len(base)], values[:, len(base) :]
    chosen = choose(values[:, :0], *sides)
    residuals = _residuals(*(side[chosen].mean(axis=0) for side in sides))
    detectable = _detectable(residuals, pairs, looks_at(pairs)[-1].alpha_so_far, math.log1p(threshold))
    return math.expm1(_noise(residuals)), detectable


def _noise(residuals: Values) -> float:
    """The standard deviation between processes, from the residuals of both sides."""
    pairs = len(residuals) // 2
    return float(residuals.std()) * math.sqrt(pairs / max(1, pairs - 1))


def _residuals(base: Values, head: Values) -> Values:
    return np.concatenate([base - np.median(base), head - np.median(head)])


def _detectable(residuals: Values, pairs: int, alpha: float, log_threshold: float) -> float | None:
    """The smallest slowdown that 90 of 100 comparisons with these residuals find; None with too few pairs.

    Comparisons are drawn from the residuals. The slowdown that one of them needs has a closed form: as many differences
    as the test needs must be above 0, and the median must exceed the threshold.
    """
    needed = least_significant_u(pairs, alpha)
    if needed is None:
        return None
    # Residuals from a side's own median are smaller than those from the true one.
    known = len(residuals) // 2
    spread = residuals * math.sqrt(known / max(1, known - 1))
    base, head = np.random.default_rng(0).choice(spread, size=(2, _RESAMPLES, pairs))
    place = pairs * pairs - needed
    by_rank = np.empty(_RESAMPLES)
    for index, (ours, theirs) in enumerate(zip(base, head, strict=True)):
        by_rank[index] = -np.partition((theirs[:, None] - ours).ravel(), place)[place]
    by_size = log_threshold - np.median(head - base, axis=1)
    return math.expm1(float(np.quantile(np.maximum(by_rank, by_size), _FOUND)))
