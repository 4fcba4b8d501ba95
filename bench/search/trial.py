"""One epoch of a search, inside a worker: trainings that wait in its memory go on where they stopped.

A waiting training keeps its model, its optimizer's state and its data in the worker, on the device. One that this
worker does not have (it was replaced, or the run was resumed) is trained again from the beginning, to the same numbers,
for the seed is the trial's own; that step's record says how many epochs were made again. It is not trained again
only to be ended. Peak memory is left out of the record of a training that shared the worker with others.
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
    """A training that waits between two epochs."""

    epochs: Generator[dict[str, float | None], str | None, Record]
    alone: bool = True
    curve: list[dict[str, float | None]] = field(default_factory=list)


def run_step(step: Trial | Advance, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Run a whole trial, or advance one of a search.

    Returns:
        The trial's record; while it waits for more, a `PausedTraining` with the curve so far; a
        failed one where a training is to be ended that does not wait here.

    Raises:
        Whatever the trial's own code raises: the worker turns it into a record.
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
    """Train to the step's epoch; return the record where the training is over."""
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
