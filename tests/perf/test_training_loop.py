"""The training loop against one written by hand: the same work, and how much of its speed is left.

`make perf` runs the rounds and prints them; an ordinary test run only proves that both do the same, bit for bit.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Batches

_ROUNDS = 9
_SAMPLES = 1536


def _cnn() -> nn.Module:
    """Build a CNN of 102,026 parameters for 28x28x1."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 62),
        nn.ReLU(),
        nn.Linear(62, 10),
    )


def _momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def _train_by_hand(model: nn.Module, x: Tensor, y: Tensor, order: Tensor, batch_size: int) -> float:
    """Train one epoch the way one writes it for a single experiment; return its seconds."""
    optimizer = _momentum(model.parameters())
    start_s = time.perf_counter()
    for start in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x.index_select(0, chosen)), y.index_select(0, chosen))
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start_s


def _order(samples: int) -> Tensor:
    """Return the order in which `Batches` goes through an epoch: the row numbers are its data."""
    rows = Batches(
        torch.arange(samples, dtype=torch.float64)[:, None], torch.zeros(samples, dtype=torch.int64), 1
    )
    return torch.cat([x for x, _ in rows.epoch(0)])[:, 0].long()


@pytest.mark.parametrize("batch_size", [64, 256])
def test_loop_does_the_work_of_a_loop_by_hand_at_nearly_its_speed(
    benchmark: BenchmarkFixture, batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    samples = _SAMPLES if benchmark.enabled else 2 * batch_size
    x, y = torch.randn(samples, 1, 28, 28), torch.randint(0, 10, (samples,))
    model = _cnn()
    batches = Batches(x, y, batch_size)
    held_out = Batches(x[:10], y[:10], 10)
    order = _order(samples)
    ratios, samples_per_s = [], []

    def by_hand() -> tuple[float, nn.Module]:
        _train_by_hand(
            copy.deepcopy(model), x, y, order[:batch_size], batch_size
        )  # a burn-in, as `train` has one
        trained = copy.deepcopy(model)
        return _train_by_hand(trained, x, y, order, batch_size), trained

    def by_train() -> tuple[float, nn.Module]:
        trained = copy.deepcopy(model)
        training = train(trained, _momentum, batches, plan=Plan(epochs=1), validation=held_out)
        return training.training_s, trained

    def compare() -> None:
        """Train by hand, by `train`, by `train`, by hand, so that a drift of the machine hits both alike."""
        results = [run() for run in (by_hand, by_train, by_train, by_hand)]
        hand_s, ours_s = results[0][0] + results[3][0], results[1][0] + results[2][0]
        ratios.append(hand_s / ours_s)
        samples_per_s.append(2 * len(batches) * batch_size / ours_s)
        expected = results[0][1].state_dict()
        for _, trained in results[1:]:
            assert all(torch.equal(value, expected[name]) for name, value in trained.state_dict().items())

    benchmark.pedantic(compare, rounds=_ROUNDS if benchmark.enabled else 1)
    if benchmark.enabled:
        with capsys.disabled():
            print(
                f"\nbatch {batch_size}: {statistics.median(samples_per_s):.0f} samples/s, "
                f"{statistics.median(ratios):.3f} [{min(ratios):.3f}..{max(ratios):.3f}] of the loop by hand "
                f"(median [min..max] of {len(ratios)} interleaved rounds)"
            )
