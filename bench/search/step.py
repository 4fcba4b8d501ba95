"""What a worker is asked to do with one training of a search (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
