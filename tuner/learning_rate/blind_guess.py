"""The loss of a blind guess: of the best output that is the same for every sample, whatever the loss function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusetune.tuner.training import LossFunction, own_copy

_ITERATIONS = 30
# Largest gradient at a minimum. A fit that ends with a steeper loss has no minimum, or has not reached it.
_FLAT = 0.003


def blind_guess_loss(loss_fn: LossFunction, seen: Sequence[tuple[Tensor, Any]]) -> float | None:
    """Return the mean loss of the best constant output; None where the fit finds no minimum.

    The output is fitted to every other batch and evaluated on those between, with early stopping. Fitted to the end it
    would overfit: among a few samples, some of many classes are missing. For cross-entropy and enough samples the
    result is the entropy of the labels, for the squared error their variance.

    Args:
        loss_fn: (output, y) -> mean loss of the batch.
        seen: outputs of a model, of which only shape and dtype are used, and the batches' y.

    Example:
        >>> y = torch.tensor([0, 0, 1, 2] * 8)
        >>> round(blind_guess_loss(torch.nn.functional.cross_entropy, [(torch.zeros(32, 3), y)] * 2), 3)
        1.04
    """
    shapes = {output.shape[1:] for output, _ in seen}
    if len(seen) < 2 or len(shapes) != 1:
        return None
    first = seen[0][0]
    guess = torch.zeros(
        shapes.pop(), dtype=torch.promote_types(first.dtype, torch.float32), device=first.device
    )
    guess.requires_grad_()

    def mean_loss(part: Sequence[tuple[Tensor, Any]]) -> Tensor:
        # Copies, because each is used many times, and a loss may change its arguments.
        losses = [
            loss_fn(guess.expand(output.shape).clone(), own_copy(y, guess.device)).reshape(())
            for output, y in part
        ]
        return torch.stack(losses).mean()

    def slope() -> Tensor:
        loss = mean_loss(seen[::2])
        # Not backward(), because the loss may also depend on a model's parameters.
        guess.grad = torch.autograd.grad(loss, guess)[0]
        return loss.detach()

    optimizer = torch.optim.LBFGS([guess], max_iter=1, max_eval=20, line_search_fn="strong_wolfe")
    best, flat = math.inf, False
    for _ in range(_ITERATIONS):
        loss = mean_loss(seen[1::2]).item()
        if not loss < math.inf:
            break
        best, overfitted = min(best, loss), loss > best + _FLAT * abs(best)
        slope()
        flat = overfitted or float(guess.grad.abs().max()) < _FLAT  # type: ignore[union-attr]
        if flat:
            break
        optimizer.step(slope)
    return best if flat else None
