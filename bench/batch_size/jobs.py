"""Measurements of throughput and gradient noise at each batch size, inside a worker."""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.bench.errors import InputError
from fusetune.bench.results import BatchSizeOptions, NormsAlongTraining, NormsAtEpoch, Record, StepTimes
from fusetune.bench.run import assemble, make_step, with_any_rate
from fusetune.bench.spec import AUTO, Trial
from fusetune.bench.workers import WorkerContext
from fusetune.errors import InvalidValueError
from fusetune.tuner.batch_size import measure_step_times, norms_along_training
from fusetune.tuner.measure import Stopwatch

# Largest big batch for the noise scale. Above it, more repeats reduce the variance more than more samples.
MOST_SAMPLES = 1024
MOST_SMALL = 32
# Least ratio of big to small batch. With a lower one, the two norms hardly differ.
LEAST_PARTS = 4


def time_steps(trial: Trial, context: WorkerContext) -> Record:
    """Time training steps at each of `trial.options["sizes"]`, in turn, with one model.

    Returns:
        A record with the outcome `StepTimes`.
    """
    make = make_step(assemble(trial, context))
    measured = measure_step_times(
        {size: make(size) for size in trial.options["sizes"]}, stopwatch=Stopwatch(context.device)
    )
    outcome = StepTimes(measured.seconds, measured.contention.missing)
    return Record(trial.id, trial.factors, trial.seed, "ok", outcome=outcome)


def measure_noise(trial: Trial, context: WorkerContext) -> Record:
    """Measure gradient norms before training and after each of `trial.options["noise_epochs"]`.

    `base_lr: auto` runs an LR range test first. If that finds no rate, the norms are measured before training only.

    Returns:
        A record with the outcome `NormsAlongTraining`.

    Raises:
        ValueError: too few samples to separate noise from gradient.
    """
    epochs: Sequence[int] = BatchSizeOptions.from_dict(trial.options).noise_epochs
    note = ""
    try:
        workload = assemble(trial, context)
    except InputError as error:
        if trial.spec.train.base_lr != AUTO:
            raise
        note = f"before training only: {error}"
    if note:
        workload, epochs = assemble(with_any_rate(trial), context), [0]
    elif workload.chosen_lr is not None:
        note = f"measured at base_lr {workload.spec.train.base_lr:.3g}, which auto found"
    batches = workload.data.training
    small, big = pair_sizes(workload.spec.train.batch_size, batches.samples)
    points = norms_along_training(
        workload.model,
        workload.make_optimizer,
        batches,
        plan=workload.plan,
        epochs=epochs,
        small=small,
        big=big,
    )
    outcome = NormsAlongTraining(
        tuple(
            NormsAtEpoch(
                point.epoch,
                point.steps,
                point.norms.small,
                point.norms.big,
                tuple(point.norms.small_squares),
                tuple(point.norms.big_squares),
            )
            for point in points
        ),
        batches.samples,
        note,
        workload.chosen_lr,
    )
    return Record(trial.id, trial.factors, trial.seed, "ok", outcome=outcome)


def pair_sizes(batch_size: int, samples: int) -> tuple[int, int]:
    """Return the small and the big batch of the noise scale.

    The big batch has at most 1024 samples and at most half of the training set.

    Raises:
        ValueError: fewer than 16 samples.

    Example:
        >>> pair_sizes(128, 1200), pair_sizes(8, 60_000), pair_sizes(64, 100)
        ((32, 512), (8, 1024), (12, 48))
    """
    most = min(MOST_SAMPLES, samples // 2)
    small = min(batch_size, MOST_SMALL, most // LEAST_PARTS)
    if small < 2 <= batch_size or small < 1:
        raise InvalidValueError("batch_size", f"the noise scale needs more than {samples} training samples")
    parts = LEAST_PARTS
    while 2 * parts * small <= most:
        parts *= 2
    return small, parts * small
