"""What a worker is asked to do with one training of a search (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fusetune.bench.results import Record, TrainingOutcome
from fusetune.bench.spec import Trial


@dataclass(frozen=True)
class Advance:
    """Train `trial` up to and with an epoch; with `stop`, end it there for that reason.

    Args:
        trial: what to train.
        epochs: from 1; an epoch that was made before is not made again.
        stop: why the training ends here; empty: it waits for more.
        made: epochs that were made before, here or elsewhere.
    """

    trial: Trial
    epochs: int
    stop: str = ""
    made: int = 0

    @property
    def id(self) -> str:
        """The trial's."""
        return self.trial.id

    @property
    def factors(self) -> Mapping[str, Any]:
        """The trial's."""
        return self.trial.factors

    @property
    def seed(self) -> int:
        """The trial's."""
        return self.trial.seed


def with_epochs_made_again(record: Record, epochs: int) -> Record:
    """Return a training's record that says how many of its epochs were trained once more.

    Example:
        >>> with_epochs_made_again(Record("t", {}, 0, "failed"), 2).outcome.epochs_made_again
        2
    """
    outcome = record.outcome if isinstance(record.outcome, TrainingOutcome) else None
    if outcome is None and not epochs:
        return record
    return replace(record, outcome=replace(outcome or TrainingOutcome(), epochs_made_again=epochs))
