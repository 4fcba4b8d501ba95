"""What a search came to: its trainings, its best value, and the log of its decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["paused", "finished", "dropped", "diverged", "out_of_memory", "failed"]


@dataclass
class SearchTrial:
    """One training of a search.

    Args:
        number: from 0, in the order of their first epochs.
        config: factor name -> value.
        values: the metric after each epoch.
        status: `paused` can go on, or could have when the budget was spent; all others are over.
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
