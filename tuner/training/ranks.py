"""The processes that share a training, as the loop sees them. Here is the case of one, which has nobody to ask."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from torch import Tensor, nn

from fusetune.tuner.training.batches import Batches, place
from fusetune.tuner.training.evaluation import LossFunction

Decision = TypeVar("Decision")
Forward = Callable[[Tensor], Tensor]


class Ranks(Protocol):
    """The processes that share a training. Each calls every method as often as the others do, in the same order.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        observes: whether an observer can look at the model in this process.
    """

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def observes(self) -> bool: ...

    def place(self, model: nn.Module, batches: Batches) -> None:
        """Bring a model to the device and the memory format of its batches, or as near as `wrap` needs it."""

    def wrap(self, model: nn.Module, batches: Batches, loss_fn: LossFunction) -> Forward:
        """Return what maps this process's share of a batch to logits, and shares the gradients of it.

        Args:
            model: as `place` left it. Its parameters may be replaced, so the optimizer is made afterwards.
            batches: this process's share of the training data.
            loss_fn: (logits, labels) -> mean loss.
        """

    def without_sharing(self) -> AbstractContextManager[object]:
        """Return a context in which gradients add up in each process and are not shared."""

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sums over all processes, the same bits in each."""

    def begin_epoch(self) -> None:
        """Forget what was agreed on."""

    def late(self, is_late: Callable[[], bool]) -> bool:
        """Return whether the first process's time is up. Asked before each step."""

    def agreed_loss(self, loss: float | None, is_late: Callable[[], bool]) -> float | None:
        """Return the mean loss of all processes, or None where it was not asked for. Called after each step.

        Args:
            loss: mean of this process so far in the epoch, as far as it is known.
            is_late: as for `late`.
        """

    def from_first(self, decision: Decision) -> Decision:
        """Return what the first process has decided."""

    def before_evaluation(self, model: nn.Module) -> None:
        """Give all processes the same buffers, such as the running statistics of batch normalisation."""


class OneRank:
    """A training in one process.

    Example:
        >>> alone = OneRank()
        >>> alone.agreed_loss(0.5, lambda: False), alone.late(lambda: True), alone.from_first("stop")
        (0.5, True, 'stop')
    """

    rank = 0
    count = 1
    observes = True

    def place(self, model: nn.Module, batches: Batches) -> None:
        """Bring a model to the device and the memory format of its batches."""
        place(model, batches)

    def wrap(self, model: nn.Module, batches: Batches, loss_fn: LossFunction) -> Forward:
        """Return the model."""
        return model

    def without_sharing(self) -> AbstractContextManager[object]:
        """Return a context without effect."""
        return nullcontext()

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the numbers."""
        return numbers

    def begin_epoch(self) -> None:
        """Do nothing."""

    def late(self, is_late: Callable[[], bool]) -> bool:
        """Return whether the time is up."""
        return is_late()

    def agreed_loss(self, loss: float | None, is_late: Callable[[], bool]) -> float | None:
        """Return the loss."""
        return loss

    def from_first(self, decision: Decision) -> Decision:
        """Return the decision."""
        return decision

    def before_evaluation(self, model: nn.Module) -> None:
        """Do nothing."""


ONE_RANK = OneRank()


def whole(number: Tensor) -> Tensor:
    """Return a tensor that processes share as one that each has: torch's norms of shared gradients are such.

    Example:
        >>> import torch
        >>> whole(torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    full = getattr(number, "full_tensor", None)
    return number if full is None else full()
