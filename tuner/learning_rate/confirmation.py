"""Short trainings around a suggested learning rate: the one that leaves the lowest validation loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fusetune.tuner.learning_rate.range import LRRange
from fusetune.tuner.learning_rate.sweep import (
    BatchSource,
    EndlessBatches,
    MakeOptimizerAt,
    StepSettings,
    Sweeper,
    check_resident,
    mean_loss,
)
from fusetune.tuner.training import LossFunction, leaving_no_trace

# A rate that wins short trainings is often too high for a full one. On digits, twice the suggestion won 7 of 12 short
# trainings with momentum, and lost up to six points of accuracy by the end. Higher rates are tried only where the
# suggestion rests on the edge of stability alone, and have to win clearly.
_BELOW, _ABOVE = (0.25, 0.5, 1.0), (2.0, 4.0)
_CLEARLY = 0.8


@dataclass(frozen=True)
class Confirmation:
    """The results of the short trainings.

    Args:
        lr: the rate with the lowest loss, or None where all diverged.
        lrs: the rates that were tried, increasing.
        losses: validation loss after the training at each; infinite where it diverged.
    """

    lr: float | None
    lrs: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Candidates:
    """The rates that short trainings try.

    Args:
        lrs: increasing, at least one.
        suggested: a rate above this one is kept only if its loss is a fifth below the best of the lower ones. None: all
            rates count alike.
    """

    lrs: Sequence[float]
    suggested: float | None = None


def confirm(
    model: nn.Module,
    make_optimizer: MakeOptimizerAt,
    loss_fn: LossFunction,
    batches: BatchSource,
    validation: BatchSource,
    candidates: Candidates,
    *,
    steps: int,
    seed: int = 0,
    settings: StepSettings | None = None,
) -> Confirmation:
    """Train from the model's weights at each rate, evaluate, and keep the best; everything is put back.

    Args:
        model, make_optimizer, loss_fn, batches: as for `tuner.learning_rate.range.lr_range_test`.
        validation: of (x, y); evaluated after each training.
        candidates: the rates, see `candidates_around`.
        steps: of each training, 1 or more.
        seed: of the order of a list of batches.
        settings: of each step.

    Example:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> sgd = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr)
        >>> data, tried = [(x, 2 * x)], Candidates([0.001, 0.1])
        >>> confirm(nn.Linear(1, 1), sgd, nn.functional.mse_loss, data, data, tried, steps=50).lr
        0.1
    """
    check_resident(batches, validation)
    settings = settings or StepSettings()
    device = next(model.parameters()).device
    losses = []
    with leaving_no_trace(model, batches, validation) as put_back:
        for lr in candidates.lrs:
            put_back()
            endless = EndlessBatches(batches, device, seed)
            sweeper = Sweeper(
                model, make_optimizer, loss_fn, endless, [lr] * steps, settings=settings, validation=None
            )
            diverged = sweeper.sweep().divergence_lr is not None
            loss = math.inf if diverged else mean_loss(model, validation, loss_fn, device, settings.precision)
            losses.append(loss if math.isfinite(loss) else math.inf)
    return Confirmation(_best(candidates, losses), tuple(candidates.lrs), tuple(losses))


def candidates_around(found: LRRange) -> Candidates:
    """Return the rates to confirm a suggestion with: a quarter and half of it, itself, and more where the curve allows.

    Twice and four times the suggestion is tried where it rests on the highest stable rate alone, up to that rate.
    """
    if found.suggestion is None:
        return Candidates([])
    most = found.suggestion if found.edge is None else max(found.suggestion, found.edge)
    lrs = [lr for factor in (*_BELOW, *_ABOVE) if (lr := factor * found.suggestion) <= most]
    return Candidates(lrs, found.suggestion)


def _best(candidates: Candidates, losses: Sequence[float]) -> float | None:
    """Return the rate with the lowest loss, or None where all diverged. Higher ones than suggested must be clear."""
    best, least, suggested = None, math.inf, candidates.suggested
    for lr, loss in zip(candidates.lrs, losses, strict=True):
        above = suggested is not None and lr > suggested and best is not None
        if loss < (_CLEARLY * least if above else least):
            best, least = lr, loss
    return best
