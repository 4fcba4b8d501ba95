"""One trial, inside a worker: workload -> training -> record."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, cast

import torch

from bench.assembly import (
    OptimizerMaker,
    fuse_activations,
    make_batches,
    make_model,
    make_plan,
    make_target,
    prepare_data,
    rehearse,
)
from bench.design import Trial
from bench.lr_range import resolve_auto
from bench.memory_limit import settle_footprint
from bench.records import Record, Status
from bench.spec import Spec
from bench.worker import OnProgress, WorkerContext
from tuner import convergence
from tuner.convergence import EarlyStop, Training
from tuner.diagnosis import diagnose
from tuner.measure import PeakMemory, resident_bytes
from tuner.precision import resolve_precision
from tuner.training import train_epochs


def run_trial(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Train one configuration with one seed and return what happened.

    Args:
        trial: with its source filled in. A rehearsal builds the data, the model, the optimizer and the schedule, runs
            two samples through the model, and trains nothing.
        context: the worker's device and cache; data that the next trials need again stay in the cache.
        on_progress: called with what the training reports, see `tuner.training.train`.

    Returns:
        A record. A rehearsal's is `failed`, with `bad_input` in its provenance, when the spec asks for what can't be.

    Raises:
        Whatever the trial's own code raises, out of memory included: the worker turns it into a record.
    """
    if trial.rehearsal:
        return rehearse(trial, context)
    epochs = trial_epochs(trial, context, on_progress)
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return cast(Record, end.value)


def trial_epochs(
    trial: Trial, context: WorkerContext, on_progress: OnProgress
) -> Generator[dict[str, float | None], str | None, Record]:
    """Train as `run_trial` does, pausing after each epoch; see `tuner.training.train_epochs`. Returns the record."""
    started_s = time.perf_counter()
    spec = trial.spec
    peak_memory = PeakMemory(context.device, footprint_bytes=_footprint_bytes(context))
    on_progress({"phase": "data"})
    data = prepare_data(trial, context)
    torch.manual_seed(trial.seed)
    model = make_model(spec, data.splits)
    batches, validation, test = make_batches(trial, data, context.device)
    spec, chosen_lr = resolve_auto(spec, model, batches, trial.seed)
    target = make_target(spec)
    make_optimizer = OptimizerMaker(spec)
    activations_path = (
        fuse_activations(spec, model, context) if spec.train.implementation == "fused" else "torch"
    )
    setup_s = time.perf_counter() - started_s
    training = yield from train_epochs(
        model,
        make_optimizer,
        batches,
        plan=make_plan(spec, len(batches)),
        validation=validation,
        test=test,
        target=target,
        early_stop=EarlyStop(**spec.early_stop.model_dump()) if spec.early_stop else None,
        time_limit_s=spec.limits.trial_time,
        on_progress=on_progress,
        peak_memory=peak_memory,
        layer_statistics=True,
    )
    status, reason = convergence.outcome(training, target)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Record(
        trial=trial.id,
        factors=trial.factors,
        seed=trial.seed,
        status=cast(Status, status),
        reason=reason,
        values={**convergence.values(training, target), "setup_s": setup_s, "parameters": parameters},
        samples={"step_time_s": [round(lap_s, 9) for lap_s in training.step_times_s]},
        curve=training.curve,
        provenance={
            **_provenance(trial, context),
            **chosen_lr,
            **_kernel_paths(spec, make_optimizer.path(activations_path), torch.device(context.device)),
        },
        findings=_findings(training),
    )


def _kernel_paths(spec: Spec, paths: dict[str, str], device: torch.device) -> dict[str, Any]:
    """Say which way fused kernels took, and why where they went by plain PyTorch."""
    if spec.train.implementation != "fused" or "torch" not in paths.values():
        return {"path": paths}
    from kernels.launch import why_not_here

    why = why_not_here(device)
    return {"path": paths, "path_reason": why} if why else {"path": paths}


def _findings(training: Training) -> list[dict[str, Any]]:
    """Diagnose a training, for its record."""
    findings = diagnose(
        training.curve,
        statistics=training.statistics,
        diverged=training.diverged,
        batch_size=training.samples_per_step,
        planned_epochs=training.planned_epochs,
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
