"""A search by ask and tell: ask which training gets the next epoch, make it, and tell what came of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from fusetune.errors import InvalidValueError
from fusetune.tuner.search.decision import START, Chooser
from fusetune.tuner.search.forecast import Forecast
from fusetune.tuner.search.history import History
from fusetune.tuner.search.pool import Pool
from fusetune.tuner.search.prior import Prior
from fusetune.tuner.search.result import Decision, SearchResult, SearchTrial, Status
from fusetune.tuner.search.space import Space


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
        check_count("max_epochs", max_epochs)
        _check_seed_and_direction(seed, maximize)
        self.space = Space(space)
        self.max_epochs = max_epochs
        rng = np.random.default_rng(seed)
        self._pool = Pool(self.space, prior.on(self.space) if prior is not None else None, rng)
        self._history = History(self.space, self._pool, max_epochs, 1.0 if maximize else -1.0)
        self._forecast = Forecast(self._history, self._pool, rng)
        self._chooser = Chooser(
            self._history,
            self._pool,
            self._forecast,
            start=self.space.filling(START, seed),
            max_paused=max_paused,
            rng=rng,
        )

    @property
    def trials(self) -> list[SearchTrial]:
        """The trainings, in the order of their first epochs."""
        return self._history.trials

    @property
    def log(self) -> list[Decision]:
        """What was decided."""
        return self._history.log

    @property
    def epochs_used(self) -> int:
        """Epochs of the budget that are spent."""
        return self._history.epochs_used

    def ask(self, elsewhere: Collection[int] = ()) -> SearchTrial | None:
        """Return the trial to train for one epoch, from where it stands; None when nothing is left to train.

        Args:
            elsewhere: numbers of paused trials that whoever asks cannot go on with.
        """
        with _linear_algebra().limit(limits=1, user_api="blas"):
            return self._chooser.choose(elsewhere)

    def tell(self, trial: SearchTrial, value: float | None) -> None:
        """Take the metric after one more epoch. None, or a value that is not finite, is a training that diverged."""
        self._history.spend(trial)
        if value is None or not math.isfinite(value):
            self._history.close(trial, "diverged", f"the metric was {value} after epoch {trial.epochs + 1}")
            return
        trial.values.append(float(value))
        if trial.epochs == 1:
            self._pool.fits(trial.number)
        if trial.epochs >= self.max_epochs:
            self._history.close(trial, "finished", f"all {self.max_epochs} epochs, the last at {value:.6g}")

    def give_back(self, trial: SearchTrial) -> None:
        """Take that the trial's next epoch was not made, for no fault of its own. Nothing is spent."""
        self._history.in_flight.discard(trial.number)

    def end(self, trial: SearchTrial) -> None:
        """Take that the training ended by itself, without another epoch."""
        if trial.values:
            self._history.in_flight.discard(trial.number)
            self._history.close(trial, "finished", f"it ended by itself after epoch {trial.epochs}")
        else:
            self._history.spend(trial)
            self._history.close(trial, "failed", "it ended before it reported a value")

    def fail(self, trial: SearchTrial, reason: str, *, out_of_memory: bool = False) -> None:
        """Take that the training's next epoch could not be made."""
        self._history.spend(trial)
        if out_of_memory:
            self._pool.does_not_fit(trial.number)
        self._history.close(trial, "out_of_memory" if out_of_memory else "failed", reason)

    def restore(
        self, config: Mapping[str, Any], values: Sequence[float], status: Status, reason: str
    ) -> SearchTrial:
        """Take in a trial of an earlier part of the search, as it stood. Its epochs count."""
        trial = self._history.restore(config, values, status, reason)
        if trial.values:
            self._pool.fits(trial.number)
        if status == "out_of_memory":
            self._pool.does_not_fit(trial.number)
        return trial

    def drop(self, trial: SearchTrial, reason: str) -> None:
        """End a paused trial for a reason of the caller's."""
        self._history.close(trial, "dropped", reason)

    def remark(self, trial: SearchTrial, sentence: str) -> None:
        """Add to a trial's reason what happened to it besides."""
        trial.reason = f"{trial.reason}; {sentence}" if trial.reason else sentence
        self._history.note("remark on", trial, sentence)

    def nothing_left(self) -> None:
        """Note that the search ends because nothing is left to train, and why."""
        self._history.note("end", None, f"nothing is left to train: {self._pool.why_empty()}")

    def predicted_ends(self) -> dict[int, float]:
        """Return number -> the value that each trial with an epoch ended at or is predicted to end at."""
        return self._forecast.ends()

    def result(self) -> SearchResult:
        """Return what is known by now."""
        return self._history.result()


@cache
def _linear_algebra() -> ThreadpoolController:
    """Return what limits the threads of numpy's and scipy's BLAS.

    The matrices of a decision are small: a second thread makes it several times as long, most of it spent waiting.
    """
    return ThreadpoolController()


def _check_seed_and_direction(seed: Any, maximize: Any) -> None:
    if not isinstance(seed, Integral) or isinstance(seed, bool) or int(seed) < 0:
        raise InvalidValueError("seed", f"{seed!r} must be a whole number of 0 or more")
    if not isinstance(maximize, bool):
        raise InvalidValueError("maximize", f"{maximize!r} must be True or False")


def check_count(name: str, value: Any) -> None:
    """Refuse what is not a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidValueError(name, f"{value!r} must be a whole number of 1 or more")
