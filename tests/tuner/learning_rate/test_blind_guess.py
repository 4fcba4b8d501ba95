"""The loss of a blind guess, against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fusetune.tuner.learning_rate.blind_guess import blind_guess_loss


def seen(shape: tuple[int, ...], labels: Callable[[], Any], batches: int = 30) -> list[tuple[Tensor, Any]]:
    torch.manual_seed(0)
    return [(torch.empty(shape), labels()) for _ in range(batches)]


def test_for_cross_entropy_it_is_the_entropy_of_the_labels() -> None:
    shares = torch.tensor([0.6, 0.3, 0.1])
    entropy = -(shares * shares.log()).sum().item()
    batches = seen((256, 3), lambda: torch.multinomial(shares, 256, replacement=True))
    assert blind_guess_loss(functional.cross_entropy, batches) == pytest.approx(entropy, rel=0.02)


def test_for_the_squared_error_it_is_the_variance() -> None:
    batches = seen((256, 1), lambda: 5 + 2 * torch.randn(256, 1))
    assert blind_guess_loss(functional.mse_loss, batches) == pytest.approx(4, rel=0.05)


def test_few_samples_of_many_classes_are_not_learned_by_heart() -> None:
    # 240 samples for a fit: their own entropy is below log 240, 5.5, that of the classes log 1000, 6.9.
    batches = seen((16, 1000), lambda: torch.randint(1000, (16,)))
    assert blind_guess_loss(functional.cross_entropy, batches) == pytest.approx(math.log(1000), rel=0.02)


@pytest.mark.parametrize("reduce", [lambda z: z.sum(), lambda z: z.sum() * math.nan])
def test_without_a_lowest_loss_there_is_none(reduce: Callable[[Tensor], Tensor]) -> None:
    assert blind_guess_loss(lambda z, y: reduce(z), seen((8, 3), lambda: None)) is None


def test_outputs_of_several_shapes_have_no_guess_in_common() -> None:
    y = torch.zeros(8, 3)
    assert blind_guess_loss(functional.mse_loss, [(torch.empty(8, 3), y), (torch.empty(8, 2), y)]) is None
    assert blind_guess_loss(functional.mse_loss, []) is None


def test_a_model_that_the_loss_looks_at_gets_no_gradients() -> None:
    weight = torch.ones(3, requires_grad=True)
    batches = seen((8, 3), lambda: torch.zeros(8, 3))
    found = blind_guess_loss(lambda z, y: functional.mse_loss(z, y) + weight.square().sum(), batches)
    assert found == pytest.approx(3)
    assert weight.grad is None
