from __future__ import annotations

import math

import pytest
import torch

from fusetune.tuner.training import loss as running_loss
from fusetune.tuner.training.loss import RunningLoss


def _add(running: RunningLoss, loss: float) -> None:
    running.add_predictions(torch.eye(2), torch.tensor([0, 0]))
    running.add(torch.tensor(loss))


def test_an_epoch_begins_at_nothing() -> None:
    running = RunningLoss("cpu")
    _add(running, 3.0)
    running.reset()
    assert running.seen_mean() is None
    _add(running, 1.0)
    _add(running, 2.0)
    assert running.read() == (1.5, 0.5)
    assert running.mean().item() == 1.5


def test_many_small_losses_are_summed_in_double_precision() -> None:
    running = RunningLoss("cpu")
    _add(running, 2.0**25)
    for _ in range(64):
        _add(running, 1.0)
    # In float32, 2^25 + 1 is 2^25.
    assert running.read()[0] == (2**25 + 64) / 65


class FakeEvent:
    """A CUDA event that passes when the test says so."""

    passed = False

    def record(self, stream: object) -> None:
        FakeEvent.passed = False

    def query(self) -> bool:
        return FakeEvent.passed


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, running_loss._CudaWindow]:
    """Return a sum and the CUDA view of it, on a machine without CUDA."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory, **options: empty(*size, **options))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    total = torch.zeros((), dtype=torch.float64)
    return total, running_loss._CudaWindow(total)


def test_on_cuda_a_mean_is_seen_once_its_copy_has_arrived(
    window: tuple[torch.Tensor, running_loss._CudaWindow],
) -> None:
    total, view = window
    total.fill_(6.0)
    assert view.mean(batches=2) is None
    assert view.mean(batches=3) is None
    FakeEvent.passed = True
    # Six, over the two batches there were when the copy began.
    assert view.mean(batches=4) == 3.0


def test_on_cuda_a_loss_that_is_not_finite_is_seen_some_steps_later(
    window: tuple[torch.Tensor, running_loss._CudaWindow],
) -> None:
    total, view = window
    seen = []
    for step in range(1, 25):
        total.add_(math.nan if step == 5 else 1.0)
        seen.append(view.mean(batches=step))
        FakeEvent.passed = True
    first = next(step for step, mean in enumerate(seen, start=1) if mean is not None and math.isnan(mean))
    assert 5 <= first <= 5 + 9


def test_on_cuda_a_copy_of_the_last_epoch_is_forgotten(
    window: tuple[torch.Tensor, running_loss._CudaWindow],
) -> None:
    total, view = window
    total.fill_(math.nan)
    view.mean(batches=1)
    FakeEvent.passed = True
    view.forget()
    total.zero_()
    assert view.mean(batches=1) is None
    FakeEvent.passed = True
    assert view.mean(batches=2) == 0.0
