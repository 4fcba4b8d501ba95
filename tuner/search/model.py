"""A Gaussian process over (configuration, epoch): what a training will reach, seen from every epoch of all of them.

The metric is first put on a scale where the last points count, see `gap_scale`. On it the model is

    z(x, e) = offset + b . m(x, e) + f(x, e) + g_x(e) + noise

    f     a smooth function of the configuration: main effects (a sum over the factors) and interactions (a product)
    g_x   the random effect of one training, shared by its epochs: its luck
    m     the prior from earlier runs (optional): their mean curves and how they differ, each with a coefficient of b
          that the observations correct

All of f, g and the offset change smoothly with the epoch (Matern 5/2), so an early epoch is informative about the last
one. Freeze-thaw search pauses and resumes trainings by the predicted end of their curves.

Source: Swersky, Snoek and Adams, "Freeze-thaw Bayesian optimization" (2014), for the idea; Rasmussen and Williams,
"Gaussian processes for machine learning" (2006), algorithm 2.1, for the equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

# A gap to the best of this share of the scale counts about as none: the resolution of the scale.
_RESOLUTION = 0.03
_SCALE_SHARE = 0.3
_JITTER = 1e-6
_OFFSET_LENGTH = 1.5
# Share of f's variance in the main effects, the rest being their interplay.
_MAIN_SHARE = 0.1
# One standard deviation of the factor on luck and noise from search to search.
_NOISE_SPREAD = 4.0
# More observations than this are thinned: of a training with many epochs, the first and the last are kept.
MOST_OBSERVATIONS = 200


@dataclass(frozen=True)
class Kernel:
    """Variances on the gap scale (whose whole range is about 5), and lengths.

    Args:
        smooth: variance of f.
        offset, luck, noise: variances of the offset, of g and of the noise at the end of a training.
        early_noise: what the noise is larger at the beginning, falling to nothing at the end.
        epochs, luck_epochs: lengths in shares of a training.
        prior, prior_mean: standard deviation and mean of the coefficient of the earlier runs' mean curves.
        deviations: standard deviation of the other coefficients around 0.
        optimism: standard deviations that a prediction is raised by on average when the next training is chosen.
    """

    smooth: float = 1.36
    offset: float = 0.5
    luck: float = 0.029
    noise: float = 0.012
    early_noise: float = 0.015
    epochs: float = 0.7
    luck_epochs: float = 0.25
    prior: float = 0.35
    prior_mean: float = 1.0
    deviations: float = 0.6
    optimism: float = 1.0

    def coefficients(self, terms: int) -> np.ndarray:
        """Return the standard deviations of the coefficients b."""
        return np.array([self.prior] + [self.deviations] * (terms - 1))

    def noisier(self, factor: float) -> Kernel:
        """Return the kernel with the variances of the luck and of the noise times a factor."""
        return replace(
            self,
            luck=self.luck * factor,
            noise=self.noise * factor,
            early_noise=self.early_noise * factor,
        )


# Fitted to the tables of bench/search_bench by maximum likelihood, each with a prior from data of other kinds. With a
# prior less is left to learn, but f and the luck were given more than fits random configurations (0.13 and 0.03): a
# search sees those that it chose, and is surer of itself than it should be.
WITHOUT_PRIOR = Kernel()
WITH_PRIOR = Kernel(
    smooth=0.4, offset=0.11, luck=0.045, early_noise=0.009, epochs=0.47, deviations=0.8, optimism=0.8
)


@dataclass(frozen=True)
class GapScale:
    """z = -log((best - y) / scale + resolution): equal steps for equal factors of the gap to the best."""

    best: float
    scale: float

    def z(self, y: np.ndarray) -> np.ndarray:
        """Return z of y, highest where y is best."""
        return -np.log(np.maximum(self.best - y, 0.0) / self.scale + _RESOLUTION)

    def y(self, z: float) -> float:
        """Return y of z."""
        return self.best - self.scale * (math.exp(-z) - _RESOLUTION)


def gap_scale(values: np.ndarray) -> GapScale:
    """Choose the scale for values seen so far, higher is better.

    scale = 0.3 |best|, or the range of the values where the best is 0

    Example:
        >>> scale = gap_scale(np.array([0.1, 0.9, 0.95]))
        >>> round(scale.y(float(scale.z(np.array([0.9]))[0])), 6)
        0.9
    """
    best = float(values.max())
    return GapScale(best, max(_SCALE_SHARE * abs(best), 1e-12) if best else max(float(np.ptp(values)), 1e-12))


def matern(distance: np.ndarray) -> np.ndarray:
    """Matern 5/2 correlation of a distance in lengths."""
    scaled = math.sqrt(5.0) * distance
    return (1 + scaled + scaled * scaled / 3) * np.exp(-scaled)


@dataclass(frozen=True)
class Observations:
    """Epochs of trainings, one entry each.

    Args:
        trial: (n,) int, the training's number.
        share: (n,) epochs done / epochs of a whole training.
        z: (n,) the metric on the gap scale.
        prior: (n, terms) m, or None.
    """

    trial: np.ndarray
    share: np.ndarray
    z: np.ndarray
    prior: np.ndarray | None = None

    @property
    def trainings(self) -> NDArray[np.intp]:
        """The trainings' numbers, in order and each once."""
        return np.unique(self.trial)

    def thinned(self, most: int = MOST_OBSERVATIONS) -> Observations:
        """Return at most `most` of them: the first and last of the best trainings, and of those begun last."""
        if len(self.z) <= most:
            return self
        trials, first = np.unique(self.trial, return_index=True)
        last = len(self.z) - 1 - np.unique(self.trial[::-1], return_index=True)[1]
        if len(np.union1d(first, last)) > most:
            highest = np.argsort(-np.maximum.reduceat(self.z, first), kind="stable")[: most // 4]
            left = np.setdiff1d(np.arange(len(trials)), highest)[-(most // 2 - len(highest)) :]
            chosen = np.union1d(highest, left)
            first, last = first[chosen], last[chosen]
        kept = np.union1d(first, last)
        prior = None if self.prior is None else self.prior[kept]
        return Observations(self.trial[kept], self.share[kept], self.z[kept], prior)


class CurveModel:
    """The posterior of z, given some epochs of some trainings.

    Args:
        kernel: variances and lengths.
        within: (trainings, trainings), `configuration_correlation` of those in the observations, by number.
        observations: one or more, ordered by training.
    """

    def __init__(
        self,
        kernel: Kernel,
        within: np.ndarray,
        observations: Observations,
    ) -> None:
        trial, share, z, prior = observations.trial, observations.share, observations.z, observations.prior
        self.kernel = kernel
        self._trial, self._share, self._prior = trial, share, prior
        self._column = np.unique(trial, return_inverse=True)[1]
        expected = 0.0 if prior is None else kernel.prior_mean * prior[:, 0]
        self._mean = float(np.mean(z - expected))
        covariance = (
            kernel.smooth * within[np.ix_(self._column, self._column)] * _along(share, share, kernel.epochs)
        )
        covariance += kernel.luck * (trial[:, None] == trial) * _along(share, share, kernel.luck_epochs)
        covariance += kernel.offset * _along(share, share, _OFFSET_LENGTH)
        if prior is not None:
            weighted = prior * kernel.coefficients(prior.shape[1])
            covariance += weighted @ weighted.T
        covariance[np.diag_indices(len(z))] += kernel.noise + kernel.early_noise * (1 - share) + _JITTER
        self._factor = np.linalg.cholesky(covariance)
        self._weights = solve_triangular(
            self._factor, z - expected - self._mean, lower=True, check_finite=False
        )

    @property
    def log_likelihood(self) -> float:
        """The log marginal likelihood of the observations, up to a constant."""
        return float(-0.5 * self._weights @ self._weights - np.log(np.diag(self._factor)).sum())

    def predict(
        self, across: np.ndarray, trial: np.ndarray, share: float = 1.0, prior: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of z, noise left out.

        Args:
            across: (m, trainings), `configuration_correlation` of the points asked for with the trainings.
            trial: (m,) which training each is; -1 for one that has not begun.
            share: where on the curve; 1 is the end.
            prior: (m, terms) m of each, where the model has a prior.
        """
        kernel, at = self.kernel, np.array([share])
        covariance = kernel.smooth * across[:, self._column] * _along(at, self._share, kernel.epochs)
        covariance += kernel.offset * _along(at, self._share, _OFFSET_LENGTH)
        begun = np.flatnonzero(trial >= 0)
        covariance[begun] += (
            kernel.luck * (trial[begun, None] == self._trial) * _along(at, self._share, kernel.luck_epochs)
        )
        variance = np.full(len(across), kernel.smooth + kernel.luck + kernel.offset)
        mean = np.full(len(across), self._mean)
        if self._prior is not None and prior is not None:
            size = kernel.coefficients(prior.shape[1])
            covariance += (prior * size**2) @ self._prior.T
            variance += (prior * prior) @ size**2
            mean += kernel.prior_mean * prior[:, 0]
        solved = solve_triangular(self._factor, covariance.T, lower=True, check_finite=False)
        variance -= np.einsum("ij,ij->j", solved, solved)
        return mean + self._weights @ solved, np.sqrt(np.maximum(variance, _JITTER))


def configuration_correlation(
    reach: NDArray[np.float64],
    is_name: NDArray[np.bool_],
    left: NDArray[np.float64],
    right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the correlation of f between two sets of points, at one epoch: (left, right).

        0.1 / factors * sum_j k_j + 0.9 prod_j k_j

    k_j: for numbers the Matern correlation at distance / reach, for names 1 where they agree and `reach` elsewhere
    """
    total = np.zeros((len(left), len(right)))
    product = np.ones_like(total)
    for j, named in enumerate(is_name):
        if named:
            alike = np.where(left[:, j, None] == right[:, j], 1.0, reach[j])
        else:
            alike = _along(left[:, j], right[:, j], reach[j])
        total += alike
        product *= alike
    correlation: NDArray[np.float64] = _MAIN_SHARE / left.shape[1] * total + (1 - _MAIN_SHARE) * product
    return correlation


def adapted_reach(
    kernel: Kernel,
    is_name: np.ndarray,
    within: Callable[[np.ndarray], np.ndarray],
    reach: np.ndarray,
    usual: np.ndarray,
    observations: Observations,
) -> np.ndarray | None:
    """Take one step for each factor towards the length (or correlation) that explains the observations best.

    A step multiplies a length by 1.5 or the odds of a correlation by 1.5^2, or divides; it is taken where the log
    likelihood plus a log-normal prior around the kernel's own value rises. None: no step helped.
    """

    def plausibility(candidate: np.ndarray) -> float:
        model = CurveModel(kernel, within(candidate), observations)
        moved = np.where(
            is_name, (_log_odds(candidate) - _log_odds(usual)) / 1.5, np.log(candidate / usual) / 0.5
        )
        return model.log_likelihood - 0.5 * float(moved @ moved)

    best, found = plausibility(reach), reach
    for j in range(len(reach)):
        for step in (1.5, 1 / 1.5):
            candidate = found.copy()
            odds = candidate[j] / (1 - candidate[j]) * step**2 if is_name[j] else 0.0
            candidate[j] = odds / (1 + odds) if is_name[j] else candidate[j] * step
            value = plausibility(candidate)
            if value > best:
                best, found = value, candidate
                break
    return None if found is reach else found


def adapted_noise(kernel: Kernel, factor: float, within: np.ndarray, observations: Observations) -> float:
    """Take one step, of a factor 2, towards the luck and noise that explain the observations best.

    How far chance reaches on the gap scale depends on the metric, the samples it is taken on and the best it can be.
    Plausible is what raises the log likelihood plus a log-normal prior around the kernel's own variances.

    Args:
        kernel: variances at factor 1.
        factor: by which luck and noise are multiplied so far.
        within, observations: as for `CurveModel`.
    """

    def plausibility(candidate: float) -> float:
        model = CurveModel(kernel.noisier(candidate), within, observations)
        return model.log_likelihood - 0.5 * (math.log(candidate) / math.log(_NOISE_SPREAD)) ** 2

    return max((factor, 2 * factor, factor / 2), key=plausibility)


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)), clipped to numbers that are not names' correlations."""
    inside = np.clip(share, 1e-9, 1 - 1e-9)
    return np.log(inside / (1 - inside))


def _along(left: np.ndarray, right: np.ndarray, length: float) -> np.ndarray:
    """Matern correlation between all pairs of two vectors, computed once for pairs of equal values."""
    rows, row = np.unique(left, return_inverse=True)
    columns, column = np.unique(right, return_inverse=True)
    if 2 * len(rows) * len(columns) > len(left) * len(right):
        return matern(np.abs(left[:, None] - right) / length)
    return matern(np.abs(rows[:, None] - columns) / length)[:, column][row]
