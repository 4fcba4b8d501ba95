"""The critical batch size from trainings at several batch sizes: what more samples a step still save (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusetune.errors import InvalidValueError
from fusetune.tuner.batch_size.noise_estimate import samples_text

LEAST_SIZES = 3
# The search goes this far beyond the batch sizes that were run. A limit out there looks like none.
_REACH = 1000.0
_POINTS_A_DECADE = 400


@dataclass(frozen=True)
class CriticalBatch:
    """The trade of steps against samples.

    Args:
        value: E_min / S_min in samples. None where the runs do not determine it.
        low: lower end of its interval. 0 where there is none.
        high: upper end. Infinite where there is none.
        confidence: of the interval.
        min_steps: S_min, steps with endless batches. None without a value.
        min_samples: E_min, samples with batches of one. None without a value.
        reason: one sentence.
    """

    value: float | None
    low: float
    high: float
    confidence: float
    min_steps: float | None
    min_samples: float | None
    reason: str


def fit_critical_batch(
    batch_sizes: Sequence[float], steps: Sequence[float], *, confidence: float = 0.9
) -> CriticalBatch:
    """Fit how the steps to a target fall with the batch size.

        (S / S_min - 1) (E / E_min - 1) = 1, with E = B S        the same as        S = S_min (1 + B_crit / B)

    by least squares of log S, so that all sizes count alike. The interval holds every B_crit that an F test does not
    reject. Each batch size should have been run at a learning rate that suits it, or the fit sees the rate as well.

    Args:
        batch_sizes: samples in a step, one for each training.
        steps: S, steps to the target, above 0.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: fewer than 3 batch sizes, or numbers that are not finite and above 0.

    Example:
        >>> sizes = [16, 64, 256, 1024]
        >>> found = fit_critical_batch(sizes, [100 * (1 + 200 / size) for size in sizes])
        >>> round(found.value), round(found.min_steps), round(found.min_samples)
        (200, 100, 20000)

    Source: S. McCandlish et al., "An empirical model of large-batch training" (2018), equation 2.11 and section 2.3.
    """
    if len(batch_sizes) != len(steps):
        raise InvalidValueError(
            "batch_sizes and steps",
            f"{len(batch_sizes)} and {len(steps)} values",
            to_do="Give one of each a training",
        )
    if not all(0 < value < math.inf for value in (*batch_sizes, *steps)):
        raise InvalidValueError(
            "batch_sizes and steps", "must be finite and above 0", to_do="Leave out what missed the target"
        )
    if len(set(batch_sizes)) < LEAST_SIZES:
        raise InvalidValueError(
            "batch_sizes",
            f"{len(set(batch_sizes))} different ones are too few",
            to_do=f"Run {LEAST_SIZES} or more",
        )
    if not 0 < confidence < 1:
        raise InvalidValueError("confidence", f"{confidence} must be between 0 and 1")
    from scipy.special import fdtri

    fit = _Fit(np.asarray(batch_sizes, dtype=float), np.log(np.asarray(steps, dtype=float)))
    grid = _grid(min(batch_sizes) / _REACH, max(batch_sizes) * _REACH)
    residuals = np.array([fit.residual(critical) for critical in grid])
    best = int(residuals.argmin())
    freedom = len(steps) - 2
    # Rounding leaves a perfect fit some 1e-30 of squares.
    threshold = residuals[best] * (1 + fdtri(1, freedom, confidence) / freedom) + 1e-20
    inside = np.flatnonzero(residuals <= threshold)
    low = 0.0 if inside[0] == 0 else float(grid[inside[0]])
    high = math.inf if inside[-1] == len(grid) - 1 else float(grid[inside[-1]])
    if low == 0.0 or math.isinf(high):
        reason = _unknown(low, high, max(batch_sizes))
        return CriticalBatch(None, low, high, confidence, None, None, reason)
    critical = fit.refined(float(grid[best - 1]), float(grid[best + 1]))
    min_steps = fit.min_steps(critical)
    reason = (
        f"{len(steps)} trainings at {len(set(batch_sizes))} batch sizes give a critical batch size of "
        f"{samples_text(critical)} ({100 * confidence:g} % interval {samples_text(low)} to {samples_text(high)})"
    )
    return CriticalBatch(critical, low, high, confidence, min_steps, critical * min_steps, reason)


class _Fit:
    """log S = log S_min + log(1 + B_crit / B). For a given B_crit the best S_min is a mean."""

    def __init__(self, sizes: np.ndarray, log_steps: np.ndarray) -> None:
        self._sizes = sizes
        self._log_steps = log_steps

    def residual(self, critical: float) -> float:
        """Return the sum of squares that is left."""
        offsets = self._log_steps - np.log1p(critical / self._sizes)
        return float(((offsets - offsets.mean()) ** 2).sum())

    def min_steps(self, critical: float) -> float:
        """Return S_min."""
        return float(np.exp((self._log_steps - np.log1p(critical / self._sizes)).mean()))

    def refined(self, low: float, high: float) -> float:
        """Return the best B_crit between two neighbours of the best grid point."""
        from scipy.optimize import minimize_scalar

        found = minimize_scalar(
            lambda log: self.residual(math.exp(log)),
            bounds=(math.log(low), math.log(high)),
            method="bounded",
            options={"xatol": 1e-9},
        )
        return math.exp(found.x)


def _grid(low: float, high: float) -> np.ndarray:
    """Return values evenly apart in their logarithm."""
    return np.geomspace(low, high, int(_POINTS_A_DECADE * math.log10(high / low)) + 1)


def _unknown(low: float, high: float, largest: float) -> str:
    """Return why the runs do not determine a critical batch size."""
    if low > 0:
        return (
            f"steps fall in proportion up to batch size {largest:g}; the critical batch size is at least "
            f"{samples_text(low)}"
        )
    if math.isfinite(high):
        return f"larger batches save no steps; the critical batch size is at most {samples_text(high)}"
    return "the steps to the target differ too little, or scatter too much, to tell a critical batch size"
