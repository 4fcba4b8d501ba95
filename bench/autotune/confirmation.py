"""Whether a challenger replaces the default: only when it is faster by more than the noise. Pure.

Both are timed in fresh rounds, in random order, and the differences d_r = log t_r(default) - log t_r(challenger) are
tested by the exact one-sided signed-rank test (Wilcoxon 1945). Where both are the same, a round's two times can be
exchanged, so the sign of each difference is a fair coin, whatever the noise. The test looks after 12, 24 and 48 rounds
at a third of `risk` each, so the default loses to its equal in at most that share of searches. Samples of the race are
not used again: the winner was chosen by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusetune.bench.autotune.race import pseudomedian
from fusetune.bench.gate import least_significant_rank_sum, signed_rank

LOOKS = (12, 24, 48)
RISK = 0.008


@dataclass(frozen=True)
class Confirmation:
    """What the rounds against the default came to.

    Args:
        replaces: the challenger is the new config.
        p: of the exact test at the last look.
        gain: the default's time over the challenger's, 1 where they are alike. NaN without a round.
        low, high: ends of its 95 % interval, by the inverted test. NaN where rounds are too few.
        defaults_s, challengers_s: the samples, one a round.
        complete: False where the budget ended before a decision.
    """

    replaces: bool
    p: float
    gain: float
    low: float
    high: float
    defaults_s: tuple[float, ...]
    challengers_s: tuple[float, ...]
    complete: bool = True


def confirm(
    sample: Callable[[str, int], float],
    *,
    may_go_on: Callable[[], bool] = lambda: True,
    looks: Sequence[int] = LOOKS,
    risk: float = RISK,
    seed: int = 0,
) -> Confirmation:
    """Time both until the test decides or the rounds end.

    Args:
        sample: `sample("default" or "challenger", round)` times one once, and returns seconds. A time that is not
            finite says that it failed: the default stays, or goes where it was the default that failed.
        may_go_on: asked before each sample. After a False no round counts that is not complete.
        looks: after how many rounds the test is made.
        risk: the chance that the default is replaced by its equal.
        seed: of the order inside the rounds.

    Example:
        >>> times = {"default": 2.0, "challenger": 1.0}
        >>> found = confirm(lambda side, turn: times[side] + 1e-3 * turn)
        >>> found.replaces, len(found.defaults_s), found.p == 2**-12
        (True, 12, True)
    """
    generator = np.random.default_rng(seed)
    rows: list[tuple[float, float]] = []
    p, complete = 1.0, True
    while len(rows) < max(looks):
        times: dict[str, float] = {}
        for side in ("default", "challenger") if generator.random() < 0.5 else ("challenger", "default"):
            if not may_go_on():
                break
            times[side] = sample(side, len(rows))
            if not (math.isfinite(times[side]) and times[side] > 0):
                return _confirmation(rows, p, replaces=side == "default")
        if len(times) < 2:
            complete = False
            break
        rows.append((times["default"], times["challenger"]))
        if len(rows) in looks:
            p = signed_rank([math.log(first / second) for first, second in rows])
            if p <= risk / len(looks):
                return _confirmation(rows, p, replaces=True)
            if p > 0.5:  # it is not even faster by this half of the rounds
                break
    return _confirmation(rows, p, replaces=False, complete=complete)


def _confirmation(
    rows: Sequence[tuple[float, float]], p: float, *, replaces: bool, complete: bool = True
) -> Confirmation:
    """The rounds, with their gain and its interval."""
    gain = low = high = math.nan
    if rows:
        logs = np.log([first / second for first, second in rows])
        gain = math.exp(float(pseudomedian(logs)))
        low, high = interval(logs)
    defaults_s, challengers_s = zip(*rows, strict=True) if rows else ((), ())
    return Confirmation(replaces, p, gain, low, high, tuple(defaults_s), tuple(challengers_s), complete)


def interval(logs: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a gain: the shifts that the two-sided signed-rank test does not reject at 5 %.

    Args:
        logs: (rounds,) log of a ratio.

    Returns:
        Its ends, as ratios. NaN where fewer than 6 rounds cannot reject anything.

    Example:
        >>> low, high = interval(np.log(np.array([1.1, 1.2, 1.3, 1.4, 1.5, 1.6])))
        >>> round(low, 6), round(high, 6)
        (1.1, 1.6)
    """
    n = len(logs)
    rank = least_significant_rank_sum(n, 0.025)
    if rank is None:
        return math.nan, math.nan
    i, j = np.triu_indices(n)
    means = np.sort((logs[i] + logs[j]) / 2)
    return math.exp(means[-rank]), math.exp(means[rank - 1])
