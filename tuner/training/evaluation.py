"""One pass over held-out data: mean loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.precision import autocast, resolve_precision

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Evaluation(NamedTuple):
    """Mean loss (in the loss function's unit) and accuracy (fraction, 0..1) over all samples."""

    loss: float
    accuracy: float


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    loss_fn: LossFunction = nn.functional.cross_entropy,
    precision: str = "fp32",
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Evaluation:
    """Evaluate a model on every sample, the last and smaller batch included.

        loss = sum_b n_b * loss_fn(model(x_b), y_b) / sum_b n_b        accuracy = #{argmax model(x) = y} / N

    No gradients are computed. The model is in evaluation mode meanwhile, and each module gets its own mode back.
    The sums stay on the device (float64) and are read once, at the end.

    Args:
        model: maps x to logits of shape (batch, classes), on the batches' device.
        batches: the samples, taken in order and without augmentation.
        loss_fn: (logits, labels) -> mean loss of the batch.
        precision: as the model is trained in: auto, fp32, bf16 or fp16.
        total: what becomes of the sums (loss, correct predictions), float64, before they are read: where processes
            share the batches, the sums over all of them.

    Example:
        >>> import torch
        >>> data = Batches(torch.eye(3), torch.arange(3), batch_size=2)
        >>> evaluate(torch.nn.Identity(), data).accuracy
        1.0
    """
    modes = [(module, module.training) for module in model.modules()]
    context = autocast(resolve_precision(precision, batches.device), batches.device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=batches.device)
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    model.eval()
    try:
        with torch.no_grad():
            for x, y, count in batches.counted_in_order():
                with context:
                    logits = model(x)
                    # Before the loss, which may change logits and labels in place.
                    right = (logits.argmax(1) == y).sum()
                    loss = loss_fn(logits, y)
                if count:
                    correct += right
                    loss_sum += loss.double() * count
    finally:
        for module, training in modes:
            module.training = training
    total_loss, total_correct = total(torch.stack((loss_sum, correct.double()))).tolist()
    return Evaluation(total_loss / batches.samples, total_correct / batches.samples)
