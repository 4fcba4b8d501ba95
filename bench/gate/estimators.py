"""How the rounds of one process become one number, and which of the ways is the least noisy for a benchmark.

Samples of one process are not independent evidence: memory layout, clock and neighbours differ between processes. So
the unit is the process, and a process has one value. It is the logarithm of a location of its rounds, less a share of
the logarithm of the reference loop's time:

    v = log location(wall) - exponent * log quartile(ref)

A benchmark whose time follows the clock rate wants an exponent near 1, one that waits for memory wants 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusetune.errors import InvalidValueError

Run = Mapping[str, Sequence[float]]
Values = NDArray[np.float64]

_LOCATIONS = ("minimum", "lower decile", "lower quartile", "median", "mean")
_QUANTILES = {"minimum": 0.0, "lower decile": 0.1, "lower quartile": 0.25, "median": 0.5}
_FIRST_ROUNDS = (5, 30, None)
_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# The mean of the best estimators varies less by the choice than the best alone. Much noisier ones would add noise.
_AVERAGED = 5
_AS_QUIET = 1.25


@dataclass(frozen=True)
class Estimator:
    """One way from the rounds of a process to one value.

    Args:
        location: `minimum`, `lower decile`, `lower quartile`, `median` or `mean` of the rounds.
        rounds: how many of the first rounds count; None: all.
        exponent: share of the reference loop's time that is divided out.
    """

    location: str
    rounds: int | None
    exponent: float

    @property
    def name(self) -> str:
        """The estimator in words.

        Example:
            >>> Estimator("median", 30, 0.5).name
            'median of the first 30 rounds / reference^0.5'
        """
        rounds = "all rounds" if self.rounds is None else f"the first {self.rounds} rounds"
        divided = f" / reference^{self.exponent:g}" if self.exponent else ""
        return f"{self.location} of {rounds}{divided}"


def estimators(rounds: int, *, with_reference: bool) -> tuple[Estimator, ...]:
    """List the candidates for processes of so many rounds.

    Example:
        >>> len(estimators(40, with_reference=True)), len(estimators(1, with_reference=False))
        (75, 1)
    """
    if rounds == 1:
        return tuple(Estimator("median", None, e) for e in (_EXPONENTS if with_reference else (0.0,)))
    firsts = [first for first in _FIRST_ROUNDS if first is None or first < rounds]
    return tuple(
        Estimator(location, first, exponent)
        for location in _LOCATIONS
        for first in firsts
        for exponent in (_EXPONENTS if with_reference else (0.0,))
    )


def log_values(runs: Sequence[Run], candidates: Sequence[Estimator]) -> Values:
    """Return the value of each run by each candidate, shape [candidates, runs].

    Only as many rounds count as the shortest run has, because the minimum of more rounds is smaller by itself.

    Raises:
        InvalidValueError: a run without rounds, or with a time that is not finite or not above 0.
    """
    walls = [_checked(run, "wall", index) for index, run in enumerate(runs)]
    refs = [_checked(run, "ref", index) for index, run in enumerate(runs)]
    log_ref = np.array([np.log(np.quantile(ref, 0.25)) if len(ref) else 0.0 for ref in refs])
    shortest = min(len(wall) for wall in walls)
    whole = np.stack([wall[:shortest] for wall in walls])
    logs: dict[int | None, dict[str, Values]] = {}
    for rounds in {candidate.rounds for candidate in candidates}:
        first = whole[:, :rounds]
        levels = np.log(np.quantile(first, list(_QUANTILES.values()), axis=1))
        logs[rounds] = dict(zip(_QUANTILES, levels, strict=True))
        logs[rounds]["mean"] = np.log(first.mean(axis=1))
    return np.array([logs[c.rounds][c.location] - c.exponent * log_ref for c in candidates])


def choose(history: Values, base: Values, head: Values) -> NDArray[np.intp]:
    """Choose the candidates of least noise, without a look at which side a run is on.

    The noise of a candidate is the mean absolute difference of successive runs in `history`, and of successive pair
    means of the comparison. A pair's mean is the same whichever of its two runs is the head's. So the choice cannot
    favour an outcome, and the exact test that follows stays exact.

    Args:
        history: values of earlier runs of the unchanged benchmark, [candidates, runs]. May have no runs.
        base, head: values of the two sides, [candidates, pairs].

    Returns:
        Indices of the candidates to average, the best first.
    """
    pair_means = np.diff((base + head) / 2, axis=1) * 2**0.5
    changes = np.abs(np.concatenate([pair_means, np.diff(history, axis=1)], axis=1))
    if not changes.shape[1]:
        return np.arange(1)
    noise = changes.mean(axis=1)
    best = np.argsort(noise, kind="stable")[:_AVERAGED]
    quiet = noise[best] <= _AS_QUIET * noise[best[0]]
    return np.compress(quiet, best)


def _checked(run: Run, name: str, index: int) -> Values:
    values = np.asarray(run.get(name, ()), dtype=np.float64)
    if name == "wall" and not len(values):
        raise InvalidValueError("decide", f"run {index} has no rounds in 'wall'", "at least one is needed")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidValueError(
            "decide", f"run {index} has a time in '{name}' that is not a finite number above 0"
        )
    return values
