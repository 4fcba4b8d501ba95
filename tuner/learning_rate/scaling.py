"""How the best learning rate grows with the batch size: a power law fitted to measurements, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusetune.errors import InvalidValueError

LEAST_SIZES = 3
_RESAMPLES = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class LRScaling:
    """A power law lr = c * batch_size^exponent.

    Args:
        exponent: 1 is linear scaling, 0.5 the square root.
        low: lower end of its 95 % interval.
        high: upper end.
        log_scale: log c.
        batch_sizes: the distinct ones behind it, increasing.
        points: measurements behind it.
        left_out: measurements that the caller left out, because their intervals are too wide.
    """

    exponent: float
    low: float
    high: float
    log_scale: float
    batch_sizes: tuple[int, ...]
    points: int
    left_out: int = 0

    def lr_at(self, batch_size: float) -> float:
        """Return the fitted rate for a batch size; outside those measured it extrapolates."""
        return math.exp(self.log_scale + self.exponent * math.log(batch_size))


def fit_lr_scaling(batch_sizes: Sequence[int], lrs: Sequence[float], *, seed: int = 0) -> LRScaling:
    """Fit a power law by least squares in the logarithms.

        log lr = log c + exponent log batch_size

    The interval is a bootstrap's: the measurements of each batch size are resampled with replacement. With one
    measurement a size, residuals are resampled, times sqrt(n / (n - 2)) for the two fitted parameters.

    Args:
        batch_sizes: one a measurement, 1 or more; at least three distinct ones.
        lrs: the best rate found in each measurement, above 0; repeats and seeds are measurements of their own.
        seed: of the bootstrap.

    Raises:
        ValueError: lengths that differ, numbers out of range, or fewer than three distinct batch sizes.

    Example:
        >>> scaling = fit_lr_scaling([16, 64, 256], [0.01, 0.02, 0.04])
        >>> round(scaling.exponent, 6), round(scaling.lr_at(1024), 6)
        (0.5, 0.08)
    """
    _check(batch_sizes, lrs)
    x, y = np.log(np.asarray(batch_sizes, dtype=np.float64)), np.log(np.asarray(lrs, dtype=np.float64))
    exponent, log_scale = np.polyfit(x, y, 1)
    drawn = _exponents(x, y, np.random.default_rng(seed))
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    sizes = tuple(sorted(set(batch_sizes)))
    return LRScaling(
        float(exponent),
        min(float(low), float(exponent)),
        max(float(high), float(exponent)),
        float(log_scale),
        sizes,
        len(lrs),
    )


def _check(batch_sizes: Sequence[int], lrs: Sequence[float]) -> None:
    if len(batch_sizes) != len(lrs):
        raise InvalidValueError(
            "batch_sizes and lrs",
            f"{len(batch_sizes)} and {len(lrs)} values",
            to_do="Give one rate for each size",
        )
    if any(size < 1 for size in batch_sizes):
        raise InvalidValueError("batch_sizes", f"{min(batch_sizes)} must be 1 or more")
    if not all(0 < lr < math.inf for lr in lrs):
        raise InvalidValueError("lrs", "every rate must be finite and above 0")
    distinct = len(set(batch_sizes))
    if distinct < LEAST_SIZES:
        raise InvalidValueError(
            "batch_sizes", f"{distinct} distinct", f"an exponent with an interval needs {LEAST_SIZES} or more"
        )


def _exponents(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the slope of each bootstrap sample."""
    groups = [np.flatnonzero(x == size) for size in np.unique(x)]
    if all(len(group) > 1 for group in groups):
        columns = [random.choice(group, (_RESAMPLES, len(group))) for group in groups]
        chosen = np.concatenate(columns, axis=1)
        return _slopes(x[chosen], y[chosen])
    line = np.polyval(np.polyfit(x, y, 1), x)
    residuals = (y - line) * math.sqrt(len(x) / (len(x) - 2))
    drawn = line + random.choice(residuals, (_RESAMPLES, len(x)))
    return _slopes(np.broadcast_to(x, drawn.shape), drawn)


def _slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit a line to each row and return the slopes."""
    centred = x - x.mean(1, keepdims=True)
    slopes: NDArray[np.float64] = (centred * y).sum(1) / (centred**2).sum(1)
    return slopes
