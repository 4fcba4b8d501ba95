"""`base_lr: auto`: the LR range test that a spec's training asks for, and the rate in the place of `auto`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fusetune.bench.errors import InputError
from fusetune.bench.results import AutoRate
from fusetune.bench.run.workload import Workload, with_base_lr
from fusetune.bench.spec import AUTO, Trial
from fusetune.tuner.training import Batches

if TYPE_CHECKING:
    from fusetune.tuner.learning_rate import LRRange

_ANY_LR = 1e-3


def find_learning_rate(workload: Workload, *, validation: Batches | None = None, **options: Any) -> LRRange:
    """Run the range test that a training asks for: its optimizer, precision, clipping and accumulation.

    Args:
        workload: with its model in place. Its base_lr does not matter.
        validation: judged instead of the training loss, or None.
        options: further arguments of `lr_range_test`.
    """
    from fusetune.tuner.learning_rate import (
        lr_range_test,
    )  # scipy takes most of a second, and few trainings need it

    section = workload.spec.train
    return lr_range_test(
        workload.model,
        workload.make_optimizer.at,
        workload.loss_fn,
        workload.data.training,
        validation=validation,
        seed=workload.seed,
        accumulation_steps=section.accumulation_steps,
        grad_clip=section.grad_clip,
        precision=section.precision,
        **options,
    )


def resolve_auto(workload: Workload) -> Workload:
    """Put the rate that a range test finds in the place of `base_lr: auto`. Any other workload stays as it is.

    Mutates: moves the model to its data.

    Raises:
        InputError: the range test finds no rate.
    """
    if workload.spec.train.base_lr != AUTO:
        return workload
    workload.place()
    found = find_learning_rate(workload)
    if found.suggestion is None:
        raise InputError("train.base_lr", "auto finds no learning rate", found.reason, "Give a number")
    chosen = AutoRate(found.suggestion, found.interval, found.reason, tuple(found.warnings))
    return workload.at_rate(found.suggestion, chosen)


def with_any_rate(trial: Trial) -> Trial:
    """Return the trial with a number where `base_lr` is auto: no rate changes what a step takes, or what is built."""
    if trial.spec.train.base_lr != AUTO:
        return trial
    return replace(trial, spec=with_base_lr(trial.spec, _ANY_LR))
