"""Whoever looks at a model while it is trained: made before the first step, asked at the end of each epoch."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.evaluation import LossFunction

Snapshot = dict[str, Any]


class Observer(Protocol):
    """Looks at a model off the clock. The model learns the same, bit for bit."""

    def snapshot(self, epoch: int) -> Snapshot:
        """Return what the model does after `epoch` epochs, as JSON can hold it."""


class MakeObserver(Protocol):
    """Makes an observer of a model that is not compiled, on the batches' device, with precision fp32, bf16 or fp16."""

    def __call__(
        self, model: nn.Module, batches: Batches, /, *, loss_fn: LossFunction, precision: str
    ) -> Observer: ...
