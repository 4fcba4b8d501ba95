"""The workers of a search, the state that they share, and the replacement of lost workers.

Between two epochs, a training is paused in the memory of the worker that trained it last. When that process is lost,
any worker repeats the training from its first epoch, if the searcher chooses it again. The values are the same. The
budget counts each epoch once. The log and the record count the repeated epochs separately.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fusetune.bench.results import PausedTraining, Record, TrainingOutcome
from fusetune.bench.search.holders import Holders
from fusetune.bench.search.plan import BUDGET_SPENT, why_ended
from fusetune.bench.search.state import SearchState
from fusetune.bench.search.step import Advance
from fusetune.bench.spec import Trial
from fusetune.bench.stats import counted
from fusetune.bench.workers import MOST_LOSSES, Executor, ExecutorLostError, OnProgress, Progress
from fusetune.tuner.search import SearchTrial

# How often an idle worker asks for a training again.
_POLL_S = 0.2
# The first news of an epoch: the training that it goes to.
TRAINING = "training"


class Shared:
    """State that all executors share under one lock: searcher, log, records of ended trials, and messages."""

    def __init__(self, state: SearchState, source: Trial, epochs: int) -> None:
        self.state = state
        self.changed = threading.Condition()
        self.over: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._source = source
        self._epochs_left = epochs
        self.nothing_left = False
        self._holders = Holders(state.searcher)
        self._losses: Counter[int] = Counter()

    def next_step(self, worker: int, is_cancelled: Callable[[], bool]) -> tuple[SearchTrial, Advance] | None:
        """Return a worker's next trial and step, or None when nothing is left to train."""
        with self.changed:
            self._epochs_left -= 1
            known = len(self.state.searcher.trials)
            trial = self._holders.ask(worker)
            while trial is None and self._holders.any_in_flight and not is_cancelled():
                self.changed.wait(_POLL_S)
                trial = self._holders.ask(worker)
            if trial is None:
                self._epochs_left, self.nothing_left = 0, True
                return None
            if trial.number >= known:
                self.state.log.begin(trial)
            return trial, self._advance(trial, trial.epochs + 1)

    def to_end(self, worker: int, *, last: bool) -> list[tuple[SearchTrial, Advance]]:
        """Return the steps that end the dropped trials in a worker's memory.

        Args:
            worker: the worker's index.
            last: whether this worker gets no more epochs. With the budget spent, its paused trials are then dropped.
        """
        with self.changed:
            mine = self._holders.of(worker)
            if last and self._epochs_left <= 0:
                for trial in mine:
                    if trial.status == "paused":
                        self.state.searcher.drop(trial, BUDGET_SPENT)
            steps = []
            for trial in mine:
                if trial.status == "dropped":
                    self._holders.forget(trial)
                    self.state.log.close(trial)
                    steps.append((trial, self._advance(trial, trial.epochs, stop=why_ended(trial))))
            self.changed.notify_all()
            return steps

    def take(self, trial: SearchTrial, record: Record) -> bool:
        """Report an epoch's result to the searcher, and return whether it counts in the budget."""
        with self.changed:
            searcher, log = self.state.searcher, self.state.log
            used = searcher.epochs_used
            paused = isinstance(record.outcome, PausedTraining)
            if isinstance(record.outcome, (PausedTraining, TrainingOutcome)):
                log.add_repeats(trial, record.outcome.epochs_made_again)
            if record.status in ("out_of_memory", "failed"):
                searcher.fail(trial, record.reason, out_of_memory=record.status == "out_of_memory")
            elif len(record.curve) > trial.epochs:
                entry = record.curve[trial.epochs]
                diverged = record.status == "diverged" and len(record.curve) == trial.epochs + 1
                searcher.tell(trial, None if diverged else entry.get(self.state.plan.metric))
                if trial.status in ("paused", "finished"):
                    log.report(trial, entry)
            if not paused and trial.status == "paused":
                searcher.end(trial)
            self._holders.landed(trial)
            if trial.status != "paused":
                log.close(trial)
                if not paused:
                    self.keep(trial, record)
            spent = searcher.epochs_used > used
            if not spent:
                self._epochs_left += 1
            self.changed.notify_all()
            return spent

    def keep(self, trial: SearchTrial, record: Record) -> None:
        """Queue the record of a trial that has ended for the listener."""
        self.over.put(self.state.with_repeats(trial, record))

    def lose(self, worker: int, but: SearchTrial, why: str) -> bool:
        """Forget the trials in the memory of a replaced worker, except `but`. Return whether there were any."""
        with self.changed:
            lost = [trial for trial in self._holders.of(worker) if trial.number != but.number]
            for trial in lost:
                self._holders.forget(trial)
            if lost:
                self.news.put(
                    f"worker {worker} was replaced: {why}; {counted(len(lost), 'training')} paused in its memory "
                    "will be trained again from the start, if chosen"
                )
            return bool(lost)

    def give_back(self, worker: int, trial: SearchTrial | None, loss: ExecutorLostError) -> None:
        """Take back what was in the memory of a worker whose device is gone. No training has failed by that.

        Args:
            worker: the worker's index.
            trial: the training whose next epoch was being made, if there was one.
            loss: of the device.
        """
        with self.changed:
            searcher = self.state.searcher
            held = self._holders.of(worker)
            for each in held:
                self._holders.forget(each)
            if trial is not None:
                self._epochs_left += 1
                searcher.give_back(trial)
                self._holders.landed(trial)
                self._losses[trial.number] += 1
                if self._losses[trial.number] > MOST_LOSSES:
                    searcher.drop(trial, f"it lost its device {self._losses[trial.number]} times")
                    self.state.log.close(trial)
            self.news.put(
                f"{loss.node}: {loss.reason}; {counted(len(held), 'training')} in the memory of its worker "
                "will be trained again from the start, if chosen"
            )
            self.changed.notify_all()

    def _advance(self, trial: SearchTrial, epochs: int, stop: str = "") -> Advance:
        made = self.state.trial(trial.config, self.state.plan.seed, self._source)
        return Advance(made, epochs, stop, made=trial.epochs)


@dataclass
class SearchExecutor:
    """Trains one epoch of the search per call of `run`, in its own worker."""

    shared: Shared
    worker: Executor
    index: int
    process: int | None = None
    chosen: SearchTrial | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, trial: int, on_progress: OnProgress) -> Record:
        """Train the next epoch. `trial` only counts the budget."""
        try:
            return self._run(trial, on_progress)
        except BaseException as error:
            if isinstance(error, ExecutorLostError) and not self.ended.is_set():
                self.shared.give_back(self.index, self.chosen, error)
            self.ended.set()
            raise

    def prepare(self) -> None:
        """Let the worker get ready, where it has to."""
        prepare = getattr(self.worker, "prepare", None)
        if prepare is not None:
            prepare()

    def cancel(self) -> None:
        self.ended.set()
        self.worker.cancel()

    def close(self) -> None:
        try:
            if not self.ended.is_set():
                self._end_dropped(_ignore, last=True)
        except ExecutorLostError:
            pass  # records of the trainings that it held come from the log
        finally:
            self.worker.close()

    def _run(self, trial: int, on_progress: OnProgress) -> Record:
        self._end_dropped(on_progress, last=False)
        while (decided := self.shared.next_step(self.index, self.ended.is_set)) is not None:
            chosen, step = decided
            self.chosen = chosen
            on_progress({TRAINING: step.id})
            record, others_waited = self._run_step(chosen, step, on_progress)
            killed = record.status == "out_of_memory" or record.worker.unexplained_kill
            if others_waited and killed:
                # Paused trainings held memory too. Run the step again alone, to see whether it fits.
                record, _ = self._run_step(chosen, step, on_progress)
            self.chosen = None
            # A worker that was killed to cancel the run has no result. A training that ended before another epoch has
            # not used the budget, so the loop takes the next one.
            if self.ended.is_set() or self.shared.take(chosen, record):
                return record
        return Record(f"epoch {trial}", {}, 0, "ok", reason="nothing is left to train")

    def _run_step(self, trial: SearchTrial, step: Advance, on_progress: OnProgress) -> tuple[Record, bool]:
        """Run a step in the worker. Also return whether other trainings were lost with a replaced process."""
        record = self.worker.run(step, on_progress)
        before, self.process = self.process, getattr(self.worker, "process_id", None)
        if before is None or before == self.process:
            return record, False
        why = "its process died between two epochs"
        if self.process is None:
            left = record.worker.replaced_for
            why = f"a training left behind {', '.join(left)}" if left else record.reason
        return record, self.shared.lose(self.index, trial, why)

    def _end_dropped(self, on_progress: OnProgress, *, last: bool) -> None:
        """End the dropped trials in the worker's memory, and keep their records."""
        for trial, step in self.shared.to_end(self.index, last=last):
            record, _ = self._run_step(trial, step, on_progress)
            # Where the worker no longer has the training, or died, its record comes from the curve in the log.
            if record.status not in ("failed", "out_of_memory"):
                self.shared.keep(trial, record)


def _ignore(progress: Progress) -> None:
    """Show no progress of a training that only ends."""
