"""The points that a search can choose from, with what its model needs of each: correlations and the prior's curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.search_model import (
    Kernel,
    Observations,
    adapted_reach,
    configuration_correlation,
)
from tuner.search_prior import SpacePrior, known_factor, known_value
from tuner.search_space import Space

# Points of ranges that correlate more than this with a training are taken for the same: learning rates some 15 % apart.
_SAME = 0.995
# What a configuration's memory does not depend on.
_WITHOUT_MEMORY = ("lr", "schedule")


@dataclass(frozen=True)
class Look:
    """Points to choose from: (m, factors) points, their (m, trainings) correlations and (m, epochs) prior curves."""

    points: np.ndarray
    across: np.ndarray
    curves: np.ndarray | None


class Pool:
    """All points of a listed space, or fresh samples of another; points of trainings are known by their numbers.

    Args:
        space: what to choose from.
        prior: what earlier runs say of the space's points, or None.
        rng: draws the samples of a space that is not listed.
    """

    def __init__(self, space: Space, prior: SpacePrior | None, rng: np.random.Generator) -> None:
        self._space, self._prior, self._rng = space, prior, rng
        self._usual_reach = self.reach = _usual_reach(space)
        self.points = np.zeros((0, len(space.factors)))
        self._features = np.zeros_like(self.points)
        self._begun: set[bytes] = set()
        self._curves = None if prior is None else prior.curves(self.points)
        self._memory = _Memory(space)
        self._listed = space.all_points() if space.is_listed else None
        if self._listed is not None:
            self._listed_features = comparable(space, self._listed)
            self._free = np.ones(len(self._listed), dtype=bool)
            self._listed_curves = None if prior is None else prior.curves(self._listed)
            # One column a training, so that a decision computes none anew.
            self._columns = np.zeros((len(self._listed), 0))

    def is_free(self, point: np.ndarray) -> bool:
        """Whether a point has no training yet and is not known to be out of memory."""
        return point.tobytes() not in self._begun and bool(self._memory.fits(point[None])[0])

    def begin(self, point: np.ndarray) -> None:
        """Give a point the next number."""
        self._begun.add(point.tobytes())
        self.points = np.concatenate([self.points, point[None]])
        feature = comparable(self._space, point[None])
        self._features = np.concatenate([self._features, feature])
        if self._prior is not None:
            self._curves = np.concatenate([self._curves, self._prior.curves(point[None])])
        if self._listed is not None:
            self._free &= (self._listed != point).any(axis=1)
            column = self._correlation(self._listed_features, feature)
            self._columns = np.concatenate([self._columns, column], axis=1)

    def fits(self, number: int) -> None:
        """Note that a training runs in the memory there is."""
        self._memory.proven.append(self.points[number])

    def does_not_fit(self, number: int) -> None:
        """Note that a training was out of memory: a region of the space that is not tried again."""
        self._memory.refused.append(self.points[number])

    def why_empty(self) -> str:
        """Say why there is no point without a training to choose from."""
        if self._listed is None:
            apart = "every point that was looked at is as good as trained already"
            return f"{apart}, or known to be out of memory" if self._memory.refused else apart
        if self._free.any():
            return f"the other {self._free.sum()} of {len(self._listed)} configurations are known to be out of memory"
        return f"all {len(self._listed)} configurations of the space have been trained"

    def adapt(self, kernel: Kernel, observations: Observations) -> None:
        """Fit the factors' lengths and correlations to what was seen."""
        reach = adapted_reach(
            kernel, self._space.is_name, self.within, self.reach, self._usual_reach, observations
        )
        if reach is None:
            return
        self.reach = reach
        if self._listed is not None:
            self._columns = self._correlation(self._listed_features, self._features)

    def within(self, reach: np.ndarray | None = None) -> np.ndarray:
        """Return the correlations of f among the trainings."""
        return configuration_correlation(
            self.reach if reach is None else reach, self._space.is_name, self._features, self._features
        )

    def prior_of(self, numbers: np.ndarray, share: np.ndarray) -> np.ndarray | None:
        """Return the prior's values for trainings at shares of their length."""
        if self._prior is None or self._curves is None:
            return None
        return self._prior.at(self._curves[numbers], share)

    def prior_at_end(self, look: Look) -> np.ndarray | None:
        """Return the prior's values at the end of the curves."""
        if self._prior is None or look.curves is None:
            return None
        return self._prior.at(look.curves, 1.0)

    def look(self, numbers: np.ndarray, near: np.ndarray) -> Look:
        """Return the trainings of these numbers and, after them, points that have none.

        Args:
            numbers: of the trainings that can go on.
            near: numbers of good trainings; a space that is not listed is sampled around them too.
        """
        begun = self.points[numbers]
        if self._listed is not None:
            rows = np.flatnonzero(self._free)
            fresh, fresh_across = self._listed[rows], self._columns[rows]
            fresh_curves = None if self._listed_curves is None else self._listed_curves[rows]
        else:
            fresh = self._space.sampled(self._rng, self.points[near])
            fresh_across = self._correlation(comparable(self._space, fresh), self._features)
            # What is as good as trained already would only tell the luck of one more seed.
            new = fresh_across.max(axis=1, initial=0.0) < _SAME
            fresh, fresh_across = fresh[new], fresh_across[new]
            fresh_curves = None if self._prior is None else self._prior.curves(fresh)
        kept = self._memory.fits(fresh)
        curves = None
        if self._curves is not None and fresh_curves is not None:
            curves = np.concatenate([self._curves[numbers], fresh_curves[kept]])
        return Look(
            np.concatenate([begun, fresh[kept]]),
            np.concatenate([self._correlation(self._features[numbers], self._features), fresh_across[kept]]),
            curves,
        )

    def _correlation(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Correlation of two sets of points under the current reach."""
        return configuration_correlation(self.reach, self._space.is_name, left, right)


# Decades by which an optimizer's learning rate acts like a larger one of plain SGD: 1 / (1 - 0.9) for momentum.
_RATE_SHIFTS = {"sgd": 0.0, "momentum": 1.0, "adam": 1.5}
# The best learning rate grows about with this power of the batch size.
_BATCH_POWER = 0.5


def comparable(space: Space, points: np.ndarray) -> np.ndarray:
    """Return points in coordinates where learning rates of different optimizers and batch sizes act alike."""
    known = [known_factor(factor.name) for factor in space.factors]
    features = points.copy()
    if "lr" not in known:
        return features
    lr = known.index("lr")
    if not space.factors[lr].log:
        return features
    if "optimizer" in known and space.factors[known.index("optimizer")].values:
        o = known.index("optimizer")
        names = space.factors[o].values
        shifts = np.array([_RATE_SHIFTS.get(known_value(name) or "sgd", 0.0) for name in names])
        features[:, lr] += shifts[points[:, o].astype(int)]
    if "batch_size" in known and space.factors[known.index("batch_size")].log:
        features[:, lr] -= _BATCH_POWER * points[:, known.index("batch_size")]
    return features


# Correlation between two names of a factor, and the length (decades, or shares of a range) of a number.
_NAMES, _NUMBERS = 0.75, 1.2
# Lengths in decades and correlations of factors that are known by name, fitted to recorded tables.
_KNOWN_REACH = {"lr": 0.85, "batch_size": 1.8, "optimizer": 0.7, "activation": 0.65, "schedule": 0.85}


def _usual_reach(space: Space) -> np.ndarray:
    """Return each factor's length (numbers) or correlation between values (names) before anything is observed."""
    reach = np.where(space.is_name, _NAMES, _NUMBERS)
    for j, factor in enumerate(space.factors):
        known = known_factor(factor.name)
        if (
            known in _KNOWN_REACH
            and factor.is_number == (known in ("lr", "batch_size"))
            and (factor.log or not factor.is_number)
        ):
            reach[j] = _KNOWN_REACH[known]
    return reach


class _Memory:
    """Which points are known not to fit: those equal in all that takes memory, with at least as large a batch."""

    def __init__(self, space: Space) -> None:
        known = [known_factor(factor.name) for factor in space.factors]
        is_number = [factor.is_number for factor in space.factors]
        self._batch = [j for j, name in enumerate(known) if name == "batch_size" and is_number[j]]
        self._same = [
            j for j, name in enumerate(known) if name not in _WITHOUT_MEMORY and j not in self._batch
        ]
        self.refused: list[np.ndarray] = []
        self.proven: list[np.ndarray] = []

    def fits(self, points: np.ndarray) -> np.ndarray:
        """Return for each point whether nothing is known against it; what has run counts more than what has not."""
        fits = np.ones(len(points), dtype=bool)
        for point in self.refused:
            fits &= ~self._needs_at_least(points, point)
        for point in self.proven if self.refused else []:
            fits |= self._needs_at_most(points, point)
        return fits

    def _needs_at_least(self, points: np.ndarray, point: np.ndarray) -> np.ndarray:
        alike = (points[:, self._same] == point[self._same]).all(axis=1)
        return alike & (points[:, self._batch] >= point[self._batch]).all(axis=1)

    def _needs_at_most(self, points: np.ndarray, point: np.ndarray) -> np.ndarray:
        alike = (points[:, self._same] == point[self._same]).all(axis=1)
        return alike & (points[:, self._batch] <= point[self._batch]).all(axis=1)
