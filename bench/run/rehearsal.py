"""A rehearsal: build what a trial will build, so that a wrong spec is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fusetune.bench.errors import InputError
from fusetune.bench.results import Record, RehearsalOutcome
from fusetune.bench.run.assembly import assemble, make_step
from fusetune.bench.run.auto_lr import with_any_rate
from fusetune.bench.run.threads import samples_of
from fusetune.bench.run.workload import Workload, build_workload
from fusetune.bench.spec import OptimizerFactory, Spec, Trial
from fusetune.bench.workers import WorkerContext
from fusetune.bench.workloads import Splits, full_arguments, load_factory
from fusetune.tuner.measure import Stopwatch, time_thread_counts
from fusetune.tuner.training import Batches, resolve_precision


def rehearse_trial(trial: Trial, context: WorkerContext) -> Record:
    """Build what the trial will build, and time its steps with each of `trial.thread_counts`.

    Returns:
        A record. It is `failed`, with `bad_input` in its outcome, where the spec asks for what cannot be built.
    """
    # No rate decides whether something can be built.
    trial = with_any_rate(trial)
    try:
        workload = build_workload(trial, context)
        _check(workload, context)
    except (InputError, ValueError) as error:
        reason = " ".join(str(error).split())
        outcome = RehearsalOutcome(bad_input=True)
        return Record(trial.id, trial.factors, trial.seed, "failed", reason, outcome=outcome)
    times = _time_threads(trial, context) if trial.thread_counts else {}
    outcome = RehearsalOutcome(built=_built(trial.spec, workload.data.splits))
    return Record(trial.id, trial.factors, trial.seed, "ok", samples=samples_of(times), outcome=outcome)


def _check(workload: Workload, context: WorkerContext) -> None:
    """Refuse parts that do not go together."""
    section, model, data = workload.spec.train, workload.model, workload.data
    if section.batch_size * section.accumulation_steps > data.training.samples:
        raise InputError(
            "train.batch_size",
            f"{section.batch_size} x {section.accumulation_steps} accumulation steps are "
            f"more than the {data.training.samples} training samples",
            to_do="Use a smaller batch or more data",
        )
    check_output(model, data.validation, data.splits.num_classes)
    _ = workload.plan
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("model", "the model has no parameters to train", to_do="Use one that has")
    workload.make_optimizer(model.parameters())
    resolve_precision(section.precision, context.device)


def _time_threads(trial: Trial, context: WorkerContext) -> dict[int, list[float]]:
    """Time whole training steps with each number of threads."""
    workload = assemble(trial, context)
    one = make_step(workload)(workload.data.training.batch_size)
    return time_thread_counts(one, trial.thread_counts, stopwatch=Stopwatch(context.device))


def check_output(model: nn.Module, batches: Batches, classes: int) -> None:
    """Run two samples through the model: it must give one logit for each class."""
    x, _ = next(iter(batches.in_order()))
    model.to(batches.device).eval()
    with torch.no_grad():
        logits = model(x[:2])
    expected = (len(x[:2]), classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            "model", f"gives {got} for two samples, not {expected}", to_do="Return one logit for each class"
        )


def _built(spec: Spec, splits: Splits) -> dict[str, Any]:
    """Return what only building shows: samples of each part, and the arguments of factories with their defaults."""
    found: dict[str, Any] = {"samples": [len(part) for part in (splits.y_train, splits.y_val, splits.y_test)]}
    optimizer = spec.train.optimizer
    own = optimizer if isinstance(optimizer, OptimizerFactory) else None
    for name, factory, arguments in (
        ("model", spec.model.factory, spec.model.arguments),
        ("data", spec.data.factory, spec.data.factory_options),
        ("optimizer", own.factory if own else None, own.extras if own else {}),
    ):
        if factory is not None:
            found[name] = full_arguments(load_factory(factory, f"{name}.factory"), arguments)
    return found
