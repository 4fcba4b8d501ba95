"""What a batch size does besides filling memory, inside a worker: samples a second, and the gradient's noise."""

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

# A big batch for the noise scale: beyond this more repeats tell more than more samples.
MOST_SAMPLES = 1024
MOST_SMALL = 32
# At least so many small batches make a big one; fewer see little of the noise.
LEAST_PARTS = 4


def time_steps(trial: Trial, context: WorkerContext) -> Record:
    """Time training steps at each of `trial.options["sizes"]`, in turn, with one model.

    Returns:
        a record whose outcome is `StepTimes`.
    """
    make = make_step(assemble(trial, context))
    measured = measure_step_times(
        {size: make(size) for size in trial.options["sizes"]}, stopwatch=Stopwatch(context.device)
    )
    outcome = StepTimes(measured.seconds, measured.contention.missing)
    return Record(trial.id, trial.factors, trial.seed, "ok", outcome=outcome)


def measure_noise(trial: Trial, context: WorkerContext) -> Record:
    """Measure gradient norms before training and after each of `trial.options["noise_epochs"]`.

    `base_lr: auto` is found by the LR range test that a training begins with. Where it finds none, the norms are
    measured before training only.

    Returns:
        a record whose outcome is `NormsAlongTraining`.

    Raises:
        ValueError: too few samples to tell noise from gradient.
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
    """Choose the small and the big batch of the noise scale: half of the samples or 1024 in the big one at most.

    Raises:
        ValueError: fewer than 16 samples.

    Example:
        >>> pair_sizes(128, 1200), pair_sizes(8, 60_000), pair_sizes(64, 100)
        ((32, 512), (8, 1024), (12, 48))
    """
    most = min(MOST_SAMPLES, samples // 2)
    small = min(batch_size, MOST_SMALL, most // LEAST_PARTS)
    if small < 2 <= batch_size or small < 1:
        raise InvalidValueError(
            "batch_size", f"the noise scale needs more than the {samples} training samples there are"
        )
    parts = LEAST_PARTS
    while 2 * parts * small <= most:
        parts *= 2
    return small, parts * small
