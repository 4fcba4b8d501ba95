"""The state of a search that its parts share, new or restored from the event log (no torch)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusetune.bench.results import Record, RunInfo
from fusetune.bench.search.event_log import Entry, EventLog, Training
from fusetune.bench.search.plan import MOST_WAITING, SearchPlan, fresh_records, plan_of
from fusetune.bench.search.step import with_epochs_made_again
from fusetune.bench.spec import Spec, Trial, make_trial
from fusetune.bench.stats import counted
from fusetune.tuner.search import Searcher, SearchTrial, shipped_prior


def open_search(
    plan: SearchPlan, directory: Path, records: Sequence[Record] = (), *, go_on: str = ""
) -> tuple[Searcher, EventLog]:
    """Begin a search in a run's directory, or continue from the log of an earlier part of the run.

    Args:
        plan: the search's settings.
        directory: the run's directory, whose lock the caller holds.
        records: the run's records.
        go_on: the command that continues the run, for the error message of a full disk.

    Raises:
        RunDirectoryError: the log cannot be read or written, or belongs to another search.
    """
    return _search_of(plan, EventLog(directory, plan, records, go_on=go_on))


def read_search(
    plan: SearchPlan, directory: Path, records: Sequence[Record] = ()
) -> tuple[Searcher, EventLog]:
    """Return the search of a run's directory. Nothing is written there.

    Raises:
        RunDirectoryError: the log cannot be read, or belongs to another search.
    """
    return _search_of(plan, EventLog(directory, plan, records, writing=False))


def kept_words(run: RunInfo, records: Sequence[Record], directory: str) -> str:
    """Return what is kept of a search that was interrupted: epochs of its budget, trainings, and re-runs of its winner.

    Args:
        run: of run.json.
        records: its records.
        directory: the run's directory. Nothing is written there.

    Raises:
        RunDirectoryError: the log cannot be read, or belongs to another search.
    """
    plan = plan_of(run.spec)
    searcher, log = read_search(plan, Path(directory), records)
    trained = sum(bool(trial.values) or trial.status != "paused" for trial in searcher.trials)
    epochs = f"{searcher.epochs_used} of {plan.budget_epochs} epochs, of {counted(trained, 'training')},"
    if not log.is_over:
        return f"{epochs} are kept"
    again = (
        f"{len(fresh_records(run, records))} of {counted(len(plan.fresh_seeds), 'fresh seed')} of the winner"
    )
    return f"{epochs} and {again} are kept"


def _search_of(plan: SearchPlan, log: EventLog) -> tuple[Searcher, EventLog]:
    """Return a searcher with a log's trainings restored."""
    searcher = Searcher(
        plan.space,
        max_epochs=plan.max_epochs,
        seed=plan.seed,
        maximize=plan.maximize,
        prior=shipped_prior() if plan.prior else None,
        max_paused=MOST_WAITING,
    )
    for training in log.trainings:
        values, status, reason = log.values(training), training.status, training.reason
        if status == "paused" and len(values) >= plan.max_epochs:
            # The process died after the last epoch, before it logged the end.
            status, reason = "finished", f"all {plan.max_epochs} epochs, the last at {values[-1]:.6g}"
        searcher.restore(training.config, values, status, reason)
    return searcher, log


@dataclass
class SearchState:
    """A search in progress: its searcher, its log, and its configurations as trials of the spec."""

    spec: Spec
    plan: SearchPlan
    searcher: Searcher
    log: EventLog

    def trial(self, config: Mapping[str, Any], seed: int, source: Trial) -> Trial:
        """Return a configuration as a trial of the spec, with the data source of another trial."""
        made = make_trial(self.spec, dict(config), seed)
        return dataclasses.replace(made, source=source.source, options=source.options)

    def logged(self, trial: SearchTrial) -> Training:
        """Return the log's state of a training."""
        return self.log.trainings[trial.number]

    def curve(self, trial: SearchTrial) -> list[Entry]:
        """Return a training's learning curve so far."""
        return self.logged(trial).entries

    def with_repeats(self, trial: SearchTrial, record: Record) -> Record:
        """Return a record with the number of the trial's repeated epochs, summed over all workers."""
        return with_epochs_made_again(record, self.logged(trial).made_again)
