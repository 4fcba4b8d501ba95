"""The order of the rules: from causes to symptoms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusetune.errors import InvalidValueError
from fusetune.tuner.diagnosis.data import constant_labels, input_fault, labels_do_not_fit
from fusetune.tuner.diagnosis.finding import Finding
from fusetune.tuner.diagnosis.fit import overfitting, stuck, too_few_epochs, underfitting
from fusetune.tuner.diagnosis.readings import Readings
from fusetune.tuner.diagnosis.signals import (
    dead_by_training,
    dead_from_the_start,
    exploding,
    not_finite_from_the_start,
    saturated_by_training,
    saturated_from_the_start,
    vanishing,
)
from fusetune.tuner.diagnosis.steps import batch_too_small, lr_too_high, lr_too_low
from fusetune.tuner.training import Curve

_Rule = Callable[[Readings], "Finding | None"]
# From causes to symptoms. The first rule that finds something ends the search: later ones would describe its effects.
_GROUPS: tuple[tuple[_Rule, ...], ...] = (
    (not_finite_from_the_start, input_fault, constant_labels),
    (dead_from_the_start, saturated_from_the_start, exploding, vanishing),
    (labels_do_not_fit, batch_too_small, lr_too_high),
    (dead_by_training, saturated_by_training),
    (stuck,),
    (overfitting, lr_too_low, underfitting, too_few_epochs),
)
# What too long steps may do to the layers is named beside them.
_CONSEQUENCES: tuple[_Rule, ...] = (dead_by_training, saturated_by_training)


def diagnose(
    curve: Curve,
    *,
    statistics: Sequence[Mapping[str, Any]] | None = None,
    initial: Mapping[str, float] | None = None,
    diverged: str | None = None,
    noise_scale: float | None = None,
    batch_size: int | None = None,
    planned_epochs: int | None = None,
    validation_samples: int | None = None,
) -> list[Finding]:
    """Name what is wrong with a training; an empty list when nothing is.

    A finding needs enough steps and samples to be significant (`tuner.diagnosis.evidence`). The only finding of a sound
    training of a few steps is too few epochs. The curve alone shows wrong learning rates, overfitting, underfitting
    and too few epochs. All other faults need the snapshots of the layers.

    Args:
        curve: a training's, one mapping per epoch, see `tuner.training.outcome.Training`.
        statistics: its snapshots, see `tuner.diagnosis.layer_statistics`: the untrained model's first.
        initial: where there are no snapshots: `loss` of the untrained model, or `label_entropy` (nats) and
            `label_majority` (share of the commonest label).
        diverged: why it counts as diverged, or None.
        noise_scale: the gradient noise scale in samples, where known; else the snapshots of small batches give it.
        batch_size: samples of a step, accumulation included.
        planned_epochs: epochs that were asked for; default: those of the curve.
        validation_samples: size of the validation set; default: 200.

    Raises:
        ValueError: no curve, or a batch size, noise scale or number of samples that is not positive.

    Example:
        >>> losses = [2.3, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
        >>> validation = [2.3, 1.2, 0.9, 0.8, 0.9, 1.0, 1.2, 1.4]
        >>> curve = [{"epoch": e + 1, "step": 100 * (e + 1), "train_loss": t, "val_loss": v, "lr": 0.1,
        ...           "train_accuracy": None, "val_accuracy": None, "grad_norm": 1.0}
        ...          for e, (t, v) in enumerate(zip(losses, validation))]
        >>> [finding.name for finding in diagnose(curve, initial={"loss": 2.3})]
        ['overfitting']

    Source: I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning" (2016), chapter 11; L. N. Smith, "A disciplined
        approach to neural network hyper-parameters" (2018); A. Karpathy, "A recipe for training neural
        networks" (2019).
    """
    if not curve:
        raise InvalidValueError("curve", "empty", "a diagnosis needs one epoch or more")
    for name, value in (
        ("batch_size", batch_size),
        ("noise_scale", noise_scale),
        ("validation_samples", validation_samples),
    ):
        if value is not None and not value > 0:
            raise InvalidValueError(name, f"{value} must be above 0")
    run = Readings(
        curve,
        statistics or [],
        initial or {},
        diverged,
        noise_scale,
        batch_size,
        planned_epochs or len(curve),
        validation_samples,
    )
    for group in _GROUPS:
        for rule in group:
            if (finding := rule(run)) is not None:
                followed = _CONSEQUENCES if rule in (lr_too_high, batch_too_small) else ()
                return [finding, *(found for rule in followed if (found := rule(run)) is not None)]
    return []
