"""Short trainings at a suggested learning rate and below: the one that leaves the lowest validation loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tuner.evaluation import LossFunction
from tuner.lr_sweep import BatchSource, EndlessBatches, MakeOptimizerAt, StepSettings, Sweeper, mean_loss
from tuner.restore import leaving_no_trace

# None above the suggestion: what is ahead after a short training is often too high for a whole one. On digits, twice
# the suggestion won 7 of 12 short trainings with momentum, and lost up to six points of accuracy by the end.
CANDIDATES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Confirmation:
    """What the short trainings came to.

    Args:
        lr: the rate with the lowest loss, or None where all diverged.
        lrs: the rates that were tried, increasing.
        losses: validation loss after the training at each; infinite where it diverged.
    """

    lr: float | None
    lrs: tuple[float, ...]
    losses: tuple[float, ...]


def confirm(
    model: nn.Module,
    make_optimizer: MakeOptimizerAt,
    loss_fn: LossFunction,
    batches: BatchSource,
    validation: BatchSource,
    lrs: Sequence[float],
    *,
    steps: int,
    seed: int = 0,
    settings: StepSettings | None = None,
) -> Confirmation:
    """Train from the model's weights at each rate, evaluate, and keep the best; everything is put back.

    Args:
        model, make_optimizer, loss_fn, batches: as for `tuner.lr_range.lr_range_test`.
        validation: of (x, y); evaluated after each training.
        lrs: increasing, at least one.
        steps: of each training, 1 or more.
        seed: of the order of a list of batches.
        settings: of each step.

    Example:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> sgd = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr)
        >>> confirm(nn.Linear(1, 1), sgd, nn.functional.mse_loss, [(x, 2 * x)], [(x, 2 * x)], [0.001, 0.1], steps=50).lr
        0.1
    """
    settings = settings or StepSettings()
    device = next(model.parameters()).device
    losses = []
    with leaving_no_trace(model, batches, validation) as put_back:
        for lr in lrs:
            put_back()
            endless = EndlessBatches(batches, device, seed)
            sweeper = Sweeper(
                model, make_optimizer, loss_fn, endless, [lr] * steps, settings=settings, validation=None
            )
            diverged = sweeper.sweep().divergence_lr is not None
            loss = math.inf if diverged else mean_loss(model, validation, loss_fn, device, settings.precision)
            losses.append(loss if math.isfinite(loss) else math.inf)
    best = min(range(len(losses)), key=losses.__getitem__)
    return Confirmation(lrs[best] if math.isfinite(losses[best]) else None, tuple(lrs), tuple(losses))
