"""What has happened in a search: its trainings, the epochs that they used, the log, and all of it as observations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from fusetune.tuner.search.failure import nothing_found
from fusetune.tuner.search.model import GapScale, Observations, gap_scale
from fusetune.tuner.search.pool import Pool
from fusetune.tuner.search.result import Best, Decision, SearchResult, SearchTrial, Status
from fusetune.tuner.search.space import Space

Observed = tuple[Observations, GapScale]


class History:
    """The trainings of a search and its log.

    Args:
        space: what is searched.
        pool: told of every training that begins.
        max_epochs: of one training.
        sign: 1 where a larger value is better, else -1.

    Attributes:
        trials: in the order in which they began.
        in_flight: numbers of the trials whose next epoch is being made.
        epochs_used: of the budget.
        log: what was decided.
    """

    def __init__(self, space: Space, pool: Pool, max_epochs: int, sign: float) -> None:
        self.space, self.max_epochs, self.sign = space, max_epochs, sign
        self.trials: list[SearchTrial] = []
        self.in_flight: set[int] = set()
        self.epochs_used = 0
        self.log: list[Decision] = []
        self._pool = pool

    def begin(self, point: np.ndarray, why: str) -> SearchTrial:
        """Begin a training at a point."""
        return self.resume(self._append(self.space.configuration(point)), "begin", why)

    def resume(self, trial: SearchTrial, action: str, why: str) -> SearchTrial:
        """Put a trial in flight."""
        self.in_flight.add(trial.number)
        self.note(action, trial, why)
        return trial

    def restore(
        self, config: Mapping[str, Any], values: Sequence[float], status: Status, reason: str
    ) -> SearchTrial:
        """Take in a trial of an earlier part of the search, as it stood."""
        trial = self._append(dict(config))
        trial.values, trial.status, trial.reason = list(values), status, reason
        self.epochs_used += trial.epochs + (status in ("diverged", "out_of_memory", "failed"))
        return trial

    def spend(self, trial: SearchTrial) -> None:
        """Count an epoch of the budget, which is not in flight any more."""
        self.in_flight.discard(trial.number)
        self.epochs_used += 1

    def close(self, trial: SearchTrial, status: Status, reason: str) -> None:
        """End a trial for good."""
        trial.status, trial.reason = status, reason
        self.note(status, trial, reason)

    def note(self, action: str, trial: SearchTrial | None, why: str) -> None:
        """Add a line to the log."""
        self.log.append(Decision(self.epochs_used, action, None if trial is None else trial.number, why))

    def observations(self, only: Collection[int] | None = None) -> Observed | None:
        """Return all epochs told so far, or of some trials, on the gap scale. None when there is no finite value.

        A training that diverged or failed counts as the worst observed value, from its last epoch to its end. Where all
        observed values are good, it counts as worse by the whole span of the gap scale.
        """
        trials = self.trials if only is None else [t for t in self.trials if t.number in only]
        told = self.sign * np.fromiter(chain.from_iterable(trial.values for trial in trials), float)
        if not len(told):
            return None
        scale = gap_scale(told)
        worst = min(told.min(), scale.best - scale.scale)
        counts = np.array([len(trial.values) for trial in trials])
        ended = np.cumsum(counts)
        number = np.repeat([trial.number for trial in trials], counts)
        epoch = 1 + np.arange(len(told)) - np.repeat(ended - counts, counts)
        lost = [
            (ended[place], trial.number, end)
            for place, trial in enumerate(trials)
            if trial.status in ("diverged", "failed")
            for end in sorted({trial.epochs + 1, self.max_epochs})
        ]
        if lost:
            after, whose, ends = zip(*lost, strict=True)
            number, epoch = np.insert(number, after, whose), np.insert(epoch, after, ends)
            told = np.insert(told, after, worst)
        kept = Observations(number, epoch / self.max_epochs, scale.z(told)).thinned()
        return replace(kept, prior=self._pool.prior_of(kept.trial, kept.share)), scale

    def pending(self, only: Collection[int] | None = None) -> Observations | None:
        """Return the epochs in flight, or those of some trials, as observations whose z is not known. None for none."""
        flying = [number for number in sorted(self.in_flight) if only is None or number in only]
        if not flying:
            return None
        number = np.array(flying)
        share = np.array([self.trials[each].epochs + 1 for each in flying]) / self.max_epochs
        return Observations(number, share, np.zeros(len(flying)), self._pool.prior_of(number, share))

    def leaders(self, observations: Observations, most: int) -> np.ndarray:
        """Return the numbers of the best observed trainings."""
        seen = set(observations.trial.tolist())
        known = [trial for trial in self.trials if trial.values and trial.number in seen]
        ranked = sorted(known, key=lambda trial: -max(self.sign * value for value in trial.values))
        return np.array([trial.number for trial in ranked[:most]], dtype=int)

    def result(self) -> SearchResult:
        """Return what is known by now."""
        best = None
        for trial in self.trials:
            for epoch, value in enumerate(trial.values, start=1):
                if best is None or self.sign * value > self.sign * best.value:
                    best = Best(trial.config, value, epoch, trial.number)
        failure = "" if best else nothing_found(self.trials, self.space)
        return SearchResult(best, self.trials, self.epochs_used, self.log, failure)

    def _append(self, config: dict[str, Any]) -> SearchTrial:
        trial = SearchTrial(len(self.trials), config)
        self.trials.append(trial)
        self._pool.begin(self.space.point(config))
        return trial
