"""Records of trainings whose worker was lost, rebuilt from the curves in the search's log."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import cast

from fusetune.bench.results import Record, Status, TrainingOutcome
from fusetune.bench.search.event_log import Entry
from fusetune.bench.search.plan import BUDGET_SPENT, why_ended
from fusetune.bench.search.state import SearchState
from fusetune.bench.spec import Trial
from fusetune.tuner.search import SearchTrial
from fusetune.tuner.training import Target, Training, metrics_of, status_of

# The values that follow from a curve alone.
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
_GONE = "rebuilt from the search's log, because the worker that trained it is gone"


def records_of_lost(state: SearchState, source: Trial, have: Collection[str]) -> Iterator[Record]:
    """End every training of a search, and yield records for the trainings that lack one.

    Args:
        state: the search.
        source: any trial of the run, for its data source.
        have: ids of the trials that have a record.
    """
    for searched in state.searcher.trials:
        if searched.status == "paused":
            state.searcher.drop(searched, BUDGET_SPENT)
        if state.logged(searched).status == "paused":
            state.log.close(searched)
        trial = state.trial(searched.config, state.plan.seed, source)
        if trial.id not in have:
            yield state.with_repeats(searched, record_of_curve(trial, searched, state.curve(searched)))


def record_of_curve(trial: Trial, searched: SearchTrial, curve: list[Entry]) -> Record:
    """Return a training's record from its curve. Values that only its worker knew are absent."""
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
            stopped_early=why_ended(searched) if status == "dropped" else None,
        )
        status, reason = status_of(training, target)
        known = metrics_of(training, target)
        numbers = {name: known[name] for name in _FROM_CURVE if name in known}
    return Record(
        trial.id,
        trial.factors,
        trial.seed,
        cast(Status, status),
        f"{reason}; {_GONE}" if reason else _GONE,
        numbers,
        curve=curve,
        outcome=TrainingOutcome(from_log=True),
    )
