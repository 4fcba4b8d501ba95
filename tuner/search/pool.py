"""The points that a search can choose from, with their correlations and the prior's curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fusetune.tuner.search.correlation import KeptCorrelations, near_pairs
from fusetune.tuner.search.model import (
    Kernel,
    Observations,
    OwnCorrelation,
    adapted_reach,
    configuration_correlation,
    paired_correlation,
)
from fusetune.tuner.search.prior import SpacePrior, known_factor, plain
from fusetune.tuner.search.space import Space

# Points of ranges that correlate more than this with a training count as equal: learning rates about 15 % apart.
_SAME = 0.995
# Only points that lie within this many lengths in a number, or in names that correlate less than this agree, can
# correlate so much: at 0.15 lengths the correlation is at most 0.984.
_NEAR, _NEAR_NAMES = 0.15, 0.98
# A space that is not listed keeps correlations of trainings with each other where this many are asked for at once.
_MANY = 256
# Share of the decisions that choose the least correlated point, where all points are close to some training.
_SPREADING = 0.25
# How often points are redrawn where none of them fits into memory.
_DRAWS = 20
# What a configuration's memory does not depend on.
_WITHOUT_MEMORY = ("lr", "schedule")


@dataclass(frozen=True)
class Look:
    """Points to choose from: (m, factors) points, (m, trainings) correlations, the prior's (m, terms) at the end.

    Where `spreads`, the last point is to be trained, whatever its prediction.
    """

    points: np.ndarray
    across: np.ndarray
    prior: np.ndarray | None
    spreads: bool = False


class Pool:
    """All points of a listed space, or fresh samples of another; points of trainings are known by their numbers.

    Args:
        space: what to choose from.
        prior: what earlier runs say of the space's points, or None.
        rng: draws the samples of a space that is not listed.
    """

    def __init__(self, space: Space, prior: SpacePrior | None, rng: np.random.Generator) -> None:
        self._space, self._prior, self._rng = space, prior, rng
        self._usual_reach = _usual_reach(space)
        # The prior explains a part of the variance, so the models with it and without it fit different lengths.
        self.reach = dict.fromkeys((False,) if prior is None else (False, True), self._usual_reach)
        self.points = np.zeros((0, len(space.factors)))
        self._features = np.zeros_like(self.points)
        self._begun: set[bytes] = set()
        self._curves = None if prior is None else prior.curves(self.points)
        self._memory = _Memory(space)
        self._kept = {
            informed: KeptCorrelations(partial(self._correlation, informed)) for informed in self.reach
        }
        # Points that correlations are kept with: the list, and the trainings that are not on it.
        self._targets = self._features
        self._target: list[int] = []
        self._listed = space.all_points() if space.is_listed else None
        if self._listed is not None:
            self._targets = comparable(space, self._listed)
            self._places = {point.tobytes(): place for place, point in enumerate(self._listed)}
            self._free = np.ones(len(self._listed), dtype=bool)
            self._listed_ends = None if prior is None else prior.ends(self._listed)

    @property
    def has_prior(self) -> bool:
        """Whether earlier runs say anything of the space."""
        return self._prior is not None

    def is_free(self, point: np.ndarray) -> bool:
        """Whether a point has no training yet and is not known to be out of memory."""
        return point.tobytes() not in self._begun and bool(self._memory.fits(point[None])[0])

    def begin(self, point: np.ndarray) -> None:
        """Give a point the next number."""
        self._begun.add(point.tobytes())
        self.points = np.concatenate([self.points, point[None]])
        features = comparable(self._space, point[None])
        self._features = np.concatenate([self._features, features])
        place = None if self._listed is None else self._places.get(point.tobytes())
        if place is None:
            place, self._targets = len(self._targets), np.concatenate([self._targets, features])
        self._target.append(place)
        if self._prior is not None:
            self._curves = np.concatenate([self._curves, self._prior.curves(point[None])])
        if self._listed is not None:
            self._free &= (self._listed != point).any(axis=1)

    def fits(self, number: int) -> None:
        """Note that a training runs in the memory there is."""
        self._memory.runs(self.points[number])

    def does_not_fit(self, number: int) -> None:
        """Note that a training was out of memory: a region of the space that is not tried again."""
        self._memory.refuses(self.points[number])

    def why_empty(self) -> str:
        """Say why there is no point without a training to choose from."""
        if self._listed is None:
            seen = "every point that was looked at has been trained"
            return f"{seen}, or is known to be out of memory" if self._memory.has_refused else seen
        if self._free.any():
            return f"the other {self._free.sum()} of {len(self._listed)} configurations are known to be out of memory"
        return f"all {len(self._listed)} configurations of the space have been trained"

    def adapt(self, kernel: Kernel, observations: Observations, *, informed: bool) -> None:
        """Fit the factors' lengths and correlations, of the model with the prior or without, to what was seen."""
        within = OwnCorrelation(self._space.is_name, self._features[observations.trainings])
        reach = adapted_reach(
            kernel, self._space.is_name, within, self.reach[informed], self._usual_reach, observations
        )
        if reach is None:
            return
        self.reach[informed] = reach
        self._kept[informed].forget()

    def within(self, trainings: np.ndarray, *, informed: bool) -> np.ndarray:
        """Return the correlations of f among trainings, in the model with the prior or without."""
        return self.across(trainings, trainings, informed=informed)

    def across(self, numbers: np.ndarray, trainings: np.ndarray, *, informed: bool) -> np.ndarray:
        """Return the correlations of f of some trainings with others, in the model with the prior or without."""
        if self._listed is None and len(numbers) < _MANY:
            across = self._correlation(informed, self._features[trainings], self._features[numbers])
        else:
            across = self._kept_with(trainings, np.array(self._target, dtype=int)[numbers], informed=informed)
        return np.transpose(across)

    def prior_of(self, numbers: np.ndarray, share: np.ndarray) -> np.ndarray | None:
        """Return the prior's values for trainings at shares of their length."""
        if self._prior is None or self._curves is None:
            return None
        return self._prior.at(self._curves[numbers], share)

    def look(
        self,
        numbers: np.ndarray,
        trainings: np.ndarray,
        near: np.ndarray,
        *,
        informed: bool,
        blind: bool = False,
    ) -> Look:
        """Return the trainings of these numbers and, after them, points that have none.

        Args:
            numbers: of the trainings that can go on.
            trainings: numbers of those that the correlations are with.
            near: numbers of good trainings; a space that is not listed is sampled around them too.
            informed: whether correlations are those of the model with the prior.
            blind: nothing is known of any training. A space that is not listed is then sampled on all scales.
        """
        begun = self.points[numbers]
        asks_prior = informed or blind
        if self._listed is not None:
            rows = np.flatnonzero(self._free)
            rows = rows[self._memory.fits(self._listed[rows])]
            fresh, spreads = self._listed[rows], False
            fresh_across = self._kept_with(trainings, rows, informed=informed).T
            fresh_ends = None if self._listed_ends is None or not asks_prior else self._listed_ends[rows]
        else:
            fresh, spreads = self._sampled(near, informed=informed, blind=blind)
            features = comparable(self._space, fresh)
            fresh_across = self._correlation(informed, self._features[trainings], features).T
            fresh_ends = None if self._prior is None or not asks_prior else self._prior.ends(fresh)
        ends = None
        if self._prior is not None and self._curves is not None and fresh_ends is not None:
            ends = np.concatenate([self._prior.at(self._curves[numbers], 1.0), fresh_ends])
        begun_across = self.across(numbers, trainings, informed=informed)
        across = np.concatenate([begun_across.T, fresh_across.T], axis=1).T
        return Look(np.concatenate([begun, fresh]), across, ends, spreads)

    def _kept_with(
        self, trainings: np.ndarray, targets: np.ndarray, *, informed: bool
    ) -> NDArray[np.float64]:
        """Return the correlations of trainings with points that they are kept with: (trainings, targets)."""
        features = self._features[trainings]
        return self._kept[informed].of(trainings.tolist(), features, self._targets, targets)

    def _sampled(self, near: np.ndarray, *, informed: bool, blind: bool) -> tuple[np.ndarray, bool]:
        """Sample a space that is not listed: points that fit, and whether to train one unseen."""
        for attempt in range(_DRAWS):
            everywhere = blind or attempt > 0
            fresh = (
                self._space.on_all_scales(self._rng)
                if everywhere
                else self._space.sampled(self._rng, self.points[near])
            )
            fresh = fresh[self._memory.fits(fresh)]
            if len(fresh):
                break
        if blind or not len(fresh):
            return fresh, False
        # A point close to a training would only show the luck of one more seed. Where all points are close, the lengths
        # may be too long: now and then, the least correlated point is trained.
        features = comparable(self._space, fresh)
        new = ~self._equals_a_training(features, informed=informed)
        spreads = not new.any() and self._rng.random() < _SPREADING
        if spreads:
            new[self._correlation(informed, features, self._features).max(axis=1).argmin()] = True
        elif not new.any():
            new[:] = True
        return fresh[new], spreads

    def _equals_a_training(self, features: NDArray[np.float64], *, informed: bool) -> NDArray[np.bool_]:
        """Return for each point whether it correlates so much with a training that the two count as equal.

        Correlations are computed for the pairs alone that are near each other in every factor.
        """
        reach = self.reach[informed]
        apart = np.where(reach < _NEAR_NAMES, 0.0, np.inf)
        widths = np.where(self._space.is_name, apart, _NEAR * reach)
        rows, columns = near_pairs(features, self._features, widths)
        alike = paired_correlation(
            self.reach[informed], self._space.is_name, features[rows], self._features[columns]
        )
        equals = np.zeros(len(features), dtype=bool)
        equals[rows[alike >= _SAME]] = True
        return equals

    def _correlation(self, informed: bool, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Correlation of two sets of points under the current reach."""
        return configuration_correlation(self.reach[informed], self._space.is_name, left, right)


# Decades by which an optimizer's learning rate acts like a larger one of plain SGD: 1 / (1 - 0.9) for momentum. Names
# as `plain` has them; those of a line take steps of the same size.
_RATE_SHIFTS = {
    **dict.fromkeys(("sgd", "plainsgd"), 0.0),
    **dict.fromkeys(("momentum", "sgdmomentum", "msgd", "nesterov"), 1.0),
    **dict.fromkeys(("adam", "adamw", "nadam"), 1.5),
}
# The best learning rate grows about with this power of the batch size.
_BATCH_POWER = 0.5


def comparable(space: Space, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points in coordinates where learning rates of different optimizers and batch sizes act alike.

    An optimizer whose steps are of no known size leaves all optimizers' rates as they are.
    """
    known = [known_factor(factor.name) for factor in space.factors]
    features: NDArray[np.float64] = points.copy()
    if "lr" not in known:
        return features
    lr = known.index("lr")
    if not space.factors[lr].log:
        return features
    if "optimizer" in known and space.factors[known.index("optimizer")].values:
        o = known.index("optimizer")
        names = [
            plain(v["name"] if isinstance(v, Mapping) and "name" in v else v) for v in space.factors[o].values
        ]
        if _RATE_SHIFTS.keys() >= set(names):
            shifts = np.array([_RATE_SHIFTS[name] for name in names])
            features[:, lr] += shifts[points[:, o].astype(int)]
    if "batch_size" in known and space.factors[known.index("batch_size")].log:
        features[:, lr] -= _BATCH_POWER * points[:, known.index("batch_size")]
    return features


# Correlation between two names of a factor, and the length (decades, or shares of a range) of a number.
_NAMES, _NUMBERS = 0.75, 1.2
# Lengths in decades and correlations of factors that are known by name, fitted to recorded tables.
_KNOWN_REACH = {"lr": 0.85, "batch_size": 1.8, "optimizer": 0.7, "activation": 0.65, "schedule": 0.85}


def _usual_reach(space: Space) -> NDArray[np.float64]:
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
        # What takes memory, but the batch -> batches. Those that another of them implies are left out.
        self._refused: dict[bytes, list[np.ndarray]] = {}
        self._proven: dict[bytes, list[np.ndarray]] = {}

    @property
    def has_refused(self) -> bool:
        """Whether a training was out of memory."""
        return bool(self._refused)

    def runs(self, point: np.ndarray) -> None:
        """Note a point that has run."""
        known = self._proven.setdefault(self._key(point), [])
        if not _reached(point[self._batch], known):
            known[:] = [other for other in known if not (other <= point[self._batch]).all()]
            known.append(point[self._batch])

    def refuses(self, point: np.ndarray) -> None:
        """Note a point that was out of memory."""
        known = self._refused.setdefault(self._key(point), [])
        known[:] = [other for other in known if not (other >= point[self._batch]).all()]
        known.append(point[self._batch])

    def fits(self, points: np.ndarray) -> np.ndarray:
        """Return for each point whether nothing is known against it. What has run counts more than what has not."""
        fits = np.ones(len(points), dtype=bool)
        for row, point in enumerate(points if self._refused else ()):
            refused = self._refused.get(key := self._key(point), ())
            if any((point[self._batch] >= other).all() for other in refused):
                fits[row] = _reached(point[self._batch], self._proven.get(key, ()))
        return fits

    def _key(self, point: np.ndarray) -> bytes:
        """Return what takes memory of a point, but its batch. Minus zero is zero."""
        key: bytes = (point[self._same] + 0.0).tobytes()
        return key


def _reached(batch: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether one of other batches is at least as large."""
    return any((batch <= other).all() for other in others)
