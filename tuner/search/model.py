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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtrs

# A gap to the best of this share of the scale counts about as none: the resolution of the scale.
_RESOLUTION = 0.03
_SCALE_SHARE = 0.3
_JITTER = 1e-6
_OFFSET_LENGTH = 1.5
# Share of f's variance in the main effects, the rest being their interplay.
_MAIN_SHARE = 0.1
# One standard deviation of the factor on luck and noise from search to search.
_NOISE_SPREAD = 4.0
# Correlations are computed so many at a time: what they pass through then stays in the processor's cache.
_BLOCK = 16_384
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
    correlation: np.ndarray = scaled * scaled
    correlation /= 3
    correlation += 1 + scaled
    correlation *= np.exp(np.negative(scaled, out=scaled), out=scaled)
    return correlation


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

    @cached_property
    def trainings(self) -> NDArray[np.intp]:
        """The trainings' numbers, in order and each once."""
        return np.unique(self.trial)

    @cached_property
    def without_prior(self) -> Observations:
        """The same without a prior."""
        alone = replace(self, prior=None)
        # What is computed once depends on the prior in `explained` alone, which is not asked for without one.
        vars(alone).update(_made=self._made, _levels=self._levels, columns=self.columns)
        return alone

    @cached_property
    def columns(self) -> NDArray[np.intp]:
        """(n,) the place of each epoch's training in `trainings`."""
        return np.searchsorted(self.trainings, self.trial)

    def along(
        self, length: float, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[np.float64]:
        """Matern correlation between some epochs and others, in pairs: (rows, columns)."""
        values, level = self._levels
        alike = self._once(("along", length), lambda: matern(np.abs(values[:, None] - values) / length))
        return alike.take(level[columns], axis=1).take(level[rows], axis=0)

    def by_epochs(self, kernel: Kernel) -> NDArray[np.float64]:
        """(n, n) correlation of f along the epochs. Computed once for each kernel."""
        return self._once(("epochs", kernel.epochs), lambda: self.along(kernel.epochs))

    def by_luck(self, kernel: Kernel) -> NDArray[np.float64]:
        """(n, n) covariance of g, which epochs of the same training share. Computed once for each kernel."""
        return self._once(
            ("luck", kernel.luck, kernel.luck_epochs),
            lambda: kernel.luck * (self.trial[:, None] == self.trial) * self.along(kernel.luck_epochs),
        )

    def by_offset(self, kernel: Kernel) -> NDArray[np.float64]:
        """(n, n) covariance of the offset. Computed once for each kernel."""
        return self._once(("offset", kernel.offset), lambda: kernel.offset * self.along(_OFFSET_LENGTH))

    def by_prior(self, kernel: Kernel) -> NDArray[np.float64]:
        """(n, n) covariance by the prior's terms. Computed once for each kernel."""
        assert self.prior is not None
        weighted = self.prior * kernel.coefficients(self.prior.shape[1])
        return self._once(("prior", kernel.prior, kernel.deviations), lambda: weighted @ weighted.T)

    def _once(self, name: tuple[Any, ...], make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @cached_property
    def _made(self) -> dict[tuple[Any, ...], NDArray[np.float64]]:
        return {}

    @cached_property
    def _levels(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """The shares, each once, and which each epoch has."""
        values, row = np.unique(self.share, return_inverse=True)
        return values, row

    def at(self, rows: NDArray[np.intp] | slice) -> Observations:
        """Return those of some rows."""
        prior = None if self.prior is None else self.prior[rows]
        return Observations(self.trial[rows], self.share[rows], self.z[rows], prior)

    def followed_by(self, others: Observations) -> Observations:
        """Return these and then others, which have a prior where these do."""
        ours, theirs = self.prior, others.prior
        return Observations(
            np.concatenate([self.trial, others.trial]),
            np.concatenate([self.share, others.share]),
            np.concatenate([self.z, others.z]),
            None if ours is None or theirs is None else np.concatenate([ours, theirs]),
        )

    def thinned(self, most: int = MOST_OBSERVATIONS) -> Observations:
        """Return at most `most` of them: the first and last of the best trainings, and of those begun last."""
        if len(self.z) <= most:
            return self
        another = np.flatnonzero(self.trial[1:] != self.trial[:-1])
        first, last = np.append(0, another + 1), np.append(another, len(self.z) - 1)
        if len(first) + int((first < last).sum()) > most:
            highest = np.argsort(-np.maximum.reduceat(self.z, first), kind="stable")[: most // 4]
            others = np.ones(len(first), dtype=bool)
            others[highest] = False
            chosen = np.append(highest, np.flatnonzero(others)[-(most // 2 - len(highest)) :])
            first, last = first[chosen], last[chosen]
        kept = np.zeros(len(self.z), dtype=bool)
        kept[first] = kept[last] = True
        return self.at(np.flatnonzero(kept))


class CurveModel:
    """The posterior of z, given some epochs of some trainings.

    Epochs that are being made are believed to come out as predicted: they leave the mean as it is, and take from the
    deviation what their values will, whatever those are.

    Args:
        kernel: variances and lengths.
        within: (trainings, trainings), `configuration_correlation` of those in the observations and the pending epochs,
            by number.
        observations: ordered by training.
        pending: epochs that are being made, whose z is not read; or None.

    Source: Desautels, Krause and Burdick, "Parallelizing exploration-exploitation tradeoffs in Gaussian process bandit
    optimization" (2014), for the believed epochs.
    """

    def __init__(
        self,
        kernel: Kernel,
        within: np.ndarray,
        observations: Observations,
        pending: Observations | None = None,
    ) -> None:
        self.kernel = kernel
        self._observations = observations
        self._known = observations if pending is None else observations.followed_by(pending)
        self._column = self._known.columns
        prior, z = observations.prior, observations.z
        expected = 0.0 if prior is None else kernel.prior_mean * prior[:, 0]
        self._mean = float(np.mean(z - expected)) if len(z) else 0.0
        self._told = told = slice(len(z))
        self._factor = np.linalg.cholesky(self._covariance(within, told, told))
        self._weights = _solved(self._factor, z - expected - self._mean)
        self._believed = None if pending is None else self._extension(within, slice(len(z), None), told)

    @property
    def trainings(self) -> NDArray[np.intp]:
        """Numbers of the trainings with an epoch that is known or pending, in order."""
        return self._known.trainings

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
        kernel, at, known = self.kernel, np.array([share]), self._known
        covariance = across.T.take(self._column, axis=0)
        covariance *= kernel.smooth
        covariance *= _along(known.share, at, kernel.epochs)
        covariance += kernel.offset * _along(known.share, at, _OFFSET_LENGTH)
        begun = np.flatnonzero(trial >= 0)
        covariance[:, begun] += (
            kernel.luck * (known.trial[:, None] == trial[begun]) * _along(known.share, at, kernel.luck_epochs)
        )
        variance = np.full(len(across), kernel.smooth + kernel.luck + kernel.offset)
        mean = np.full(len(across), self._mean)
        if known.prior is not None and prior is not None:
            size = kernel.coefficients(prior.shape[1])
            covariance += known.prior @ (prior * size**2).T
            variance += (prior * prior) @ size**2
            mean += kernel.prior_mean * prior[:, 0]
        told = len(self._weights)
        solved = _solved(self._factor, covariance[:told])
        variance -= np.einsum("ij,ij->j", solved, solved)
        if self._believed is not None:
            below, factor = self._believed
            rest = _solved(factor, covariance[told:] - below @ solved)
            variance -= np.einsum("ij,ij->j", rest, rest)
        return mean + self._weights @ solved, np.sqrt(np.maximum(variance, _JITTER))

    def _covariance(self, within: NDArray[np.float64], rows: slice, columns: slice) -> NDArray[np.float64]:
        """Return the covariance of known epochs, with their noise where both are the same."""
        kernel, known = self.kernel, self._known
        pairs = self._column[rows, None] * len(within) + self._column[columns]
        covariance: NDArray[np.float64] = within.take(pairs)
        covariance *= kernel.smooth
        if rows == columns == self._told:
            ours = self._observations
            covariance *= ours.by_epochs(kernel)
            covariance += ours.by_luck(kernel)
            covariance += ours.by_offset(kernel)
        else:
            covariance *= known.along(kernel.epochs, rows, columns)
            of_one = known.trial[rows, None] == known.trial[columns]
            covariance += kernel.luck * of_one * known.along(kernel.luck_epochs, rows, columns)
            covariance += kernel.offset * known.along(_OFFSET_LENGTH, rows, columns)
        if known.prior is not None and rows == columns == self._told:
            covariance += self._observations.by_prior(kernel)
        elif known.prior is not None:
            weighted = known.prior * kernel.coefficients(known.prior.shape[1])
            covariance += weighted[rows] @ weighted[columns].T
        if rows == columns:
            early = kernel.early_noise * (1 - known.share[rows])
            covariance[np.diag_indices(len(early))] += kernel.noise + early + _JITTER
        return covariance

    def _extension(
        self, within: NDArray[np.float64], rows: slice, told: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rows that the pending epochs add to the Cholesky factor, and their own triangle."""
        right = self._covariance(within, told, rows)
        below = _solved(self._factor, right).T
        return below, np.linalg.cholesky(self._covariance(within, rows, rows) - below @ below.T)


def _solved(factor: np.ndarray, right: np.ndarray) -> NDArray[np.float64]:
    """Return x of factor @ x = right, for a Cholesky factor. Without the checks of scipy's own function."""
    if not right.size:
        return right
    # LAPACK reads the transpose of what numpy stores by rows.
    x: NDArray[np.float64] = dtrtrs(factor.T, right, lower=0, trans=1)[0]
    return x


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
    parts = [
        _rows_of_factor(float(reach[j]), bool(named), left[:, j], right[:, j])
        for j, named in enumerate(is_name)
    ]
    correlation = np.empty((len(left), len(right)))
    step = max(1, _BLOCK // max(1, len(right)))
    for begin in range(0, len(left), step):
        rows = slice(begin, begin + step)
        correlation[rows] = _over_factors(part(rows) for part in parts)
    return correlation


def paired_correlation(
    reach: NDArray[np.float64],
    is_name: NDArray[np.bool_],
    left: NDArray[np.float64],
    right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return `configuration_correlation` of each point with the one in the same row: (rows,)."""
    return _over_factors(
        np.where(left[:, j] == right[:, j], 1.0, reach[j])
        if named
        else matern(np.abs(left[:, j] - right[:, j]) / reach[j])
        for j, named in enumerate(is_name)
    )


def factor_correlation(
    reach: float, is_name: bool, left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return k_j of `configuration_correlation` for the values of one factor: (left, right)."""
    return _rows_of_factor(reach, is_name, left, right)(slice(None))


def _rows_of_factor(
    reach: float, is_name: bool, left: NDArray[np.float64], right: NDArray[np.float64]
) -> Callable[[slice], NDArray[np.float64]]:
    """Return what computes some rows of `factor_correlation`, once for pairs of equal values."""

    def between(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        if is_name:
            return np.where(left[:, None] == right, 1.0, reach)
        return matern(np.abs(left[:, None] - right) / reach)

    if len(left) * len(right) > _BLOCK:
        values, row = np.unique(left, return_inverse=True)
        others, column = np.unique(right, return_inverse=True)
        if 2 * len(values) * len(others) <= len(left) * len(right):
            alike = between(values, others).take(column, axis=1)
            return lambda rows: alike.take(row[rows], axis=0)
    return lambda rows: between(left[rows], right)


class OwnCorrelation:
    """`configuration_correlation` of points with themselves, for many reaches: a factor's part is computed once.

    Args:
        is_name: (factors,) whether each has names.
        points: (n, factors).

    Example:
        >>> points = np.array([[0.0, 1.0], [2.0, 1.0]])
        >>> own = OwnCorrelation(np.array([False, True]), points)
        >>> reach = np.array([1.5, 0.7])
        >>> bool((own(reach) == configuration_correlation(reach, own.is_name, points, points)).all())
        True
    """

    def __init__(self, is_name: NDArray[np.bool_], points: NDArray[np.float64]) -> None:
        self.is_name, self._points = is_name, points
        self._parts: dict[tuple[int, float], NDArray[np.float64]] = {}

    def __call__(self, reach: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the correlation: (n, n)."""
        return _over_factors(self._part(j, float(length)) for j, length in enumerate(reach))

    def _part(self, j: int, reach: float) -> NDArray[np.float64]:
        if (j, reach) not in self._parts:
            values = self._points[:, j]
            self._parts[j, reach] = factor_correlation(reach, bool(self.is_name[j]), values, values)
        return self._parts[j, reach]


def _over_factors(parts: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return main effects and interplay of the factors' correlations."""
    known = iter(parts)
    first = next(known)
    total, product, count = 0.0 + first, 1.0 * first, 1
    for alike in known:
        total += alike
        product *= alike
        count += 1
    total *= _MAIN_SHARE / count
    product *= 1 - _MAIN_SHARE
    total += product
    return total


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
    return factor_correlation(length, False, left, right)
