"""Training loss and accuracy of an epoch: summed on the device, seen by the host without making the device wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

# A copy to the host costs about as much as launching one small kernel. One in eight steps makes that invisible.
_STEPS_PER_COPY = 8


class RunningLoss:
    """Sums over the batches of one epoch, in float64 (loss) and int64 (correct predictions).

    Args:
        device: where losses and logits are.

    Example:
        >>> import torch
        >>> running = RunningLoss("cpu")
        >>> running.add_predictions(torch.eye(4), torch.tensor([0, 1, 2, 0]))
        >>> running.add(torch.tensor(0.5))
        >>> running.seen_mean(), running.read()
        (0.5, (0.5, 0.75))
    """

    def __init__(self, device: torch.device | str) -> None:
        device = torch.device(device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._batches = 0
        self._samples = 0
        self._window: _Window = _CudaWindow(self._loss) if device.type == "cuda" else _HostWindow(self._loss)

    def add_predictions(self, logits: Tensor, y: Tensor) -> None:
        """Add how many of a batch's largest logits are right: before the loss, which may change both in place."""
        self._correct.add_((logits.detach().argmax(1) == y).sum())
        self._samples += len(y)

    def add(self, loss: Tensor) -> None:
        """Add a batch's mean loss."""
        self._loss.add_(loss.detach())
        self._batches += 1

    def reset(self) -> None:
        """Begin another epoch."""
        self._loss.zero_()
        self._correct.zero_()
        self._batches = self._samples = 0
        self._window.forget()

    def mean(self) -> Tensor:
        """Return the mean loss so far, on the device."""
        return self._loss / self._batches

    def seen_mean(self) -> float | None:
        """Return the mean loss as far as the host has seen it, or None before it has. Call it once a step.

        On a CPU that is all of it. On CUDA it is some steps old: copies are started every few steps and read when
        they have arrived. A loss that is not finite stays in the sum, so it is noticed all the same.
        """
        return self._window.mean(self._batches)

    def read(self, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> tuple[float, float]:
        """Return mean loss and accuracy so far. On CUDA this waits.

        Args:
            total: what becomes of the sums (loss, correct predictions, batches, samples), float64, before they are
                read: their sums over all processes.
        """
        counts = torch.tensor([self._batches, self._samples], dtype=torch.float64, device=self._loss.device)
        sums = torch.cat((torch.stack((self._loss, self._correct.double())), counts))
        loss, correct, batches, samples = total(sums).tolist()
        return loss / batches, correct / samples


class _Window(Protocol):
    """The host's view of a sum on the device."""

    def mean(self, batches: int) -> float | None: ...

    def forget(self) -> None: ...


class _HostWindow:
    """A view of the sum's own memory: no tensor operation, no copy."""

    def __init__(self, total: Tensor) -> None:
        self._view = total.numpy()

    def mean(self, batches: int) -> float | None:
        return float(self._view) / batches if batches else None

    def forget(self) -> None:
        """Nothing is kept."""


class _CudaWindow:
    """Asynchronous copies into pinned memory, each read once its event has passed."""

    def __init__(self, total: Tensor) -> None:
        self._total = total
        self._pinned = torch.empty((), dtype=total.dtype, pin_memory=True)
        self._arrived = torch.cuda.Event()
        self._mean: float | None = None
        self._copied_batches = 0
        self._calls = 0

    def mean(self, batches: int) -> float | None:
        if self._copied_batches and self._arrived.query():
            self._mean = self._pinned.item() / self._copied_batches
            self._copied_batches = 0
        if not self._copied_batches and self._calls % _STEPS_PER_COPY == 0:
            self._pinned.copy_(self._total, non_blocking=True)
            self._arrived.record(torch.cuda.current_stream(self._total.device))
            self._copied_batches = batches
        self._calls += 1
        return self._mean

    def forget(self) -> None:
        self._mean = None
        self._copied_batches = 0
        self._calls = 0
