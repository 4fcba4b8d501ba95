"""Search: which configuration to train, one epoch at a time, so that few epochs find a good one.

Each decision gives one epoch to the training, new or paused, whose end of curve promises most (see
`tuner.search.model`). Trainings are paused and resumed, never restarted, and never compared at different points of
their schedules: a cosine or one-cycle training that lags at half time is judged by how such curves end. How much credit
a doubtful prediction gets, and whether earlier runs are believed, is drawn for each decision: neither a favourite nor
a prior that misleads holds up a search for long.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.tuner.measure import is_out_of_memory
from fusetune.tuner.search.failure import nothing_found
from fusetune.tuner.search.model import (
    WITH_PRIOR,
    WITHOUT_PRIOR,
    CurveModel,
    GapScale,
    Observations,
    adapted_noise,
    gap_scale,
)
from fusetune.tuner.search.pool import Look, Pool
from fusetune.tuner.search.prior import Prior, shipped_prior
from fusetune.tuner.search.space import Space

Evaluate = Callable[[dict[str, Any], int], Iterator[float]]
Status = Literal["paused", "finished", "dropped", "diverged", "out_of_memory", "failed"]

# Trainings of one epoch that fill the space before the model decides; with a prior, only once that has proved wrong.
_START = 8
# The factors' lengths and the noise are fitted anew whenever this many epochs have been told.
_ADAPT_EVERY = 8
# The prior is not doubted before this many epochs: the scale follows the best seen, and the first curves stretch it.
_DOUBT_AFTER = 8
# After epochs as of so many whole trainings, the prior decides in a share of the decisions that falls with this power.
_TRUST_TRAININGS, _TRUST_POWER = 6.0, 3.0
# A paused training is dropped when winning would take an end this many standard deviations above the predicted.
_HOPELESS = 5.0
# Points near this many of the best trainings are looked at in a space that cannot be listed.
_NEAR = 8


@dataclass
class SearchTrial:
    """One training of a search.

    Args:
        number: from 0, in the order of their first epochs.
        config: factor name -> value.
        values: the metric after each epoch.
        status: paused can go on, or could have when the budget was spent; all others are over.
        reason: why it is over, in words, and what went wrong when it was closed.
    """

    number: int
    config: dict[str, Any]
    values: list[float] = field(default_factory=list)
    status: Status = "paused"
    reason: str = ""

    @property
    def epochs(self) -> int:
        """Epochs that reported a value."""
        return len(self.values)


@dataclass(frozen=True)
class Best:
    """The best value that a training reported: of which configuration, at which epoch (from 1) of which trial."""

    config: dict[str, Any]
    value: float
    epoch: int
    trial: int


@dataclass(frozen=True)
class Decision:
    """One line of the log: what was decided after so many epochs of budget, about which trial (or none), and why."""

    epochs_used: int
    action: str
    trial: int | None
    why: str

    def __str__(self) -> str:
        about = "" if self.trial is None else f" trial {self.trial}"
        return f"[{self.epochs_used}] {self.action}{about}: {self.why}"


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Args:
        best: None when no training reported a finite value.
        trials: in the order of their first epochs.
        epochs_used: of the budget.
        log: what was decided.
        failure: where there is no best: how the trainings ended, and what to try. Else empty.
    """

    best: Best | None
    trials: list[SearchTrial]
    epochs_used: int
    log: list[Decision]
    failure: str = ""


def search(
    space: Mapping[str, Any],
    evaluate: Evaluate,
    *,
    max_epochs: int,
    budget_epochs: int,
    seed: int = 0,
    maximize: bool = True,
    prior: Prior | Literal["shipped"] | None = "shipped",
    max_paused: int = 128,
) -> SearchResult:
    """Find a good configuration within a budget of epochs.

    Args:
        space: name -> list of choices, or {low, high} with `log: true` for decades. A range between two integers
            holds the integers.
        evaluate: (configuration, seed) -> generator of the validation metric after each epoch. It is advanced one
            epoch at a time, paused between them, and closed when it is dropped. One that raises is a failed trial
            with its reason, and counts as the worst that was seen, or worse. After a MemoryError (or torch's) no
            training that needs as much memory is begun. One that raises when it is closed adds that to its trial's
            reason.
        max_epochs: epochs of a whole training, 1 or more.
        budget_epochs: epochs in all, 1 or more; never exceeded. An epoch that raised counts. Where nothing is left
            to train before they are used, the last line of the log says why.
        seed: handed to `evaluate`, 0 or more; equal seeds and equal values lead to equal decisions.
        maximize: whether a larger value is better.
        prior: what earlier runs say about factors it knows by name; "shipped", one of your own, or None.
        max_paused: most trainings that wait paused, 1 or more; the least promising beyond it are dropped.

    Warns:
        RuntimeWarning: no training reported a finite value. The result's `failure` is the same sentence.

    Memory:
        Whatever `max_paused` + 1 generators hold.

    Raises:
        ValueError: a space, a number of epochs, a budget, a seed or a prior that cannot be searched with.
        TypeError: `evaluate` cannot be called, or returned no generator for the first configuration.

    Example:
        >>> def evaluate(config, seed):
        ...     for epoch in range(1, 5):
        ...         yield 1 - (config["x"] - 0.3) ** 2 - 0.1 / epoch
        >>> result = search({"x": {"low": 0.0, "high": 1.0}}, evaluate, max_epochs=4, budget_epochs=40, prior=None)
        >>> abs(result.best.config["x"] - 0.3) < 0.1, result.best.epoch, result.epochs_used
        (True, 4, 40)
    """
    if not callable(evaluate):
        raise InvalidTypeError(
            "evaluate",
            f"a {type(evaluate).__name__} cannot be called",
            to_do="Give (config, seed) -> generator",
        )
    if not (prior is None or prior == "shipped" or isinstance(prior, Prior)):
        raise InvalidValueError("prior", f"{prior!r} is none", to_do="Give 'shipped', a Prior or None")
    known = prior if isinstance(prior, Prior) else shipped_prior() if prior else None
    _check_count("budget_epochs", budget_epochs)
    _check_count("max_paused", max_paused)
    searcher = Searcher(
        space, max_epochs=max_epochs, seed=seed, maximize=maximize, prior=known, max_paused=max_paused
    )
    running: dict[int, Iterator[float]] = {}
    try:
        while searcher.epochs_used < budget_epochs and (trial := searcher.ask()) is not None:
            _advance(searcher, trial, running, evaluate, seed)
            for number in [number for number in running if searcher.trials[number].status != "paused"]:
                _close(searcher, number, running.pop(number))
        if searcher.epochs_used < budget_epochs:
            searcher.nothing_left()
    finally:
        # Whatever happens while one is closed, an interrupt included: the others are closed too.
        with ExitStack() as stack:
            for number, generator in running.items():
                stack.callback(_close, searcher, number, generator)
    result = searcher.result()
    if result.failure:
        warnings.warn(f"search: {result.failure}", RuntimeWarning, stacklevel=2)
    return result


class Searcher:
    """Decides which training gets the next epoch: `ask`, train it for one epoch, then `tell`, `end` or `fail`.

    Several trainings may be in flight: ask again before telling.

    Args:
        space, max_epochs, seed, maximize, max_paused: as for `search`.
        prior: what earlier runs say, or None.

    Raises:
        ValueError: as for `search`.
    """

    def __init__(
        self,
        space: Mapping[str, Any],
        *,
        max_epochs: int,
        seed: int = 0,
        maximize: bool = True,
        prior: Prior | None = None,
        max_paused: int = 128,
    ) -> None:
        _check_count("max_epochs", max_epochs)
        _check_seed_and_direction(seed, maximize)
        self.space = Space(space)
        self.max_epochs, self.max_paused = max_epochs, max_paused
        self.trials: list[SearchTrial] = []
        self.log: list[Decision] = []
        self.epochs_used = 0
        self._sign = 1.0 if maximize else -1.0
        self._rng = np.random.default_rng(seed)
        known = prior.on(self.space) if prior is not None else None
        self._pool = Pool(self.space, known, self._rng)
        self._start = list(self.space.filling(_START, seed))
        self._informed = known is not None
        self._doubted = False
        # Trainings of the search that never had the prior. Of no use without one.
        self._afresh: set[int] = set()
        self._in_flight: set[int] = set()
        self._adapted_at = {False: 0, True: 0}
        self._noise = {False: 1.0, True: 1.0}

    def ask(self, elsewhere: Collection[int] = ()) -> SearchTrial | None:
        """Return the trial to train for one epoch, from where it stands; None when nothing is left to train.

        Args:
            elsewhere: numbers of paused trials that whoever asks cannot go on with.
        """
        with _linear_algebra().limit(limits=1, user_api="blas"):
            return self._ask(elsewhere)

    def _ask(self, elsewhere: Collection[int]) -> SearchTrial | None:
        """Decide."""
        for trial in self.trials:
            if trial.status == "paused" and not trial.values and trial.number not in self._in_flight:
                return self._go(trial, "resume", "it was begun, and interrupted before its first epoch ended")
        while not self._informed and self._start:
            point = self._as_trained(self._start.pop(0))
            if self._pool.is_free(point):
                return self._begin(point, "one of the points that fill the space")
        return self._choose(elsewhere)

    def tell(self, trial: SearchTrial, value: float | None) -> None:
        """Take the metric after one more epoch; None or one that is not finite: the training diverged."""
        self._spend(trial)
        if value is None or not math.isfinite(value):
            self._close(trial, "diverged", f"the metric was {value} after epoch {trial.epochs + 1}")
            return
        trial.values.append(float(value))
        if trial.epochs == 1:
            self._pool.fits(trial.number)
        if trial.epochs >= self.max_epochs:
            self._close(trial, "finished", f"all {self.max_epochs} epochs, the last at {value:.6g}")

    def end(self, trial: SearchTrial) -> None:
        """Take that the training ended by itself, without another epoch."""
        self._in_flight.discard(trial.number)
        if trial.values:
            self._close(trial, "finished", f"it ended by itself after epoch {trial.epochs}")
        else:
            self.epochs_used += 1
            self._close(trial, "failed", "it ended before it reported a value")

    def fail(self, trial: SearchTrial, reason: str, *, out_of_memory: bool = False) -> None:
        """Take that the training's next epoch could not be made."""
        self._spend(trial)
        if out_of_memory:
            self._pool.does_not_fit(trial.number)
        self._close(trial, "out_of_memory" if out_of_memory else "failed", reason)

    def restore(
        self, config: Mapping[str, Any], values: Sequence[float], status: Status, reason: str
    ) -> SearchTrial:
        """Take in a trial of an earlier part of the search, as it stood; its epochs count."""
        trial = SearchTrial(len(self.trials), dict(config), list(values), status, reason)
        self.trials.append(trial)
        self._pool.begin(self.space.point(config))
        self.epochs_used += trial.epochs + (status in ("diverged", "out_of_memory", "failed"))
        if trial.values:
            self._pool.fits(trial.number)
        if status == "out_of_memory":
            self._pool.does_not_fit(trial.number)
        return trial

    def drop(self, trial: SearchTrial, reason: str) -> None:
        """End a paused trial for a reason of the caller's."""
        self._close(trial, "dropped", reason)

    def remark(self, trial: SearchTrial, sentence: str) -> None:
        """Add to a trial's reason what happened to it besides."""
        trial.reason = f"{trial.reason}; {sentence}" if trial.reason else sentence
        self._note("remark on", trial, sentence)

    def nothing_left(self) -> None:
        """Note that the search ends because nothing is left to train, and why."""
        self._note("end", None, f"nothing is left to train: {self._pool.why_empty()}")

    def predicted_ends(self) -> dict[int, float]:
        """Return number -> the value that each trial with an epoch ended at or is predicted to end at."""
        observed = self._observations()
        if observed is None:
            return {}
        observations, scale = observed
        numbers = np.array([trial.number for trial in self.trials])
        share = np.ones(len(numbers))
        model = self._fitted(observations)
        within = self._pool.within(informed=self._informed)
        mean, _ = model.predict(within, numbers, prior=self._pool.prior_of(numbers, share))
        ends = {}
        for trial in self.trials:
            if trial.status in ("paused", "dropped"):
                ends[trial.number] = self._sign * scale.y(float(mean[trial.number]))
            elif trial.values:
                ends[trial.number] = trial.values[-1]
        return ends

    def result(self) -> SearchResult:
        """Return what is known by now."""
        best = None
        for trial in self.trials:
            for epoch, value in enumerate(trial.values, start=1):
                if best is None or self._sign * value > self._sign * best.value:
                    best = Best(trial.config, value, epoch, trial.number)
        failure = "" if best else nothing_found(self.trials, self.space)
        return SearchResult(best, self.trials, self.epochs_used, self.log, failure)

    def _begin(self, point: np.ndarray, why: str) -> SearchTrial:
        """Begin a training at a point."""
        trial = SearchTrial(len(self.trials), self.space.configuration(point))
        self.trials.append(trial)
        self._pool.begin(self.space.point(trial.config))
        return self._go(trial, "begin", why)

    def _go(self, trial: SearchTrial, action: str, why: str) -> SearchTrial:
        """Put a trial in flight."""
        self._in_flight.add(trial.number)
        self._note(action, trial, why)
        return trial

    def _spend(self, trial: SearchTrial) -> None:
        """Count an epoch of the budget."""
        self._in_flight.discard(trial.number)
        self.epochs_used += 1

    def _close(self, trial: SearchTrial, status: Status, reason: str) -> None:
        """End a trial for good."""
        trial.status, trial.reason = status, reason
        self._note(status, trial, reason)

    def _note(self, action: str, trial: SearchTrial | None, why: str) -> None:
        self.log.append(Decision(self.epochs_used, action, None if trial is None else trial.number, why))

    def _choose(self, elsewhere: Collection[int]) -> SearchTrial | None:
        """Pick the trial, paused or new, that promises most."""
        unavailable = self._in_flight.union(elsewhere)
        paused = [t for t in self.trials if t.status == "paused" and t.number not in unavailable]
        numbers = np.array([trial.number for trial in paused], dtype=int)
        observed = self._observations()
        if observed is None:
            look = self._pool.look(numbers, numbers[:0], informed=False, blind=True)
            chosen = self._best_free(len(paused), look.points, self._blind_score(look))
            if chosen is None:
                return None
            return self._take(paused, look.points, chosen, "nothing has been reported yet")
        if self._informed and not self._believes_earlier_runs(observed[0]):
            return self._choose_afresh(paused)
        return self._decide(paused, [], observed, informed=self._informed)

    def _choose_afresh(self, paused: list[SearchTrial]) -> SearchTrial | None:
        """Pick the trial that promises most to a search that never had a prior.

        It sees the trainings that it chose itself alone: those that a misleading prior chose crowd where the prior
        pointed, and would keep it there. What it chooses and the other search trained already costs it nothing: it
        sees those epochs, and chooses again.
        """
        if not self._doubted:
            self._doubted = True
            self._note("doubt the prior", None, "from now on, a search that knows nothing of it decides too")
        while self._start:
            point = self._as_trained(self._start.pop(0))
            if self._pool.is_free(point):
                begun = self._begin(point, "one of the points that fill the space")
                self._afresh.add(begun.number)
                return begun
            self._afresh.update(
                t.number for t in self.trials if np.array_equal(self.space.point(t.config), point)
            )
        while True:
            observed = self._observations(self._afresh)
            others = [trial for trial in self.trials if trial.values and trial.number not in self._afresh]
            if observed is None:
                observed, others = self._observations(), []
                assert observed is not None
            own = [trial for trial in paused if trial.number in self._afresh]
            chosen = self._decide(own, others, observed, informed=False)
            if chosen is None:
                return self._decide(paused, [], observed, informed=False) if len(own) < len(paused) else None
            self._afresh.add(chosen.number)
            if all(chosen.number != trial.number for trial in others):
                return chosen

    def _decide(
        self,
        paused: list[SearchTrial],
        others: list[SearchTrial],
        observed: tuple[Observations, GapScale],
        *,
        informed: bool,
    ) -> SearchTrial | None:
        """Pick by one model. Of `others`, whose epochs it has not seen, one may be picked that does not go on."""
        observations, scale = observed
        model = self._fitted(observations if informed else replace(observations, prior=None))
        numbers = np.array([trial.number for trial in [*paused, *others]], dtype=int)
        begun = len(numbers)
        look = self._pool.look(numbers, self._leaders(observations), informed=informed)
        index = np.full(len(look.points), -1)
        index[: len(paused)] = numbers[: len(paused)]
        mean, deviation = model.predict(look.across, index, prior=look.prior)
        # Drawn anew each time: a search neither keeps to its favourites nor to what it knows least. The small draws
        # decide between equals, so that the order of the choices does not.
        optimism = 2 * model.kernel.optimism * self._rng.random()
        score = mean + optimism * deviation + 1e-12 * self._rng.random(len(mean))
        if look.spreads:
            score[:begun] = -np.inf
        chosen = self._best_free(begun, look.points, score)
        if chosen is None:
            return None
        if len(paused) <= chosen < begun:
            return others[chosen - len(paused)]
        beside = sum(trial.status == "paused" for trial in others)
        self._drop(paused, mean, deviation, score, float(observations.z.max()), chosen, scale, beside)
        low, middle, high = (
            self._sign * scale.y(mean[chosen] + side * deviation[chosen]) for side in (-1, 0, 1)
        )
        why = (
            f"predicted to end at {middle:.4g} ({min(low, high):.4g}..{max(low, high):.4g}), "
            f"best so far {self._sign * scale.best:.4g}"
        )
        return self._take(paused, look.points, chosen, why)

    def _blind_score(self, look: Look) -> NDArray[np.float64]:
        """Rank points while no training has reported a finite value: by the prior, and by chance.

        Each training that came to nothing speaks against what is like it, and every other time chance decides: neither
        the prior's favourites nor the lengths of the factors keep a search from the region where trainings are finite.
        """
        chance = self._rng.random(len(look.points))
        over = sum(trial.status != "paused" for trial in self.trials)
        if over % 2 or not len(chance):
            return chance
        like_failed: NDArray[np.float64] = look.across.max(axis=1, initial=0.0)
        if look.prior is None or over % 4:
            return 1e-12 * chance - like_failed
        expected: NDArray[np.float64] = look.prior[:, 0]
        return expected - float(np.ptp(expected)) * like_failed + 1e-12 * chance

    def _best_free(self, begun: int, points: np.ndarray, score: np.ndarray) -> int | None:
        """Return the highest score's index, passing over new points that become a configuration with a training."""
        for index in np.argsort(-score).tolist():
            if index < begun or self._pool.is_free(self._as_trained(points[index])):
                return int(index)
        return None

    def _as_trained(self, point: np.ndarray) -> np.ndarray:
        """Return the point that a point's configuration, whose numbers are rounded, has."""
        return self.space.point(self.space.configuration(point))

    def _take(self, paused: list[SearchTrial], points: np.ndarray, chosen: int, why: str) -> SearchTrial:
        """Put the chosen trial in flight; the paused ones stand before the new points."""
        if chosen < len(paused):
            trial = paused[chosen]
            return self._go(trial, "resume", f"epoch {trial.epochs + 1}; {why}")
        return self._begin(points[chosen], why)

    def _drop(
        self,
        paused: list[SearchTrial],
        mean: np.ndarray,
        deviation: np.ndarray,
        score: np.ndarray,
        incumbent: float,
        chosen: int,
        scale: GapScale,
        beside: int,
    ) -> None:
        """Close the paused trials that cannot win, and the least promising beyond `max_paused`, others beside them."""
        left = []
        for index, trial in enumerate(paused):
            hopeless = mean[index] + _HOPELESS * deviation[index] < incumbent
            if index != chosen and hopeless:
                end = self._sign * scale.y(float(mean[index]))
                self._close(
                    trial,
                    "dropped",
                    f"after epoch {trial.epochs} it is predicted to end at {end:.4g}, {_HOPELESS:g} standard "
                    f"deviations below the best of {self._sign * scale.best:.4g}",
                )
            elif index != chosen:
                left.append(index)
        for index in sorted(left, key=lambda index: score[index])[
            : max(0, len(left) + 1 + beside - self.max_paused)
        ]:
            self._close(
                paused[index],
                "dropped",
                f"the least promising of more than {self.max_paused} paused trainings",
            )

    def _leaders(self, observations: Observations) -> np.ndarray:
        """Return the numbers of the best trainings that were observed."""
        seen = set(observations.trial.tolist())
        known = [trial for trial in self.trials if trial.values and trial.number in seen]
        ranked = sorted(known, key=lambda trial: -max(self._sign * value for value in trial.values))
        return np.array([trial.number for trial in ranked[:_NEAR]], dtype=int)

    def _observations(self, only: Collection[int] | None = None) -> tuple[Observations, GapScale] | None:
        """Return all epochs told so far, or of some trials, on the gap scale. None when there is no finite value.

        A training that diverged or failed counts as the worst value seen, from its last epoch to its end. Where all
        that was seen is good, it counts as worse by as much as the gap scale spans.
        """
        trials = self.trials if only is None else [t for t in self.trials if t.number in only]
        values = [self._sign * value for trial in trials for value in trial.values]
        if not values:
            return None
        scale = gap_scale(np.array(values))
        worst = min(*values, scale.best - scale.scale)
        rows = []
        for trial in trials:
            curve = [(epoch, self._sign * value) for epoch, value in enumerate(trial.values, start=1)]
            if trial.status in ("diverged", "failed"):
                curve += [(epoch, worst) for epoch in sorted({trial.epochs + 1, self.max_epochs})]
            rows += [(trial.number, epoch / self.max_epochs, value) for epoch, value in curve]
        number, share, value = map(np.array, zip(*rows, strict=True))
        prior = self._pool.prior_of(number, share)
        return Observations(number, share, scale.z(value), prior).thinned(), scale

    def _believes_earlier_runs(self, observations: Observations) -> bool:
        """Draw whether the model with the prior decides.

        It does while it is the more probable one, but after some trainings in ever fewer decisions: a prior may predict
        most of a space well, and be wrong about its best alone.
        """
        if len(observations.z) >= _DOUBT_AFTER:
            within, noise = self._pool.within(informed=True), self._noise[True]
            alone = CurveModel(WITHOUT_PRIOR.noisier(noise), within, replace(observations, prior=None))
            model = CurveModel(WITH_PRIOR.noisier(noise), within, observations)
            if alone.log_likelihood > model.log_likelihood:
                return False
        trust = _TRUST_TRAININGS * self.max_epochs / max(self.epochs_used, 1)
        return bool(self._rng.random() < trust**_TRUST_POWER)

    def _fitted(self, observations: Observations) -> CurveModel:
        """Fit the model with the prior, or without where the observations have none.

        From time to time, the lengths of the factors and the noise are fitted too.
        """
        informed = observations.prior is not None
        kernel, noise = WITH_PRIOR if informed else WITHOUT_PRIOR, self._noise[informed]
        adapting = self.epochs_used >= self._adapted_at[informed] + _ADAPT_EVERY
        if adapting:
            self._adapted_at[informed] = self.epochs_used
            self._pool.adapt(kernel.noisier(noise), observations, informed=informed)
        within = self._pool.within(informed=informed)
        if adapting:
            self._noise[informed] = noise = adapted_noise(kernel, noise, within, observations)
        return CurveModel(kernel.noisier(noise), within, observations)


@cache
def _linear_algebra() -> ThreadpoolController:
    """Return what limits the threads of numpy's and scipy's BLAS.

    The matrices of a decision are small: a second thread makes it several times as long, most of it spent waiting.
    """
    return ThreadpoolController()


def _advance(
    searcher: Searcher, trial: SearchTrial, running: dict[int, Iterator[float]], evaluate: Evaluate, seed: int
) -> None:
    """Train one epoch and tell the searcher what came of it."""
    try:
        if trial.number not in running:
            running[trial.number] = _begun(evaluate, trial, seed)
        value = next(running[trial.number])
        number = None if value is None else float(value)
    except StopIteration:
        searcher.end(trial)
    except Exception as error:  # a person's `evaluate`
        if isinstance(error, _NoIteratorError) and trial.number == 0:
            raise  # no training will be another's: better told at once than after the whole budget
        searcher.fail(trial, _in_a_line(error), out_of_memory=is_out_of_memory(error))
    else:
        searcher.tell(trial, number)


class _NoIteratorError(InvalidTypeError):
    """What `evaluate` returned cannot be iterated."""


def _begun(evaluate: Evaluate, trial: SearchTrial, seed: int) -> Iterator[float]:
    """Begin a training."""
    made = evaluate(dict(trial.config), seed)
    if not isinstance(made, Iterable):
        raise _NoIteratorError(
            "evaluate",
            f"returned a {type(made).__name__}, not a generator",
            to_do="Let it yield the metric after each epoch",
        )
    return iter(made)


def _close(searcher: Searcher, number: int, generator: Iterator[float]) -> None:
    """Close a generator; an iterator of another kind has nothing to close. One that raises keeps its trial."""
    close = getattr(generator, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:  # a person's `evaluate`
        searcher.remark(searcher.trials[number], f"closing it raised {_in_a_line(error)}")


def _in_a_line(error: BaseException) -> str:
    """Return an error's name and text."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check_seed_and_direction(seed: Any, maximize: Any) -> None:
    """Refuse a seed that is not a whole number of 0 or more, and a direction that is not a flag."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or int(seed) < 0:
        raise InvalidValueError("seed", f"{seed!r} must be a whole number of 0 or more")
    if not isinstance(maximize, bool):
        raise InvalidValueError("maximize", f"{maximize!r} must be True or False")


def _check_count(name: str, value: Any) -> None:
    """Refuse what is not a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidValueError(name, f"{value!r} must be a whole number of 1 or more")
