"""The search of a spec: decisions of `tuner.search`, epochs made by workers, records and an Optuna study on disk.

budget --ask--> Advance --worker--> Record (paused, or over) --tell--> searcher and study

records.jsonl takes the trainings that are over; then the winner is trained again on fresh seeds, as ordinary trials.
With one job, one worker trains it all; with more, each has a thread and a worker of its own.
"""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from bench.design import Trial, make_trial
from bench.executors import Executor, run_all
from bench.record_keeper import RecordKeeper
from bench.records import Record
from bench.records import Status as RecordStatus
from bench.run_directory import RunDirectory
from bench.runner import Display, Kind, RunPlan, make_worker, rehearse
from bench.search.step import Advance
from bench.search.store import BUDGET_SPENT, SearchPlan, SearchStore, open_search, plan_of
from bench.spec import Spec
from bench.worker import OnProgress, Progress
from tuner import convergence
from tuner.convergence import Target, Training
from tuner.search import Searcher, SearchTrial

SEARCH = Kind("search", "bench.search.trial:run_step")

# What the entries of a curve alone say of a training.
_FROM_CURVE = (
    "epochs",
    "best_val_accuracy",
    "best_val_loss",
    "final_val_accuracy",
    "final_val_loss",
    "final_train_accuracy",
    "final_train_loss",
    "steps_to_target",
    "epochs_to_target",
    "samples_to_target",
    "time_to_target_s",
)
_GONE = "put together from the search's study, for the worker that trained it is gone"
# How often a worker that has nothing to do looks whether the others have left something.
_POLL_S = 0.2


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
    keeper = _Keeper(plan, directory, records, display)
    rehearse(plan, plan.trials, directory, display, remove=not records and not used)
    first = make_worker(plan, directory, 0)
    try:

        def worker(index: int) -> Executor:
            return _Lent(first) if plan.jobs == 1 else make_worker(plan, directory, index)

        if used < budget:
            shared = _Shared(state, plan.trials[0], budget - used)
            run_all(
                range(used, budget),
                lambda index: _SearchExecutor(shared, worker(index), index),
                _Listener(shared, keeper),
                jobs=plan.jobs,
            )
            shared.keep_what_is_over(keeper)
        _record_from_study(state, plan, keeper)
        _train_winner_again(state, plan, worker, keeper)
    finally:
        first.close()
    return keeper.records


@dataclass
class _Lent:
    """An executor that stays open for others."""

    worker: Executor

    @property
    def process_id(self) -> int | None:
        """The worker's process."""
        return cast("int | None", getattr(self.worker, "process_id", None))

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        return self.worker.run(trial, on_progress)

    def cancel(self) -> None:
        self.worker.cancel()

    def close(self) -> None:
        """Leave it open."""


class _Shared:
    """What all executors share, under one lock: the searcher, the study, and the records of trials that are over."""

    def __init__(self, state: SearchState, source: Trial, epochs: int) -> None:
        self.state = state
        self.changed = threading.Condition()
        self.over: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._source = source
        self._epochs_left = epochs
        # Which worker holds a waiting trial; trials of an earlier part of the run are with nobody.
        self._holder: dict[int, int] = {}
        self._in_flight: set[int] = set()

    def next_step(self, worker: int, is_cancelled: Callable[[], bool]) -> tuple[SearchTrial, Advance] | None:
        """Decide what a worker does next; None when nothing is left to train."""
        with self.changed:
            self._epochs_left -= 1
            known = len(self.state.searcher.trials)
            trial = self._ask(worker)
            while trial is None and self._in_flight and not is_cancelled():
                self.changed.wait(_POLL_S)
                trial = self._ask(worker)
            if trial is None:
                self._epochs_left = 0
                return None
            if trial.number >= known:
                self.state.store.begin(trial)
            self._holder[trial.number] = worker
            self._in_flight.add(trial.number)
            return trial, self._advance(trial, trial.epochs + 1)

    def to_end(self, worker: int, *, last: bool) -> list[Advance]:
        """Return the trials that were dropped and wait in a worker's memory, to be ended there.

        Args:
            worker: whose.
            last: this worker gets no more epochs: once all are given out, drop whatever waits in it.
        """
        with self.changed:
            searcher = self.state.searcher
            mine = [searcher.trials[number] for number, holder in self._holder.items() if holder == worker]
            if last and self._epochs_left <= 0:
                for trial in mine:
                    if trial.status == "paused":
                        searcher.drop(trial, BUDGET_SPENT)
            steps = []
            for trial in mine:
                if trial.status == "dropped":
                    del self._holder[trial.number]
                    self.state.store.close(trial)
                    steps.append(self._advance(trial, trial.epochs, stop=f"dropped: {trial.reason}"))
            self.changed.notify_all()
            return steps

    def take(self, trial: SearchTrial, record: Record) -> None:
        """Tell the searcher what an epoch came to."""
        with self.changed:
            searcher, store = self.state.searcher, self.state.store
            paused = bool(record.provenance.get("paused"))
            if record.status in ("out_of_memory", "failed"):
                searcher.fail(trial, record.reason, out_of_memory=record.status == "out_of_memory")
            elif len(record.curve) > trial.epochs:
                entry = record.curve[trial.epochs]
                diverged = record.status == "diverged" and len(record.curve) == trial.epochs + 1
                searcher.tell(trial, None if diverged else entry.get(self.state.plan.metric))
                if trial.status in ("paused", "finished"):
                    store.report(trial, entry)
            if not paused and trial.status == "paused":
                searcher.end(trial)
            self._in_flight.discard(trial.number)
            if trial.status != "paused":
                store.close(trial)
                del self._holder[trial.number]
                if not paused:
                    self.over.put(record)
            self.changed.notify_all()

    def lose(self, worker: int, but: SearchTrial) -> bool:
        """Note that a worker was replaced; return whether others than one trial waited in its memory."""
        with self.changed:
            lost = [number for number, holder in self._holder.items() if holder == worker]
            for number in lost:
                if number != but.number:
                    del self._holder[number]
            return len(lost) > 1

    def keep_what_is_over(self, keeper: _Keeper) -> None:
        """Append the records of trials that are over."""
        searcher = self.state.searcher
        while not self.over.empty():
            best = searcher.result().best
            best_text = f", best {best.value:.4g}" if best else ""
            note = f"[{searcher.epochs_used}/{self.state.plan.budget_epochs} epochs{best_text}] "
            keeper.keep(self.over.get(), note)

    def _ask(self, worker: int) -> SearchTrial | None:
        """Ask the searcher; what waits in another worker is trained again here only if there is nothing else."""
        elsewhere = [number for number, holder in self._holder.items() if holder != worker]
        trial = self.state.searcher.ask(elsewhere)
        if trial is None and elsewhere and not self._in_flight:
            trial = self.state.searcher.ask()
        return trial

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
    process: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, trial: int, on_progress: OnProgress) -> Record:
        """Make the next epoch; `trial` only counts the budget."""
        try:
            return self._run(trial, on_progress)
        except BaseException:
            self.ended.set()
            raise

    def cancel(self) -> None:
        self.ended.set()
        self.worker.cancel()

    def close(self) -> None:
        if not self.ended.is_set():
            self._end_dropped(_ignore, last=True)
        self.worker.close()

    def _run(self, trial: int, on_progress: OnProgress) -> Record:
        """Decide, train, tell."""
        self._end_dropped(on_progress, last=False)
        decided = self.shared.next_step(self.index, self.ended.is_set)
        if decided is None:
            return Record(f"epoch {trial}", {}, 0, "ok", reason="nothing is left to train")
        chosen, step = decided
        record = self.worker.run(step, on_progress)
        others_waited = self._worker_was_replaced() and self.shared.lose(self.index, but=chosen)
        if others_waited and record.status == "out_of_memory":
            # What waited there held memory too: only alone does a training show whether it fits.
            record = self.worker.run(step, on_progress)
            self._worker_was_replaced()
        if self.ended.is_set():
            return record  # cancelled: the worker was killed, and that says nothing of the training
        self.shared.take(chosen, record)
        return record

    def _worker_was_replaced(self) -> bool:
        """Whether the worker's process is another than before, and with it the trainings that waited there."""
        before, self.process = self.process, getattr(self.worker, "process_id", None)
        return before is not None and before != self.process

    def _end_dropped(self, on_progress: OnProgress, *, last: bool) -> None:
        """Let the worker end what was dropped and waits in its memory, and make the records."""
        for step in self.shared.to_end(self.index, last=last):
            record = self.worker.run(step, on_progress)
            # Where the worker died instead, the study still has the curve.
            if record.status not in ("failed", "out_of_memory"):
                self.shared.over.put(record)


def _ignore(progress: Progress) -> None:
    """What is ended tells nothing more."""


class _Keeper:
    """Keeps each record once and says so."""

    def __init__(
        self, plan: RunPlan, directory: RunDirectory, records: list[Record], display: Display
    ) -> None:
        self._keeper = RecordKeeper(plan.run, directory, records)
        self._source, self._display = plan.trials[0].source, display

    @property
    def records(self) -> list[Record]:
        """All records of the run so far."""
        return self._keeper.records

    def keep(self, record: Record, note: str) -> None:
        """Append a record; one that an earlier part of the run appended already stays the only one."""
        if any(record.trial == kept.trial for kept in self.records):
            return
        self._keeper.keep(record, self._source)
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
        self.shared.keep_what_is_over(self.keeper)


def _record_from_study(state: SearchState, plan: RunPlan, keeper: _Keeper) -> None:
    """Record what was trained in a worker that did not live to say so: the study has the curves."""
    have = {record.trial for record in keeper.records}
    for searched in state.searcher.trials:
        if searched.status == "paused":
            state.searcher.drop(searched, BUDGET_SPENT)
        if not state.store.is_closed(searched):
            state.store.close(searched)
        trial = state.trial(searched.config, state.plan.seed, plan.trials[0])
        if trial.id not in have:
            record = record_of_curve(trial, searched, state.store.curve(searched))
            keeper.keep(record, "[from the study] ")


def record_of_curve(trial: Trial, searched: SearchTrial, curve: list[dict[str, float | None]]) -> Record:
    """Return the record of a training of which the curve is left; what only its worker knew is absent."""
    status: str = searched.status
    reason, numbers = searched.reason, {}
    if status not in ("out_of_memory", "failed"):
        target = Target(**trial.spec.target.model_dump()) if trial.spec.target else None
        training = Training(
            curve,
            step_times_s=[],
            samples_per_step=0,
            planned_epochs=trial.spec.train.epochs,
            first_step_s=0.0,
            evaluation_s=0.0,
            peak_bytes=0,
            diverged=reason if status == "diverged" else None,
            stopped_early=f"dropped: {reason}" if status == "dropped" else None,
        )
        status, reason = convergence.outcome(training, target)
        known = convergence.values(training, target)
        numbers = {name: known[name] for name in _FROM_CURVE if name in known}
    return Record(
        trial.id,
        trial.factors,
        trial.seed,
        cast(RecordStatus, status),
        f"{reason}; {_GONE}" if reason else _GONE,
        numbers,
        curve=curve,
        provenance={"from_study": True},
    )


def _train_winner_again(
    state: SearchState, plan: RunPlan, worker: Callable[[int], Executor], keeper: _Keeper
) -> None:
    """Train the best configuration on fresh seeds, as ordinary trials."""
    best = state.searcher.result().best
    if best is None:
        return
    trials = [state.trial(best.config, seed, plan.trials[0]) for seed in state.plan.fresh_seeds]
    have = {record.trial for record in keeper.records}
    missing = [trial for trial in trials if trial.id not in have]
    if missing:
        run_all(missing, worker, _Confirmation(keeper), jobs=plan.jobs)


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
