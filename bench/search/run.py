"""The run of a search: `tuner.search` decides, workers train epochs, records and the log go to disk.

budget --ask--> Advance --worker--> Record (paused, or over) --tell--> searcher and log

records.jsonl gets a record for each training that has ended. Then the winner is trained on fresh seeds, as ordinary
trials. Each job is a thread with its own worker. A single job uses one worker for everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fusetune.bench.results import Record, RecordKeeper, RunDirectory, ThreadsChoice, WrittenSpec
from fusetune.bench.run import LocalWorkers, RunPlan, Workers, rehearse
from fusetune.bench.search.lost_trainings import records_of_lost
from fusetune.bench.search.plan import BUDGET_SPENT, plan_of, prior_words
from fusetune.bench.search.state import SearchState, open_search
from fusetune.bench.search.workers import SearchExecutor, Shared
from fusetune.bench.spec import Spec, Trial
from fusetune.bench.stats import counted
from fusetune.bench.status import Display
from fusetune.bench.workers import ExecutorLostError, Progress


def run_search(
    spec: Spec, plan: RunPlan, directory: RunDirectory, display: Display, workers: Workers | None = None
) -> list[Record]:
    """Search, then train the winner on fresh seeds. Return all records.

    The search is concluded before the first re-run. A resumed run continues the re-runs of the same winner, even where
    the search ended with budget left.

    Raises:
        InputError: a factor's value cannot be built as the spec asks. A run without records is then removed.
    """
    records, _ = directory.records()
    searching = plan_of(WrittenSpec(spec.resolved()))
    searcher, log = open_search(searching, directory.path, records, go_on=directory.resume_command or "")
    if log.note:
        display.message(f"note: {log.note}")
    state = SearchState(spec, searching, searcher, log)
    used = searcher.epochs_used
    before = f", {used} of them trained before" if used else ""
    display.message(f"search: {searching.budget_epochs} epochs{before}; {_described(state)}")
    keeper = _Keeper(plan, directory, records, display)
    workers = workers or LocalWorkers(plan, directory.path)
    try:
        plan = rehearse(plan, plan.trials, directory, display, workers, remove=not records and not used)
        workers.settle(plan)
        keeper.add(plan.threads)
        if not log.is_over:
            _search(state, plan, workers, keeper)
        _train_winner_again(state, plan, workers, keeper)
    finally:
        workers.close()
    return keeper.records


def _search(state: SearchState, plan: RunPlan, workers: Workers, keeper: _Keeper) -> None:
    """Spend the remaining budget, record every training, and conclude the search."""
    budget, used = state.plan.budget_epochs, state.searcher.epochs_used
    if used < budget:
        shared = Shared(state, plan.trials[0], budget - used)
        listener = _Listener(keeper, shared)
        workers.run(
            _epochs(used, budget, shared),
            listener,
            wrap=lambda executor, index: SearchExecutor(shared, executor, index),
        )
        listener.catch_up()
        if state.searcher.epochs_used < budget:
            keeper.say(
                f"the search ended after {state.searcher.epochs_used} epochs: nothing was left to train"
            )
    have = {record.trial for record in keeper.records}
    left = list(records_of_lost(state, plan.trials[0], have))
    for record in left:
        keeper.keep(record, "[from the log] ")
    if left:
        keeper.say(
            f"{counted(len(left), 'training')} recorded from the search's log: the worker that held them is gone"
        )
    repeats = sum(training.made_again for training in state.log.trainings)
    if repeats:
        keeper.say(
            f"{counted(repeats, 'epoch')} repeated, because the worker that had trained them was gone; "
            "they are not counted in the budget"
        )
    state.log.conclude()


def _epochs(used: int, budget: int, shared: Shared) -> Iterator[int]:
    """Yield one number per remaining epoch of the budget, while there is something to train."""
    while used < budget and not shared.nothing_left:
        yield used
        used += 1


class _Keeper:
    """Appends each record once and prints a line."""

    def __init__(
        self, plan: RunPlan, directory: RunDirectory, records: list[Record], display: Display
    ) -> None:
        self._keeper = RecordKeeper(plan.run, directory, records)
        self._source, self.say = plan.trials[0].source, display.message

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
    """Says which devices of a cluster come and go."""

    keeper: _Keeper

    def joined(self, node: str, device: str, kind: str) -> None:
        """Say that a device takes trainings."""
        self.keeper.say(f"{node}: device {device} joins ({kind})")

    def left(self, node: str, device: str, reason: str) -> None:
        """Say that a device is gone."""
        self.keeper.say(f"{node}: device {device} left: {reason}")

    def lost(self, trial: Any, loss: ExecutorLostError, attempt: int, again: bool) -> None:
        """Say nothing more: the trainings that the device held are told by themselves."""


@dataclass
class _Listener(_Devices):
    """Gets every epoch, and keeps the records of trials that have ended."""

    shared: Shared

    def started(self, trial: int) -> None:
        """An epoch begins."""

    def progressed(self, trial: int, progress: Progress) -> None:
        """Show nothing, because the epochs of a search are short."""

    def finished(self, trial: int, record: Record) -> None:
        self.catch_up()

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


def _train_winner_again(state: SearchState, plan: RunPlan, workers: Workers, keeper: _Keeper) -> None:
    """Train the best configuration on fresh seeds, as ordinary trials."""
    result = state.searcher.result()
    best = result.best
    if best is None:
        keeper.say(f"NOTHING FOUND: {result.failure}")
        return
    trials = [state.trial(best.config, seed, plan.trials[0]) for seed in state.plan.fresh_seeds]
    have = {record.trial for record in keeper.records}
    missing = [trial for trial in trials if trial.id not in have]
    if missing:
        workers.run(missing, _Confirmation(keeper))


class _Confirmation(_Devices):
    """Gets the winner's re-runs."""

    def started(self, trial: Trial) -> None:
        """A re-run begins."""

    def progressed(self, trial: Trial, progress: Progress) -> None:
        """Show nothing: a re-run is as short as any training of the search."""

    def finished(self, trial: Trial, record: Record) -> None:
        self.keeper.keep(record, "[fresh seed] ")


def _described(state: SearchState) -> str:
    size = state.searcher.space.size
    count = "a range of configurations" if math.isinf(size) else f"{size:.0f} configurations"
    return f"{count} of {', '.join(state.plan.space)}; {prior_words(state.plan)}"
