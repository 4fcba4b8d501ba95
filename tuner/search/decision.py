"""Which training gets the next epoch: the paused or new one with the highest upper confidence bound of its end."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusetune.tuner.search.forecast import Forecast
from fusetune.tuner.search.history import History, Observed
from fusetune.tuner.search.model import CurveModel, GapScale, Observations
from fusetune.tuner.search.pool import Look, Pool
from fusetune.tuner.search.result import SearchTrial

# Trainings of one epoch that fill the space before the model decides; with a prior, only once that has proved wrong.
START = 8
# A paused training is dropped when winning would take an end this many standard deviations above the predicted.
_HOPELESS = 5.0
# In one decision, a search without the prior looks at most at so many trainings that it might take over, and at all of
# them once in any case. It looks at each again for every training that it takes over.
_MOST_LOOKED_AT = 1500
# Points near this many of the best trainings are looked at in a space that cannot be listed.
_NEAR = 8


@dataclass(frozen=True)
class _Prediction:
    """What a model says of the points that can be chosen: mean and deviation of z at the end, and the drawn bound."""

    mean: np.ndarray
    deviation: np.ndarray
    score: np.ndarray
    scale: GapScale


class Chooser:
    """Chooses the next training of a search.

    Args:
        history: of the search.
        pool: the points to choose from.
        forecast: predicts their ends.
        start: points that fill the space.
        max_paused: most trainings that wait.
        rng: draws how many standard deviations a bound lies above the mean.
    """

    def __init__(
        self,
        history: History,
        pool: Pool,
        forecast: Forecast,
        *,
        start: np.ndarray,
        max_paused: int,
        rng: np.random.Generator,
    ) -> None:
        self._history, self._pool, self._forecast, self._rng = history, pool, forecast, rng
        self._start = list(start)
        self._max_paused = max_paused
        self._doubted = False
        # Trainings of the search that never had the prior. Of no use without one.
        self._afresh: set[int] = set()

    def choose(self, elsewhere: Collection[int]) -> SearchTrial | None:
        """Return the trial that goes next, in flight; None when nothing is left to train.

        Args:
            elsewhere: numbers of paused trials that cannot go on now.
        """
        history = self._history
        for trial in history.trials:
            if trial.status == "paused" and not trial.values and trial.number not in history.in_flight:
                return history.resume(
                    trial, "resume", "it was begun, and interrupted before its first epoch ended"
                )
        while not self._pool.has_prior and self._start:
            point = self._as_trained(self._start.pop(0))
            if self._pool.is_free(point):
                return history.begin(point, "one of the points that fill the space")
        unavailable = history.in_flight.union(elsewhere)
        paused = [t for t in history.trials if t.status == "paused" and t.number not in unavailable]
        observed = history.observations()
        if observed is None:
            return self._choose_blindly(paused)
        if self._pool.has_prior and not self._forecast.lets_prior_decide(observed[0]):
            return self._choose_afresh(paused)
        return self._choose_by_model(paused, [], observed, informed=self._pool.has_prior)

    def _choose_blindly(self, paused: list[SearchTrial]) -> SearchTrial | None:
        """Choose while no training has reported a finite value."""
        numbers = np.array([trial.number for trial in paused], dtype=int)
        pending, ended = self._history.pending(), any(t.status != "paused" for t in self._history.trials)
        if pending is not None and pending.prior is not None and not ended:
            return self._choose_beside(paused, pending)
        everyone = np.arange(len(self._history.trials))
        look = self._pool.look(numbers, everyone, numbers[:0], informed=False, blind=True)
        chosen = self._best_free(len(paused), look.points, self._blind_score(look))
        if chosen is None:
            return None
        return self._take(paused, look.points, chosen, "nothing has been reported yet")

    def _choose_beside(self, paused: list[SearchTrial], pending: Observations) -> SearchTrial | None:
        """Choose by the prior, beside the first trainings in flight."""
        model = self._forecast.fitted(pending.at(slice(0)), pending)
        numbers = np.array([trial.number for trial in paused], dtype=int)
        look = self._pool.look(numbers, model.trainings, numbers[:0], informed=True)
        index = np.concatenate([numbers, np.full(len(look.points) - len(numbers), -1)])
        mean, deviation = model.predict(look.across, index, prior=look.prior)
        chosen = self._best_free(len(paused), look.points, self._upper_bound(model, mean, deviation))
        if chosen is None:
            return None
        return self._take(paused, look.points, chosen, "nothing has been reported yet")

    def _blind_score(self, look: Look) -> NDArray[np.float64]:
        """Rank points by the prior, by how unlike they are to trainings that failed, and by chance, in turns.

        Every other time chance decides: neither the prior's favourites nor the lengths of the factors keep a search
        from the region where trainings are finite.
        """
        chance = self._rng.random(len(look.points))
        over = sum(trial.status != "paused" for trial in self._history.trials)
        if over % 2 or not len(chance):
            return chance
        like_failed: NDArray[np.float64] = look.across.max(axis=1, initial=0.0)
        if look.prior is None or over % 4:
            return 1e-12 * chance - like_failed
        expected: NDArray[np.float64] = look.prior[:, 0]
        return expected - float(np.ptp(expected)) * like_failed + 1e-12 * chance

    def _choose_afresh(self, paused: list[SearchTrial]) -> SearchTrial | None:
        """Choose as a search without a prior does, from the trainings that it chose itself.

        Those that a misleading prior chose crowd where the prior pointed, and would keep this search there. What it
        chooses and the other search has trained already costs no epoch: it takes those epochs over, and chooses again.
        After a few of them it chooses what nobody has trained, and the next decision goes on.
        """
        if not self._doubted:
            self._doubted = True
            self._history.note(
                "doubt the prior", None, "from now on, a search that knows nothing of it decides too"
            )
        while self._start:
            point = self._as_trained(self._start.pop(0))
            if self._pool.is_free(point):
                begun = self._history.begin(point, "one of the points that fill the space")
                self._afresh.add(begun.number)
                return begun
            self._afresh.update(np.flatnonzero((self._pool.points == point).all(axis=1)).tolist())
        for taken_over in itertools.count():
            chosen, is_known = self._choose_from_own(paused, taken_over)
            if chosen is not None:
                self._afresh.add(chosen.number)
            if not is_known:
                break
        return chosen

    def _choose_from_own(self, paused: list[SearchTrial], taken_over: int) -> tuple[SearchTrial | None, bool]:
        """Return the choice of the search without a prior, and whether the other search has trained it already.

        It has not where this decision has taken over enough.
        """
        history = self._history
        observed = history.observations(self._afresh)
        others = [trial for trial in history.trials if trial.values and trial.number not in self._afresh]
        if observed is None:
            observed, others = history.observations(), []
            assert observed is not None
        own = [trial for trial in paused if trial.number in self._afresh]
        takes_over = not taken_over or (taken_over + 1) * len(others) <= _MOST_LOOKED_AT
        chosen = self._choose_by_model(
            own,
            others if takes_over else [],
            observed,
            informed=False,
            beside=len(paused) - len(own) if others else 0,
            flying=self._afresh if others else None,
        )
        if chosen is None:
            left = len(own) < len(paused)
            return self._choose_by_model(paused, [], observed, informed=False) if left else None, False
        return chosen, any(chosen.number == trial.number for trial in others)

    def _choose_by_model(
        self,
        paused: list[SearchTrial],
        others: list[SearchTrial],
        observed: Observed,
        *,
        informed: bool,
        beside: int = 0,
        flying: Collection[int] | None = None,
    ) -> SearchTrial | None:
        """Choose by one model.

        Args:
            paused: trainings that can go on.
            others: trainings whose epochs it has not seen. One may be chosen that does not go on.
            observed: the epochs it has seen.
            informed: whether it has the prior.
            beside: how many trainings wait besides `paused`.
            flying: numbers of the trainings whose epochs in flight are believed, or None for all.
        """
        observations, scale = observed
        pending = None
        if not informed:
            observations = observations.without_prior
            pending = self._history.pending(flying)
        # The prior's model does not believe epochs in flight. It knows good regions from the start, and its deviations
        # are small: less of them would drive the workers out of these regions, to what nobody else would train.
        model = self._forecast.fitted(observations, None if pending is None else pending.without_prior)
        numbers = np.array([trial.number for trial in [*paused, *others]], dtype=int)
        begun = len(numbers)
        leaders = self._history.leaders(observations, _NEAR)
        look = self._pool.look(numbers, model.trainings, leaders, informed=informed)
        index = np.full(len(look.points), -1)
        index[: len(paused)] = numbers[: len(paused)]
        mean, deviation = model.predict(look.across, index, prior=look.prior)
        score = self._upper_bound(model, mean, deviation)
        if look.spreads:
            score[:begun] = -np.inf
        chosen = self._best_free(begun, look.points, score)
        if chosen is None:
            return None
        if chosen >= begun:
            chosen = self._rather_goes_on(score[: len(paused)], score[begun:], chosen)
        if len(paused) <= chosen < begun:
            return others[chosen - len(paused)]
        prediction = _Prediction(mean, deviation, score, scale)
        left = self._drop_hopeless(paused, chosen, prediction, float(observations.z.max()))
        self._drop_beyond_limit(paused, left, prediction, beside)
        return self._take(paused, look.points, chosen, self._why(chosen, prediction))

    def _upper_bound(self, model: CurveModel, mean: np.ndarray, deviation: np.ndarray) -> NDArray[np.float64]:
        """Return upper confidence bounds of a drawn width.

        Drawn anew each time: a search neither keeps to its favourites nor to what it knows least. Small draws decide
        between equals, so that the order of the choices does not.
        """
        optimism = 2 * model.kernel.optimism * self._rng.random()
        bound: NDArray[np.float64] = mean + optimism * deviation + 1e-12 * self._rng.random(len(mean))
        return bound

    def _rather_goes_on(self, paused: NDArray[np.float64], fresh: NDArray[np.float64], chosen: int) -> int:
        """Return a paused training instead of a new one, where the other workers could begin all better new ones.

        A paused training waits for the worker that asks, and a new one for whichever is free first.
        """
        if not len(paused) or paused.max() == -np.inf:
            return chosen
        better = int((fresh > paused.max()).sum())
        return int(paused.argmax()) if better <= len(self._history.in_flight) else chosen

    def _why(self, chosen: int, prediction: _Prediction) -> str:
        """Return where the chosen training is predicted to end, with one standard deviation either side."""
        sign, scale = self._history.sign, prediction.scale
        low, middle, high = (
            sign * scale.y(prediction.mean[chosen] + side * prediction.deviation[chosen])
            for side in (-1, 0, 1)
        )
        return (
            f"predicted to end at {middle:.4g} ({min(low, high):.4g}..{max(low, high):.4g}), "
            f"best so far {sign * scale.best:.4g}"
        )

    def _best_free(self, begun: int, points: np.ndarray, score: np.ndarray) -> int | None:
        """Return the highest score's index, passing over new points that become a configuration with a training."""
        for index in np.argsort(-score).tolist():
            if index < begun or self._pool.is_free(self._as_trained(points[index])):
                return int(index)
        return None

    def _as_trained(self, point: np.ndarray) -> np.ndarray:
        """Return the point that a point's configuration, whose numbers are rounded, has."""
        return self._history.space.point(self._history.space.configuration(point))

    def _take(self, paused: list[SearchTrial], points: np.ndarray, chosen: int, why: str) -> SearchTrial:
        """Put the chosen trial in flight. The paused ones stand before the new points."""
        if chosen < len(paused):
            trial = paused[chosen]
            return self._history.resume(trial, "resume", f"epoch {trial.epochs + 1}; {why}")
        return self._history.begin(points[chosen], why)

    def _drop_hopeless(
        self, paused: list[SearchTrial], chosen: int, prediction: _Prediction, incumbent: float
    ) -> list[int]:
        """Close the paused trials that cannot win. Return the places of those that go on waiting."""
        left, sign, scale = [], self._history.sign, prediction.scale
        for index, trial in enumerate(paused):
            if index == chosen:
                continue
            if prediction.mean[index] + _HOPELESS * prediction.deviation[index] >= incumbent:
                left.append(index)
                continue
            end = sign * scale.y(float(prediction.mean[index]))
            self._history.close(
                trial,
                "dropped",
                f"after epoch {trial.epochs} it is predicted to end at {end:.4g}, {_HOPELESS:g} standard "
                f"deviations below the best of {sign * scale.best:.4g}",
            )
        return left

    def _drop_beyond_limit(
        self, paused: list[SearchTrial], left: list[int], prediction: _Prediction, beside: int
    ) -> None:
        """Close the least promising of the waiting trials beyond `max_paused`, `beside` others and the chosen one."""
        too_many = max(0, len(left) + 1 + beside - self._max_paused)
        for index in sorted(left, key=lambda index: prediction.score[index])[:too_many]:
            self._history.close(
                paused[index],
                "dropped",
                f"the least promising of more than {self._max_paused} paused trainings",
            )
