"""What is shown and recorded while a search goes on: its epochs, its devices, then the winner's re-runs (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusetune.bench.results import Record, RecordKeeper, RunDirectory, ThreadsChoice
from fusetune.bench.run import RunPlan
from fusetune.bench.search.plan import BUDGET_SPENT
from fusetune.bench.search.workers import TRAINING, Shared
from fusetune.bench.spec import Trial
from fusetune.bench.status import Display, StatusKeeper
from fusetune.bench.workers import ExecutorLostError, Progress


@dataclass
class MessagesOnly:
    """A display of a run's messages. The epochs of a search are too short to be shown one by one.

    Args:
        display: shows the messages.
    """

    display: Display

    def message(self, text: str) -> None:
        """Show a message."""
        self.display.message(text)

    def start(self, total: int, done: int) -> None:
        """Show nothing."""

    def device_joined(self, node: str, device: str, kind: str) -> None:
        """Show nothing: there is a message."""

    def device_left(self, node: str, device: str, reason: str) -> None:
        """Show nothing: there is a message."""

    def trial_started(self, trial_id: str, index: int) -> None:
        """Show nothing."""

    def trial_progress(self, trial_id: str, update: Mapping[str, Any]) -> None:
        """Show nothing."""

    def trial_lost(self, trial_id: str, node: str, reason: str, attempt: int) -> None:
        """Show nothing: there is a message."""

    def trial_finished(self, record: Record, index: int) -> None:
        """Show nothing: a line is printed where the record is kept."""


class SearchKeeper:
    """Appends each record once and prints a line.

    Args:
        plan: of the run.
        directory: takes the records.
        records: of earlier parts of the run.
        status: shows messages, and keeps what the search does now.
    """

    def __init__(
        self, plan: RunPlan, directory: RunDirectory, records: list[Record], status: StatusKeeper
    ) -> None:
        self._keeper = RecordKeeper(plan.run, directory, records)
        self._source, self.say, self.status = plan.trials[0].source, status.message, status

    def add(self, threads: ThreadsChoice | None) -> None:
        """Add the number of threads, and why it was chosen, to each further record."""
        self._keeper.add(threads)

    @property
    def records(self) -> list[Record]:
        """All records of the run so far."""
        return self._keeper.records

    def keep(self, record: Record, note: str) -> None:
        """Append a record, unless an earlier part of the run already has."""
        if any(record.trial == kept.trial for kept in self.records):
            return
        self._keeper.keep(record, self._source)
        if BUDGET_SPENT not in record.reason:
            reason = f": {record.reason}" if record.reason else ""
            self.say(f"{note}{record.trial}  {record.status}{reason}")


@dataclass
class _Devices:
    """Says which devices come and go."""

    keeper: SearchKeeper

    def joined(self, node: str, device: str, kind: str) -> None:
        """Say that a device takes trainings."""
        self.keeper.status.device_joined(node, device, kind)
        self.keeper.say(f"{node}: device {device} joins ({kind})")

    def left(self, node: str, device: str, reason: str) -> None:
        """Say that a device is gone."""
        self.keeper.status.device_left(node, device, reason)
        self.keeper.say(f"{node}: device {device} left: {reason}")


@dataclass
class EpochsListener(_Devices):
    """Gets every epoch, and keeps the records of trials that have ended."""

    shared: Shared
    # Epoch of the budget -> the training that it went to. Unknown until its worker has chosen.
    _training: dict[int, str] = field(default_factory=dict)

    def started(self, trial: int) -> None:
        """An epoch begins."""

    def progressed(self, trial: int, progress: Progress) -> None:
        """Take news of the training that an epoch went to. A worker's first news is which one it has chosen."""
        status = self.keeper.status
        if TRAINING in progress:
            self._withdraw(trial)
            self._training[trial] = progress[TRAINING]
            status.trial_started(progress[TRAINING], trial + 1)
        elif trial in self._training:
            status.trial_progress(self._training[trial], progress)

    def finished(self, trial: int, record: Record) -> None:
        """Count an epoch."""
        if self._training.get(trial) == record.trial:
            del self._training[trial]
            self.keeper.status.trial_finished(record, trial + 1)
        self._withdraw(trial)
        self.catch_up()

    def lost(self, trial: int, loss: ExecutorLostError, attempt: int, again: bool) -> None:
        """Note a lost epoch. The trainings that its device held are told by themselves."""
        training = self._training.pop(trial, None)
        if training is not None:
            self.keeper.status.trial_lost(training, loss.node, loss.reason, attempt)

    def catch_up(self) -> None:
        """Print news of the workers, and append the records of trials that have ended."""
        shared = self.shared
        while not shared.news.empty():
            self.keeper.say(shared.news.get())
        while not shared.over.empty():
            best = shared.state.searcher.result().best
            best_text = f", best {best.value:.4g}" if best else ""
            used, budget = shared.state.searcher.epochs_used, shared.state.plan.budget_epochs
            self.keeper.keep(shared.over.get(), f"[{used}/{budget} epochs{best_text}] ")

    def _withdraw(self, trial: int) -> None:
        """Forget a training that needed no epoch: it had ended by itself."""
        training = self._training.pop(trial, None)
        if training is not None:
            self.keeper.status.trial_withdrawn(training)


@dataclass
class RerunsListener(_Devices):
    """Gets the winner's re-runs. They are in flight, and count no epoch of the budget."""

    def started(self, trial: Trial) -> None:
        """A re-run begins."""
        self.keeper.status.trial_started(trial.id, trial.seed)

    def progressed(self, trial: Trial, progress: Progress) -> None:
        """Take news of a re-run."""
        self.keeper.status.trial_progress(trial.id, progress)

    def finished(self, trial: Trial, record: Record) -> None:
        """Keep a re-run's record."""
        self.keeper.status.trial_withdrawn(trial.id)
        self.keeper.keep(record, "[fresh seed] ")

    def lost(self, trial: Trial, loss: ExecutorLostError, attempt: int, again: bool) -> None:
        """Note a lost re-run, which waits again."""
        self.keeper.status.trial_lost(trial.id, loss.node, loss.reason, attempt)
