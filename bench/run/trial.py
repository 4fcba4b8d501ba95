"""One trial, inside a worker: workload -> training -> record."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from fusetune.bench.results import ContendedEpochs, Record, Sharing, Status, TrainingOutcome
from fusetune.bench.run.assembly import assemble
from fusetune.bench.run.plan import START_GRACE_S, hard_timeout
from fusetune.bench.run.ranks import TRAIN_ON_RANKS, run_on_ranks
from fusetune.bench.run.rehearsal import rehearse_trial
from fusetune.bench.run.workload import Workload
from fusetune.bench.spec import Trial
from fusetune.bench.workers import OnProgress, WorkerContext, settle_footprint
from fusetune.tuner.diagnosis import LayerStatistics, diagnose
from fusetune.tuner.measure import PeakMemory, resident_bytes, total
from fusetune.tuner.memory import peak_tensor_bytes
from fusetune.tuner.training import (
    ONE_RANK,
    Training,
    TrainingSetup,
    metrics_of,
    resolve_precision,
    status_of,
    train_epochs,
)

if TYPE_CHECKING:
    from fusetune.tuner.parallel import DataParallel

# The processes of a trial are asked where they are so long before the worker would be killed.
_BEFORE_WORKER_S = 10.0


def run_trial(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Train one configuration with one seed and return what happened.

    Args:
        trial: with its source filled in. A rehearsal builds the data, the model, the optimizer and the schedule, runs
            two samples through the model, and trains nothing.
        context: the worker's device and cache. Data that the next trials need again stay in the cache.
        on_progress: called with what the training reports, see `tuner.training.loop.train`.

    Returns:
        A record. A rehearsal of a spec that cannot be built is `failed`, with `bad_input` in its outcome.

    Raises:
        Any error of the trial's own code, out of memory included. The worker turns it into a record.
    """
    if trial.rehearsal:
        return rehearse_trial(trial, context)
    if trial.spec.train.devices > 1:
        return share_trial(trial, context, on_progress)
    return _record_of(trial_epochs(trial, context, on_progress, retime=True))


def share_trial(
    trial: Trial, context: WorkerContext, on_progress: OnProgress, *, run_rank: str = TRAIN_ON_RANKS
) -> Record:
    """Run one trial in `train.devices` processes, each on a device.

    Args:
        trial, context, on_progress: as for `run_trial`.
        run_rank: `package.module:function` that each process calls, as `train_on_ranks`.

    Returns:
        The record of the first process, or that of the process that ended the trial, with its rank in the reason.
    """
    return run_on_ranks(
        trial,
        context,
        on_progress,
        start_s=START_GRACE_S,
        give_up_s=_give_up_s(trial),
        run_rank_of=run_rank,
    )


def sharing_ranks(trial: Trial) -> DataParallel:
    """Return this process's part in a trial that several share. It has joined their group."""
    # torch.distributed takes a second, and most trials need none.
    from fusetune.tuner.parallel import DataParallel

    section = trial.spec.train
    parallel = cast("Literal['ddp', 'fsdp']", section.parallel)
    return DataParallel(parallel, sync_batchnorm=section.sync_batchnorm, seed=trial.seed)


def train_on_ranks(
    trial: Trial, context: WorkerContext, on_progress: OnProgress, *, started_s: float
) -> Record:
    """Train as `run_trial` does, as one of the processes that share the trial and have joined a group.

    Args:
        trial, context, on_progress: as for `run_trial`. The first process alone reports its progress.
        started_s: when the trial began, by `time.perf_counter`.

    Returns:
        A record. That of the first process speaks for all of them.
    """
    ranks = sharing_ranks(trial)
    report = on_progress if ranks.rank == 0 else _ignore
    return _record_of(trial_epochs(trial, context, report, ranks=ranks, started_s=started_s))


def _record_of(epochs: Generator[dict[str, float | None], str | None, Record]) -> Record:
    """Train to the end."""
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return cast(Record, end.value)


def _give_up_s(trial: Trial) -> float | None:
    """Return the seconds after which a trial's processes are given up once all have joined, before the worker is."""
    hard_s = hard_timeout([trial], trial.spec.limits.trial_time)
    return None if hard_s is None else hard_s - START_GRACE_S - _BEFORE_WORKER_S


def _ignore(progress: dict[str, Any]) -> None:
    """Drop the progress of a process but the first."""


def trial_epochs(
    trial: Trial,
    context: WorkerContext,
    on_progress: OnProgress,
    *,
    retime: bool = False,
    ranks: DataParallel | None = None,
    started_s: float | None = None,
) -> Generator[dict[str, float | None], str | None, Record]:
    """Train as `run_trial` does, pausing after each epoch. See `tuner.training.loop.train_epochs`. Returns the record.

    Args:
        trial, context, on_progress: as for `run_trial`.
        retime: time contended epochs again at the end, which holds up others that wait in this worker.
        ranks: the processes that share the trial. None: there is one.
        started_s: when the trial began, by `time.perf_counter`. None: now.
    """
    started_s = time.perf_counter() if started_s is None else started_s
    peak_memory = PeakMemory(context.device, footprint_bytes=_footprint_bytes(context))
    on_progress({"phase": "data"})
    workload = assemble(trial, context, ranks or ONE_RANK)
    setup_s = time.perf_counter() - started_s
    model, data, target = workload.model, workload.data, workload.target
    setup = TrainingSetup(
        model,
        workload.make_optimizer,
        data.training,
        workload.plan,
        data.validation,
        test=data.test,
        target=target,
        early_stop=workload.early_stop,
        time_limit_s=workload.spec.limits.trial_time,
        on_progress=on_progress,
        peak_memory=peak_memory,
        observer=LayerStatistics,
        retime=retime,
        ranks=ranks or ONE_RANK,
    )
    training = yield from train_epochs(setup)
    peak_bytes, peak_of = _peak_bytes(workload, training, ranks)
    status, reason = status_of(training, target)
    return Record(
        trial=trial.id,
        factors=trial.factors,
        seed=trial.seed,
        status=cast(Status, status),
        reason=reason,
        values={
            **metrics_of(training, target),
            "peak_bytes": peak_bytes,
            "setup_s": setup_s,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        samples=_samples(training),
        curve=training.curve,
        provenance={
            **_provenance(trial, context),
            **_kernel_paths(workload),
            "peak_bytes_of": peak_of,
        },
        findings=_findings(training, data.validation.samples),
        outcome=TrainingOutcome(
            workload.chosen_lr,
            _contention(training),
            sharing=_sharing(ranks, workload, training) if ranks else None,
        ),
    )


def _sharing(ranks: DataParallel, workload: Workload, training: Training) -> Sharing:
    """Say how the devices shared the training."""
    section = workload.spec.train
    found = ranks.communication(workload.model)
    step_s = training.training_s / training.steps if training.steps else 0.0
    return Sharing(
        devices=ranks.count,
        parallel=section.parallel,
        threads=torch.get_num_threads(),
        batch_norm=ranks.batch_norm,
        communication_s=found.seconds if found else None,
        communication_share=found.seconds / step_s if found and step_s else None,
        overlap=found.overlapped if found else None,
        bytes_per_step=found.bytes_per_step if found else None,
    )


def _peak_bytes(workload: Workload, training: Training, ranks: DataParallel | None) -> tuple[int, str]:
    """Return the most bytes that a training held, on the device that held most, and who says so."""
    data = workload.data
    if ranks is not None:
        says = "the allocator" if data.training.device.type == "cuda" else "the process"
        return ranks.most(training.peak_bytes), says
    if data.training.device.type == "cuda":
        return training.peak_bytes, "the allocator"
    # With no whole epoch there was no time for more steps.
    if training.curve:
        # A trial's resident set goes by what ran before it in this worker. A model that cannot be counted keeps it.
        with suppress(Exception):  # a person's model, which is copied and run again
            counted = peak_tensor_bytes(
                workload.model,
                workload.make_optimizer,
                data.training,
                plan=workload.plan,
                held_out=(data.validation, data.test),
            )
            return counted, "the tensors"
    return training.peak_bytes, "the process"


def _samples(training: Training) -> dict[str, list[float]]:
    """Return the raw timings: of every step, and of those that a second timing replaced."""
    samples = {"step_time_s": training.step_times_s}
    if training.replaced_step_times_s:
        replaced = training.replaced_step_times_s
        samples["replaced_step_time_s"] = [lap_s for epoch in sorted(replaced) for lap_s in replaced[epoch]]
    missing = [contention.missing for contention in training.contention]
    if missing and None not in missing:
        samples["processor_missing"] = cast("list[float]", missing)
    return {name: [round(value, 9) for value in values] for name, values in samples.items()}


def _contention(training: Training) -> ContendedEpochs | None:
    """Say which epochs were contended, and what shows it."""
    whole = total(training.contention)
    contended = [epoch for epoch, part in enumerate(training.contention, start=1) if part.contended]
    if not contended and not training.replaced_step_times_s:
        return None
    return ContendedEpochs(
        epochs=tuple(contended),
        timed_again=tuple(sorted(training.replaced_step_times_s)),
        involuntary_switches=whole.involuntary_switches,
        stolen=round(whole.stolen, 4),
        load=whole.load,
    )


def _kernel_paths(workload: Workload) -> dict[str, Any]:
    """Say which way fused kernels took, and why where they went by plain PyTorch."""
    found: dict[str, Any] = {"path": workload.make_optimizer.path(workload.activations_path)}
    if workload.spec.train.implementation != "fused":
        return found
    from fusetune.kernels import why_not_here

    why = why_not_here(workload.data.training.device) if "torch" in found["path"].values() else None
    tuned = tuned_configs()
    return {**found, **({"path_reason": why} if why else {}), **({"tuned_configs": tuned} if tuned else {})}


def tuned_configs() -> list[str]:
    """Say which launch configs that were tuned, not the defaults, launches of this process took."""
    from fusetune.kernels.autotune import used_configs

    return [
        f"{used.kernel}, {used.dtypes}, {used.size}: {' '.join(f'{k}={v}' for k, v in used.config.items())}"
        for used in used_configs()
        if used.origin in ("tuned", "shipped")
    ]


def _findings(training: Training, validation_samples: int) -> list[dict[str, Any]]:
    """Diagnose a training, for its record. A training without a whole epoch has nothing to read."""
    if not training.curve:
        return []
    findings = diagnose(
        training.curve,
        statistics=training.statistics,
        diverged=training.diverged,
        batch_size=training.samples_per_step,
        planned_epochs=training.planned_epochs,
        validation_samples=validation_samples,
    )
    return [finding.as_dict() for finding in findings]


def _footprint_bytes(context: WorkerContext) -> int:
    """Return what the worker held before its first trial, so that every trial's peak counts from the same level."""
    if "footprint_bytes" not in context.cache:
        if context.memory.limit_bytes is None:
            settle_footprint(context.device)  # with a limit, the worker has done it already
        context.cache["footprint_bytes"] = resident_bytes()
    return cast(int, context.cache["footprint_bytes"])


def _provenance(trial: Trial, context: WorkerContext) -> dict[str, Any]:
    """Say what this trial's numbers depend on and the run does not."""
    provenance: dict[str, Any] = {
        "precision": resolve_precision(trial.spec.train.precision, context.device),
        "threads": torch.get_num_threads(),
    }
    if context.memory.limit_bytes is not None:
        provenance["memory_limit_bytes"] = context.memory.limit_bytes
        provenance["memory_limit_source"] = context.memory.source
    if context.memory.note:
        provenance["memory_limit_note"] = context.memory.note
    return provenance
