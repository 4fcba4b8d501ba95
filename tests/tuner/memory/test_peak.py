"""What the tensors of a training hold, against sums by hand. Nothing of it stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from fusetune.tuner.memory.peak import peak_tensor_bytes
from fusetune.tuner.training import Plan
from fusetune.tuner.training.batches import Batches

WEIGHTS = 4 * 1000 * 1000
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def _data(samples: int = 4, size: int = 2) -> Batches:
    return Batches(torch.ones(samples, 1000), torch.zeros(samples, dtype=torch.int64), size)


# Of weights of 4 MB beside which data and activations are nothing: weights, gradients, states, and what a step makes.
@pytest.mark.parametrize(
    ("make", "copies"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, foreach=False), 2),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False), 3),
        (lambda p: torch.optim.Adam(p, lr=0.1, foreach=False, fused=True), 4),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_weights_gradients_and_states_are_counted(make: MakeOptimizer, copies: int) -> None:
    peak = peak_tensor_bytes(nn.Linear(1000, 1000, bias=False), make, _data(), plan=Plan(epochs=1))
    assert copies * WEIGHTS < peak < (copies + 0.1) * WEIGHTS


def test_activations_data_and_an_evaluation_of_a_larger_batch_are_counted() -> None:
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 2, bias=False))
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    small = peak_tensor_bytes(model, sgd, _data(4000, 2), plan=Plan(epochs=1))
    large = peak_tensor_bytes(model, sgd, _data(4000, 4000), plan=Plan(epochs=1))
    # The batch, and the outputs of Linear and ReLU of which one is needed backwards, of 16 MB each.
    assert 3 * 16e6 <= large - small <= 5 * 16e6
    evaluated = peak_tensor_bytes(
        model, sgd, _data(4000, 2), plan=Plan(epochs=1), held_out=[_data(4000, 4000)]
    )
    assert evaluated - small >= 2 * 16e6


def test_the_model_the_random_state_and_the_next_training_are_as_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1000, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    peaks = {
        peak_tensor_bytes(model, lambda p: torch.optim.Adam(p, lr=0.1), _data(8, 4), plan=Plan(epochs=1))
        for _ in range(3)
    }
    assert len(peaks) == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
