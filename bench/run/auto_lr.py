"""`base_lr: auto`: the LR range test that a spec's training asks for, and the rate in the place of `auto`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from fusetune.bench.errors import InputError
from fusetune.bench.results import AutoRate
from fusetune.bench.run.assembly import OptimizerMaker, with_base_lr
from fusetune.bench.spec import AUTO, Spec
from fusetune.tuner.learning_rate import LRRange, lr_range_test
from fusetune.tuner.training import Batches, LossFunction


def find_learning_rate(
    spec: Spec,
    model: nn.Module,
    batches: Batches,
    seed: int,
    *,
    validation: Batches | None = None,
    **options: Any,
) -> LRRange:
    """Run the range test that the spec's training asks for: its optimizer, precision, clipping and accumulation.

    Args:
        spec: its base_lr does not matter.
        model: on the batches' device.
        batches: training data.
        seed: of the test.
        validation: judged instead of the training loss, or None.
        options: further arguments of `lr_range_test`.
    """
    return lr_range_test(
        model,
        OptimizerMaker(spec).at,
        training_loss(spec),
        batches,
        validation=validation,
        seed=seed,
        accumulation_steps=spec.train.accumulation_steps,
        grad_clip=spec.train.grad_clip,
        precision=spec.train.precision,
        **options,
    )


def resolve_auto(spec: Spec, model: nn.Module, batches: Batches, seed: int) -> tuple[Spec, AutoRate | None]:
    """Put a number in the place of `base_lr: auto`. The second value says how it comes about; None without `auto`.

    Mutates: moves the model to the batches' device.

    Raises:
        InputError: the range test cannot tell a rate.
    """
    if spec.train.base_lr != AUTO:
        return spec, None
    place_model(model, batches)
    found = find_learning_rate(spec, model, batches, seed)
    if found.suggestion is None:
        raise InputError("train.base_lr", "auto finds no learning rate", found.reason, "Give a number")
    chosen = AutoRate(found.suggestion, found.interval, found.reason, tuple(found.warnings))
    return with_base_lr(spec, found.suggestion), chosen


def place_model(model: nn.Module, batches: Batches) -> None:
    """Move the model to where its batches are, in their memory format."""
    model.to(batches.device)
    if batches.memory_format == torch.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def training_loss(spec: Spec) -> LossFunction:
    """Return the loss of the spec's training: cross entropy in nats, with its label smoothing."""
    return partial(nn.functional.cross_entropy, label_smoothing=spec.train.label_smoothing)
