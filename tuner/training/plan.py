"""How to train, whatever the model, the data and the optimizer: the plan, and the step that it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fusetune.errors import InvalidValueError
from fusetune.tuner.training.evaluation import LossFunction
from fusetune.tuner.training.outcome import higher_is_better
from fusetune.tuner.training.precision import resolve_precision
from fusetune.tuner.training.ranks import ONE_RANK, Ranks
from fusetune.tuner.training.rate import StepFunction
from fusetune.tuner.training.step import TrainingStep


def constant(step: int) -> float:
    """Return 1: the multiplier of a learning rate that stays as it is."""
    return 1.0


@dataclass(frozen=True)
class Plan:
    """How to train, whatever the model, the data and the optimizer.

    Args:
        epochs: passes over the data, 1 or more.
        schedule: step (updates made so far) -> multiplier of the lr that each group of the optimizer was made with.
        momentum: step -> momentum (SGD) or first beta (Adam). None leaves it alone.
        plateau: rule of `LearningRate`, stepped at every epoch's end. None: no such rule.
        plateau_metric: what it watches: val_, test_ or train_ followed by loss or accuracy.
        accumulation_steps: batches per update, 1 or more.
        label_smoothing: of the training loss, in [0, 1). Evaluations use none.
        grad_clip: largest total norm of the gradients, above 0. None: no clipping.
        precision: auto, fp32, bf16 or fp16, see `tuner.training.precision`.
        compile: train through torch.compile. Evaluations run the model as it is, so nothing is compiled twice.

    Raises:
        ValueError: a number out of its range, or a plateau whose mode is not that of its metric.

    Example:
        >>> Plan(epochs=0)
        Traceback (most recent call last):
        ...
        fusetune.errors.InvalidValueError: epochs: 0 must be 1 or more
    """

    epochs: int
    schedule: StepFunction = constant
    momentum: StepFunction | None = None
    plateau: Mapping[str, Any] | None = None
    plateau_metric: str = "val_loss"
    accumulation_steps: int = 1
    label_smoothing: float = 0.0
    grad_clip: float | None = None
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulation_steps"):
            if getattr(self, name) < 1:
                raise InvalidValueError(name, f"{getattr(self, name)} must be 1 or more")
        if not 0 <= self.label_smoothing < 1:
            raise InvalidValueError("label_smoothing", f"{self.label_smoothing} must be in [0, 1)")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise InvalidValueError(
                "grad_clip", f"{self.grad_clip} must be above 0", to_do="Leave it out for no clipping"
            )
        mode = "max" if higher_is_better(self.plateau_metric) else "min"
        if self.plateau is not None and self.plateau.get("mode", "min") != mode:
            raise InvalidValueError("plateau", f"{self.plateau_metric} needs the mode {mode!r}")


def planned_step(
    plan: Plan,
    model: nn.Module,
    *,
    device: torch.device,
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
    loss_fn: LossFunction = nn.functional.cross_entropy,
    ranks: Ranks = ONE_RANK,
) -> TrainingStep:
    """Make the step that a plan describes.

    Args:
        plan: how to train.
        model: whose parameters are trained, where they require gradients.
        device: where the model is.
        forward: the model, which is the default, or what torch.compile made of it.
        loss_fn: (logits, labels) -> mean loss.
        ranks: the processes that share each batch.
    """
    return TrainingStep(
        model if forward is None else forward,
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        loss_fn=loss_fn,
        accumulation_steps=plan.accumulation_steps,
        grad_clip=plan.grad_clip,
        precision=resolve_precision(plan.precision, device),
        device=device,
        without_sharing=ranks.without_sharing,
    )
