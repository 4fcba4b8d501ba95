"""One step of a search inside a worker, which continues the trainings that are paused in its memory.

A paused training keeps its model, optimizer state and data on the worker's device. A replaced worker, or a resumed run,
no longer has it. The worker then trains it again from its first epoch. The values are the same, because the trial has
its own seed. The step's record counts the repeated epochs. A training is not repeated only to be ended. The record of a
training that shared the worker with others has no peak memory.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

from fusetune.bench.results import PausedTraining, Record
from fusetune.bench.run import run_trial, trial_epochs
from fusetune.bench.search.step import Advance, with_epochs_made_again
from fusetune.bench.spec import Trial
from fusetune.bench.workers import OnProgress, WorkerContext, record_without_result


@dataclass
class _Training:
    """A training that can pause between two epochs."""

    epochs: Generator[dict[str, float | None], str | None, Record]
    alone: bool = True
    curve: list[dict[str, float | None]] = field(default_factory=list)


def run_step(step: Trial | Advance, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Run a whole trial, or one step of a search.

    Returns:
        The record of a training that has ended. A paused one has the outcome `PausedTraining` and the curve so far. A
        request to end a training that is not in this worker's memory gives a failed record.

    Raises:
        Any exception of the trial's own code. The worker turns it into a record.
    """
    if isinstance(step, Trial):
        return run_trial(step, context, on_progress)
    waiting: dict[str, _Training] = context.cache.setdefault("waiting", {})
    training = waiting.pop(step.id, None)
    behind = step.made - (len(training.curve) if training else 0)
    if behind and step.stop:
        return record_without_result(step, "failed", "it does not wait in this worker")
    if training is None:
        training = _Training(trial_epochs(step.trial, context, on_progress))
    training.alone &= not waiting
    record = _advance(training, step)
    if record is not None:
        values = {k: v for k, v in record.values.items() if training.alone or k != "peak_bytes"}
        return with_epochs_made_again(replace(record, values=values), behind)
    waiting[step.id] = training
    outcome = PausedTraining(behind)
    return Record(step.id, dict(step.factors), step.seed, "ok", curve=training.curve, outcome=outcome)


def _advance(training: _Training, step: Advance) -> Record | None:
    """Train through the step's epoch. Return the record if the training has ended."""
    try:
        while len(training.curve) < step.epochs:
            training.curve.append(next(training.epochs))
        if step.stop:
            training.epochs.send(step.stop)
        if len(training.curve) == step.trial.spec.train.epochs:
            next(training.epochs)
    except StopIteration as end:
        record: Record = end.value
        return record
    return None
