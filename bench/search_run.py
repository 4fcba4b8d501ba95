"""The search of a spec: decisions of `tuner.search`, epochs made by workers, records and an Optuna study on disk.

budget --ask--> Advance --worker--> Record (paused, or over) --tell--> searcher and study

records.jsonl takes the trainings that are over; then the winner is trained again on fresh seeds, as ordinary trials.
"""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.design import Trial, make_trial
from bench.executors import Executor, run_all
from bench.interrupts import interrupts_deferred
from bench.records import Record
from bench.run_directory import RunDirectory
from bench.runner import Display, Kind, RunPlan, make_worker, rehearse
from bench.search_step import Advance
from bench.search_store import BUDGET_SPENT, SearchPlan, SearchStore, open_search, plan_of
from bench.spec import Spec
from bench.worker import OnProgress, Progress
from tuner.search import Searcher, SearchTrial

SEARCH = Kind("search", "bench.search_trial:run_step")
METRIC = "val_accuracy"


@dataclass
class SearchState:
    """A search in progress: its decisions, its study, and the configurations as trials of the spec."""

    spec: Spec
    plan: SearchPlan
    searcher: Searcher
    store: SearchStore

    def trial(self, config: Mapping[str, Any], seed: int, source: Trial) -> Trial:
        """Return a configuration as a trial of the spec, with the data of another."""
        made = make_trial(self.spec, dict(config), seed)
        return dataclasses.replace(made, source=source.source, options=source.options)


def run_search(spec: Spec, plan: RunPlan, directory: RunDirectory, display: Display) -> list[Record]:
    """Search, then train the winner again on fresh seeds. Returns all records.

    Raises:
        InputError: a value of a factor cannot be built as the spec asks. A run without records is then removed.
    """
    records, _ = directory.records()
    searching = plan_of(spec.resolved())
    searcher, store = open_search(searching, directory.path)
    state = SearchState(spec, searching, searcher, store)
    budget, used = searching.budget_epochs, searcher.epochs_used
    before = f", {used} of them made before" if used else ""
    for line in plan.banner:
        display.message(line)
    display.message(f"search: {budget} epochs{before}; {_described(state)}")
    rehearse(plan, plan.trials, directory, display, remove=not records and not used)
    keeper = _Keeper(plan, directory, records, display)
    shared = _Shared(state, plan.trials[0], budget - used)
    if used < budget:
        make_executor = _make_executors(shared, plan, directory)
        listener = _Listener(shared, keeper)
        run_all(range(used, budget), make_executor, listener, jobs=plan.jobs)
        shared.end_waiting()
        listener.keep_what_is_over()
    _train_winner_again(state, plan, directory, keeper)
    return keeper.records


class _Shared:
    """What all executors share, under one lock: the searcher, the study, and the records of trials that are over."""

    def __init__(self, state: SearchState, source: Trial, epochs: int) -> None:
        self.state = state
        self.epochs_left = epochs
        self.lock = threading.Lock()
        self.over: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._source = source
        self._last: dict[int, Record] = {}
        # Which worker holds a waiting trial; trials of an earlier part of the run are with nobody.
        self._holder: dict[int, int] = {}

    def next_step(self, worker: int) -> tuple[SearchTrial, Advance] | None:
        """Decide what a worker does next; None when nothing is left to train."""
        with self.lock:
            self.epochs_left -= 1
            elsewhere = [number for number, holder in self._holder.items() if holder != worker]
            known = len(self.state.searcher.trials)
            trial = self.state.searcher.ask(elsewhere)
            if trial is None:
                self.epochs_left = 0
                return None
            if trial.number == known:
                self.state.store.begin(trial)
            self._holder[trial.number] = worker
            return trial, self._advance(trial, trial.epochs + 1)

    def to_end(self, worker: int) -> list[Advance]:
        """Return the trials that were dropped and wait in a worker's memory, to be ended there; at the end, all."""
        with self.lock:
            searcher = self.state.searcher
            if self.epochs_left <= 0:
                for number, holder in self._holder.items():
                    if holder == worker and searcher.trials[number].status == "paused":
                        searcher.drop(searcher.trials[number], BUDGET_SPENT)
            ended = [n for n, w in self._holder.items() if w == worker and self._is_over(n)]
            steps = []
            for number in ended:
                del self._holder[number]
                trial = searcher.trials[number]
                self.state.store.close(trial)
                self._last.pop(number, None)
                steps.append(self._advance(trial, trial.epochs, stop=f"dropped: {trial.reason}"))
            return steps

    def take(self, trial: SearchTrial, record: Record) -> None:
        """Tell the searcher what an epoch came to."""
        with self.lock:
            searcher, store = self.state.searcher, self.state.store
            paused = bool(record.provenance.get("paused"))
            if record.status in ("out_of_memory", "failed"):
                searcher.fail(trial, record.reason, out_of_memory=record.status == "out_of_memory")
            elif len(record.curve) > trial.epochs:
                value = record.curve[trial.epochs].get(self.state.plan.metric)
                diverged = record.status == "diverged" and len(record.curve) == trial.epochs + 1
                searcher.tell(trial, None if diverged else value)
                if trial.values and trial.status in ("paused", "finished"):
                    store.report(trial)
            if not paused and trial.status == "paused":
                searcher.end(trial)
            if trial.status != "paused":
                store.close(trial)
                self._holder.pop(trial.number, None)
            if paused and trial.status == "paused":
                self._last[trial.number] = record
            else:
                self._last.pop(trial.number, None)
                self.over.put(record)

    def lose(self, worker: int) -> None:
        """Note that a worker was replaced, and what waited in its memory is gone."""
        with self.lock:
            self._holder = {number: holder for number, holder in self._holder.items() if holder != worker}

    def end_waiting(self) -> None:
        """Record the trials whose worker has gone, from their last epoch."""
        with self.lock:
            for trial in self.state.searcher.trials:
                if trial.status == "paused":
                    self.state.searcher.drop(trial, BUDGET_SPENT)
                if trial.status == "dropped" and (record := self._last.pop(trial.number, None)) is not None:
                    self.state.store.close(trial)
                    self.over.put(self._ended(trial, record))

    def _ended(self, trial: SearchTrial, record: Record) -> Record:
        """Make the record of a training that waited to the end."""
        values = [value for entry in record.curve if (value := entry.get(METRIC)) is not None]
        numbers = {"epochs": float(len(record.curve))}
        if values:
            numbers |= {"best_val_accuracy": max(values), "final_val_accuracy": values[-1]}
        provenance = {key: value for key, value in record.provenance.items() if key != "paused"}
        return dataclasses.replace(
            record,
            status="stopped_early",
            reason=f"dropped: {trial.reason}",
            values=numbers,
            provenance=provenance,
        )

    def _is_over(self, number: int) -> bool:
        return self.state.searcher.trials[number].status == "dropped"

    def _advance(self, trial: SearchTrial, epochs: int, stop: str = "") -> Advance:
        """Make the job for a worker."""
        made = self.state.trial(trial.config, self.state.plan.seed, self._source)
        return Advance(made, epochs, stop, made=trial.epochs)


@dataclass
class _SearchExecutor:
    """Makes one epoch of the search for each call of `run`, in a worker of its own."""

    shared: _Shared
    worker: Executor
    index: int
    process: int | None = field(default=None)

    def run(self, trial: int, on_progress: OnProgress) -> Record:
        """Make the next epoch; `trial` only counts the budget."""
        self._end_dropped(on_progress)
        decided = self.shared.next_step(self.index)
        if decided is None:
            return Record(f"epoch {trial}", {}, 0, "ok", reason="nothing is left to train")
        chosen, step = decided
        record = self.worker.run(step, on_progress)
        if record.status == "out_of_memory" or self.worker_was_replaced():
            self.shared.lose(self.index)
        self.shared.take(chosen, record)
        return record

    def worker_was_replaced(self) -> bool:
        """Whether the worker's process is another than before, and with it the trainings that waited there."""
        before, self.process = self.process, getattr(self.worker, "process_id", None)
        return before is not None and before != self.process

    def cancel(self) -> None:
        self.worker.cancel()

    def close(self) -> None:
        if self.shared.epochs_left <= 0:
            self._end_dropped(_ignore)
        self.worker.close()

    def _end_dropped(self, on_progress: OnProgress) -> None:
        """Let the worker end what was dropped and waits in its memory, and make the records."""
        for step in self.shared.to_end(self.index):
            self.shared.over.put(self.worker.run(step, on_progress))


def _ignore(progress: Progress) -> None:
    """What is ended tells nothing more."""


def _make_executors(shared: _Shared, plan: RunPlan, directory: RunDirectory) -> Callable[[int], Executor]:
    """Return what makes the executor of an index."""

    def make(index: int) -> _SearchExecutor:
        return _SearchExecutor(shared, make_worker(plan, directory, index), index)

    return make


class _Keeper:
    """Completes records, appends them and says so."""

    def __init__(
        self, plan: RunPlan, directory: RunDirectory, records: list[Record], display: Display
    ) -> None:
        self.records = records
        self._directory, self._display = directory, display
        run, source = plan.run, plan.trials[0].source
        self._provenance = {
            "device": run["device"],
            "device_name": run["machine"].get("device_name"),
            "torch": run["versions"].get("torch"),
            "commit": run.get("commit"),
            "dirty": run.get("dirty"),
            "jobs": run["jobs"],
            "timings_shared": run["jobs"] > 1,
            **({"data": source.name, "stand_in": source.stand_in} if source else {}),
        }

    def keep(self, record: Record, note: str) -> None:
        """Append a record; one that an earlier part of the run appended already stays the only one."""
        if any(record.trial == kept.trial for kept in self.records):
            return
        complete = dataclasses.replace(record, provenance={**self._provenance, **record.provenance})
        with interrupts_deferred():
            self._directory.append(complete)
            self.records.append(complete)
        if BUDGET_SPENT not in record.reason:
            reason = f": {record.reason}" if record.reason else ""
            self._display.message(f"{note}{record.trial}  {record.status}{reason}")


@dataclass
class _Listener:
    """Hears of every epoch; keeps the records of trials that are over."""

    shared: _Shared
    keeper: _Keeper

    def started(self, trial: int) -> None:
        """An epoch begins."""

    def progressed(self, trial: int, progress: Progress) -> None:
        """Epochs of a search are short; what is shown is what is over."""

    def finished(self, trial: int, record: Record) -> None:
        self.keep_what_is_over()

    def keep_what_is_over(self) -> None:
        """Append the records of trials that are over."""
        searcher = self.shared.state.searcher
        while not self.shared.over.empty():
            best = searcher.result().best
            best_text = f", best {best.value:.4g}" if best else ""
            note = f"[{searcher.epochs_used}/{self.shared.state.plan.budget_epochs} epochs{best_text}] "
            self.keeper.keep(self.shared.over.get(), note)


def _train_winner_again(state: SearchState, plan: RunPlan, directory: RunDirectory, keeper: _Keeper) -> None:
    """Train the best configuration on fresh seeds, as ordinary trials."""
    best = state.searcher.result().best
    if best is None:
        return
    trials = [state.trial(best.config, seed, plan.trials[0]) for seed in state.plan.fresh_seeds]
    have = {record.trial for record in keeper.records}
    missing = [trial for trial in trials if trial.id not in have]
    if missing:
        run_all(
            missing,
            lambda index: make_worker(plan, directory, index),
            _Confirmation(keeper),
            jobs=plan.jobs,
        )


@dataclass
class _Confirmation:
    """Hears of the winner's re-runs."""

    keeper: _Keeper

    def started(self, trial: Trial) -> None:
        """A re-run begins."""

    def progressed(self, trial: Trial, progress: Progress) -> None:
        """It is as long as any training of the search."""

    def finished(self, trial: Trial, record: Record) -> None:
        self.keeper.keep(record, "[fresh seed] ")


def _described(state: SearchState) -> str:
    """Say what is searched."""
    size = state.searcher.space.size
    count = "a range of configurations" if math.isinf(size) else f"{size:.0f} configurations"
    prior = "with a prior from earlier runs" if state.plan.prior else "without a prior"
    return f"{count} of {', '.join(state.plan.space)}; {prior}"
