"""One step of a search: a request to a worker for one training (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fusetune.bench.results import Record, TrainingOutcome
from fusetune.bench.spec import Trial


@dataclass(frozen=True)
class Advance:
    """A request to train `trial` through a given epoch, and with `stop` to end it there.

    Args:
        trial: the trial to train.
        epochs: the last epoch to train, from 1. Epochs that this worker has trained are not repeated.
        stop: the reason to end the training here. Empty: the training is paused.
        made: epochs that any worker has trained before.
    """

    trial: Trial
    epochs: int
    stop: str = ""
    made: int = 0

    @property
    def id(self) -> str:
        """The trial's id."""
        return self.trial.id

    @property
    def factors(self) -> Mapping[str, Any]:
        """The trial's factors."""
        return self.trial.factors

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return self.trial.seed


def with_epochs_made_again(record: Record, epochs: int) -> Record:
    """Return a record with the number of its training's repeated epochs.

    Example:
        >>> with_epochs_made_again(Record("t", {}, 0, "failed"), 2).outcome.epochs_made_again
        2
    """
    outcome = record.outcome if isinstance(record.outcome, TrainingOutcome) else None
    if outcome is None and not epochs:
        return record
    return replace(record, outcome=replace(outcome or TrainingOutcome(), epochs_made_again=epochs))
