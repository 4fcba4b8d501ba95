"""A race: which of some candidates is fastest, by as few timings as that takes. Pure: it times through a function.

Candidates are timed in rounds, each once a round, in random order. A comparison is made inside of rounds, so what
changes from round to round changes nothing: clocks, temperature, and the work of others. After each round

    d_r = log t_r - log t_r(leader)      for each candidate, over the rounds r so far
    D   = pseudomedian of d              (Hodges and Lehmann: the median of the means of all pairs)
    se  = scale / sqrt(0.955 n)          scale: by the median absolute deviation, so that outliers do not widen it

The leader is the candidate with the lowest pseudomedian of log t_r, less the median of round r. A candidate leaves

    slower   when D - z se > 0, and so many d are positive that a sign test's p is below 1/8
    no gain  when D - z' se > -indifference: if it wins at all, then by less than anyone cares for
    failed   when its time is not finite

z follows from `risk` by Bonferroni's bound over the candidates. It looks after rounds that grow by a sixth, for a look
costs more than a short kernel. The race ends with one candidate left, after `most_rounds`, or when `may_go_on` says so.
Then the leader wins.

Source of the estimates: Hodges and Lehmann 1963, "Estimates of location based on rank tests". Racing: Maron and Moore
1994, "Hoeffding races".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np

Why = Literal["slower", "no gain", "failed"]
End = Literal["one left", "rounds", "budget", "all failed"]

_NORMAL_SCALE = (
    1.4826  # of the median absolute deviation, so that it is a standard deviation of normal samples
)
_EFFICIENCY = 0.955  # of the pseudomedian against the mean, for normal samples
_SIGN_P = 1 / 8
_SHARED_WEIGHT = 8  # so many differences is the scale of the whole field worth, beside a candidate's own
_GROWTH = 7 / 6  # of the rounds between two looks
_LEAST_SCALE = 1e-5  # below what a clock resolves


@dataclass(frozen=True)
class Rules:
    """When candidates leave.

    Args:
        risk: the chance that the best is left out as slower, of all candidates together, at a single look.
        indifference: relative difference in time that nobody cares for.
        soft_z: standard errors of the bound for `no gain`.
        least_rounds: before anyone leaves.
        least_soft_rounds: before anyone leaves for `no gain`.
        most_rounds: the end.
    """

    risk: float = 0.02
    indifference: float = 0.003
    soft_z: float = 1.64
    least_rounds: int = 3
    least_soft_rounds: int = 8
    most_rounds: int = 80


@dataclass(frozen=True)
class Departure:
    """Why and when a candidate left.

    Args:
        why: see the module.
        rounds: that it was timed in.
        behind: its time over the leader's, minus 1. NaN where it failed.
    """

    why: Why
    rounds: int
    behind: float


@dataclass(frozen=True)
class RaceResult:
    """What a race came to.

    Args:
        winner: index of the candidate. None where all failed.
        end: why the race ended.
        samples_s: (rounds, candidates). NaN where a candidate was not timed.
        order: (rounds,) candidates in the order in which they were timed.
        left: index -> why it left. Those that are not here were there at the end.
    """

    winner: int | None
    end: End
    samples_s: np.ndarray
    order: tuple[tuple[int, ...], ...] = field(repr=False)
    left: dict[int, Departure] = field(default_factory=dict)

    @property
    def timings(self) -> int:
        """Number of samples."""
        return int((~np.isnan(self.samples_s)).sum())

    def ranking(self) -> list[int]:
        """Return those that did not fail: the winner, then those that stayed longest and were nearest."""
        if self.winner is None:
            return []
        rest = [
            (-departure.rounds, departure.behind, candidate)
            for candidate, departure in self.left.items()
            if departure.why != "failed"
        ]
        others = [candidate for candidate in self.survivors if candidate != self.winner]
        return [self.winner, *others, *(candidate for _, _, candidate in sorted(rest))]

    @property
    def survivors(self) -> tuple[int, ...]:
        """Those that were never left out."""
        return tuple(i for i in range(self.samples_s.shape[1]) if i not in self.left)


def run_race(
    candidates: int,
    sample: Callable[[int, int], float],
    *,
    rules: Rules | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
    seed: int = 0,
    most_samples: int | None = None,
) -> RaceResult:
    """Find the fastest candidate.

    Args:
        candidates: how many, at least 1.
        sample: `sample(candidate, round)` times a candidate once and returns seconds. A time that is not finite, or
            not above 0, says that the candidate failed.
        rules: when candidates leave.
        may_go_on: asked before each sample. After a False the race ends, and the round that was begun counts for
            nothing.
        seed: of the order inside the rounds.
        most_samples: the race ends before the round that would exceed it.

    Example:
        >>> times = [3.0, 1.0, 2.0]
        >>> found = run_race(3, lambda candidate, turn: times[candidate])
        >>> found.winner, found.end, found.left[0].why
        (1, 'one left', 'slower')
    """
    rules = rules or Rules()
    z = NormalDist().inv_cdf(1 - rules.risk / max(2, candidates))
    generator = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    orders: list[tuple[int, ...]] = []
    left: dict[int, Departure] = {}
    there = list(range(candidates))
    spent = 0
    look = rules.least_rounds
    end: End = "rounds"
    while len(rows) < rules.most_rounds:
        if not there or (len(there) == 1 and len(rows) >= rules.least_rounds):
            end = "one left" if there else "all failed"
            break
        if most_samples is not None and spent + len(there) > most_samples:
            end = "budget"
            break
        row = np.full(candidates, np.nan)
        order = tuple(int(candidate) for candidate in generator.permutation(there))
        for candidate in order:
            if not may_go_on():
                end = "budget"
                break
            seconds = sample(candidate, len(rows))
            spent += 1
            if math.isfinite(seconds) and seconds > 0:
                row[candidate] = seconds
            else:
                there.remove(candidate)
                left[candidate] = Departure("failed", len(rows), math.nan)
        if end == "budget":
            break
        rows.append(row)
        orders.append(order)
        if len(rows) >= look and len(there) > 1:
            look = max(len(rows) + 1, math.ceil(len(rows) * _GROWTH))
            for candidate, departure in _departures(np.log(np.array(rows)[:, there]), there, rules, z):
                there.remove(candidate)
                left[candidate] = departure
    samples_s = np.array(rows).reshape(len(rows), candidates)
    if len(there) == 1 and end == "rounds":
        end = "one left"
    winner = _leader(np.log(samples_s[:, there]), there)
    return RaceResult(winner, end if winner is not None else "all failed", samples_s, tuple(orders), left)


def pseudomedian(values: np.ndarray) -> np.ndarray:
    """Return the median of the means of all pairs, each value with itself among them, along the first axis.

    Example:
        >>> float(pseudomedian(np.array([1.0, 2.0, 300.0])))
        76.25
        >>> float(pseudomedian(np.array([1.0, 2.0, 3.0, 4.0, 500.0])))
        3.0
    """
    i, j = np.triu_indices(len(values))
    medians: np.ndarray = np.median((values[i] + values[j]) / 2, axis=0)
    return medians


def _leader(logs: np.ndarray, there: list[int]) -> int | None:
    """The candidate with the lowest time. Columns of `logs` are those that are there."""
    if not there:
        return None
    if not len(logs):
        return there[0]
    effects = np.median(logs, axis=1, keepdims=True)
    return there[int(np.argmin(pseudomedian(logs - effects)))]


def _departures(logs: np.ndarray, there: list[int], rules: Rules, z: float) -> list[tuple[int, Departure]]:
    """Those that leave after this round."""
    leader = _leader(logs, there)
    others = [place for place, candidate in enumerate(there) if candidate != leader]
    differences = logs[:, others] - logs[:, [there.index(leader)]] if leader is not None else logs[:, others]
    n = len(differences)
    behind = pseudomedian(differences)
    errors = _scales(differences) / math.sqrt(_EFFICIENCY * n)
    found = []
    for column, place in enumerate(others):
        enough = _sign_p(int((differences[:, column] <= 0).sum()), n) <= _SIGN_P
        if behind[column] - z * errors[column] > 0 and enough:
            why: Why = "slower"
        elif (
            n >= rules.least_soft_rounds
            and behind[column] - rules.soft_z * errors[column] > -rules.indifference
        ):
            why = "no gain"
        else:
            continue
        found.append((there[place], Departure(why, n, math.expm1(behind[column]))))
    return found


def _scales(differences: np.ndarray) -> np.ndarray:
    """(candidates,) the scale of each one's differences, its own and the whole field's together."""
    n = len(differences)
    centred = np.abs(differences - np.median(differences, axis=0))
    # A median of few absolute deviations from their own median is too small by about this factor.
    own = _NORMAL_SCALE * np.median(centred, axis=0) * n / (n - 0.8)
    shared = np.median(own)
    squares = (n * own**2 + _SHARED_WEIGHT * shared**2) / (n + _SHARED_WEIGHT)
    scales: np.ndarray = np.maximum(np.sqrt(squares), _LEAST_SCALE)
    return scales


def _sign_p(not_above: int, n: int) -> float:
    """The chance that at most so many of n fair coins show heads."""
    ways = sum(math.comb(n, k) for k in range(not_above + 1))
    return ways / float(2**n)
