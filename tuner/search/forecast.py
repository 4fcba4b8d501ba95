"""Forecasts of learning curves: the model of `tuner.search.model`, fitted to a search's history as it grows."""

from __future__ import annotations

import numpy as np

from fusetune.tuner.search.history import History
from fusetune.tuner.search.model import WITH_PRIOR, WITHOUT_PRIOR, CurveModel, Observations, adapted_noise
from fusetune.tuner.search.pool import Pool

# The factors' lengths and the noise are fitted anew whenever this many epochs have been told.
_ADAPT_EVERY = 8
# The prior is not doubted before this many epochs: the scale follows the best seen, and the first curves stretch it.
_DOUBT_AFTER = 8
# After epochs as of so many whole trainings, the prior decides in a share of the decisions that falls with this power.
_TRUST_TRAININGS, _TRUST_POWER = 6.0, 3.0


class Forecast:
    """Fits the model with the prior, and the one without.

    Args:
        history: of the search.
        pool: its points' correlations, and the prior's curves.
        rng: draws which of the two models decides.
    """

    def __init__(self, history: History, pool: Pool, rng: np.random.Generator) -> None:
        self._history, self._pool, self._rng = history, pool, rng
        self._adapted_at = {False: 0, True: 0}
        self._noise = {False: 1.0, True: 1.0}
        self._made: tuple[Observations, np.ndarray, CurveModel] | None = None

    def fitted(self, observations: Observations, pending: Observations | None = None) -> CurveModel:
        """Fit the model with the prior, or without where the observations have none.

        Every few epochs, the lengths of the factors and the noise are fitted too.

        Args:
            observations: epochs told.
            pending: epochs in flight, or None.
        """
        informed = observations.prior is not None
        kernel, noise = WITH_PRIOR if informed else WITHOUT_PRIOR, self._noise[informed]
        adapting = self._history.epochs_used >= self._adapted_at[informed] + _ADAPT_EVERY
        if adapting:
            self._adapted_at[informed] = self._history.epochs_used
            self._pool.adapt(kernel.noisier(noise), observations, informed=informed)
            within = self._pool.within(observations.trainings, informed=informed)
            self._noise[informed] = adapted_noise(kernel, noise, within, observations)
        return self._model(observations, pending)

    def _model(self, observations: Observations, pending: Observations | None = None) -> CurveModel:
        """Return the model under the lengths and the noise of now. One that has just been made is made once."""
        informed = observations.prior is not None
        kernel = (WITH_PRIOR if informed else WITHOUT_PRIOR).noisier(self._noise[informed])
        reach, made = self._pool.reach[informed], self._made
        same = pending is None and made is not None and made[0] is observations and made[1] is reach
        if made is not None and same and made[2].kernel == kernel:
            return made[2]
        told = observations.trainings
        trainings = told if pending is None else np.union1d(told, pending.trial)
        model = CurveModel(kernel, self._pool.within(trainings, informed=informed), observations, pending)
        if pending is None:
            self._made = observations, reach, model
        return model

    def lets_prior_decide(self, observations: Observations) -> bool:
        """Draw whether the model with the prior decides.

        It does while its likelihood is the higher one, but after some trainings in ever fewer decisions: a prior may
        predict most of a space well, and be wrong about its best alone. Each further worker in flight makes another
        training meanwhile, and as many epochs before a doubt as one worker does: many first epochs at once, of which
        none has gone on, say no more of the ends than one does.
        """
        flying = len(self._history.in_flight)
        if len(observations.z) >= _DOUBT_AFTER and self._history.epochs_used >= _DOUBT_AFTER * flying:
            within, noise = self._pool.within(observations.trainings, informed=True), self._noise[True]
            alone = CurveModel(WITHOUT_PRIOR.noisier(noise), within, observations.without_prior)
            model = self._model(observations)
            if alone.log_likelihood > model.log_likelihood:
                return False
        trust = (_TRUST_TRAININGS + flying) * self._history.max_epochs / max(self._history.epochs_used, 1)
        return bool(self._rng.random() < trust**_TRUST_POWER)

    def ends(self) -> dict[int, float]:
        """Return number -> the value that each trial with an epoch ended at or is predicted to end at."""
        history = self._history
        observed = history.observations()
        if observed is None:
            return {}
        observations, scale = observed
        numbers = np.array([trial.number for trial in history.trials])
        share = np.ones(len(numbers))
        model = self.fitted(observations)
        across = self._pool.across(numbers, observations.trainings, informed=self._pool.has_prior)
        mean, _ = model.predict(across, numbers, prior=self._pool.prior_of(numbers, share))
        ends = {}
        for trial in history.trials:
            if trial.status in ("paused", "dropped"):
                ends[trial.number] = history.sign * scale.y(float(mean[trial.number]))
            elif trial.values:
                ends[trial.number] = trial.values[-1]
        return ends
