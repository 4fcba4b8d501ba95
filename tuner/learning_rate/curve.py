"""The curve of a learning rate sweep: smoothing without lag or bias, its noise, and when it has diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SMOOTHING = 0.7
LEAST_UNTRAINED = 3
# The first steps hardly move the model; their mean is the untrained model's loss.
_UNTRAINED_SHARE = 0.1
_WATCHED_FROM = 10
_NOISE_DEVIATIONS = 6.0
# Of single losses. A higher loss is an explosion, which smoothing must not spread.
_BOUND_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Curve:
    """Losses against increasing rates, and whether the last of them has diverged; only that one may be not finite."""

    lrs: Sequence[float]
    losses: Sequence[float]
    diverged: bool


class DivergenceWatch:
    """Decides, loss by loss, whether a sweep has diverged: a loss that is not finite, or a rise beyond noise.

        s_i - min_{j<=i} s_j > max(|untrained loss|, its fall so far, 6 standard deviations of the first losses)

    where s is the debiased exponential average. The first ten losses give the scale. Among them, only a loss that is
    not finite counts as divergence.

    Example:
        >>> watch = DivergenceWatch()
        >>> [watch.diverged(loss) for loss in [2.0] * 12 + [float("nan")]][-2:]
        [False, True]
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._average = 0.0
        self._best = math.inf

    def diverged(self, loss: float) -> bool:
        """Take the next loss. Return whether the sweep has diverged."""
        if not math.isfinite(loss):
            return True
        self._losses.append(loss)
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        smoothed = self._average / (1 - SMOOTHING ** len(self._losses))
        self._best = min(self._best, smoothed)
        if len(self._losses) <= _WATCHED_FROM:
            return False
        first = self._losses[:_WATCHED_FROM]
        untrained = float(np.median(first))
        noise = _NOISE_DEVIATIONS * float(np.std(first))
        return smoothed - self._best > max(abs(untrained), untrained - self._best, noise)


def smoothed(losses: Sequence[float], smoothing: float = SMOOTHING) -> list[float]:
    """Return the exponential moving average, debiased for its start from zero.

        s_i = sum_{j<=i} b^(i-j) l_j / sum_{j<=i} b^(i-j)

    Example:
        >>> smoothed([4.0, 2.0], smoothing=0.5)
        [4.0, 2.6666666666666665]
    """
    values, average = [], 0.0
    for count, loss in enumerate(losses, start=1):
        average = smoothing * average + (1 - smoothing) * loss
        values.append(average / (1 - smoothing**count))
    return values


def smoothed_both_ways(
    losses: Sequence[float] | NDArray[np.float64], smoothing: float = SMOOTHING
) -> NDArray[np.float64]:
    """Average exponentially in both directions, so that the curve does not lag behind its losses.

        s_i = sum_j b^|i-j| l_j / sum_j b^|i-j|

    Example:
        >>> smoothed_both_ways([1.0, 2.0, 3.0], smoothing=0.5).tolist()[1]
        2.0
    """
    place = np.arange(len(losses))
    weights = smoothing ** np.abs(place[:, None] - place)
    averages: NDArray[np.float64] = weights @ np.asarray(losses, dtype=np.float64) / weights.sum(1)
    return averages


def bounded(curve: Curve) -> NDArray[np.float64]:
    """Return a curve's losses, clipped at the untrained model's plus three standard deviations of the noise."""
    losses = np.array(curve.losses, dtype=np.float64)
    seen = losses[np.isfinite(losses)]
    losses[~np.isfinite(losses)] = math.inf
    bound: float = seen[: untrained_steps(losses)].mean() + _BOUND_DEVIATIONS * noise(seen)
    return np.minimum(losses, bound)


def untrained_steps(losses: np.ndarray) -> int:
    """Return how many of the first steps hardly move the model."""
    return max(LEAST_UNTRAINED, int(_UNTRAINED_SHARE * len(losses)))


def noise(losses: np.ndarray) -> float:
    """Return the standard deviation of single losses about the curve."""
    # Differences of neighbours cancel the fall; their median is robust against the divergence.
    return float(np.median(np.abs(np.diff(losses)))) / (math.sqrt(2) * float(stats.norm.ppf(0.75)))


def roughness(losses: np.ndarray) -> float:
    """Return the standard deviation of single losses about a curve that rises or falls evenly."""
    return float(np.median(np.abs(np.diff(losses, 2)))) / (math.sqrt(6) * float(stats.norm.ppf(0.75)))
