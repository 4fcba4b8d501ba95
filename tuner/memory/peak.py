"""The most bytes that a training's tensors hold at once, whatever the process did before, as CUDA's allocator says.

The resident set of a process also holds libraries, threads, and memory that its heap kept of earlier work. One and the
same small training was seen to take 3, 7 and 79 MiB. So a few steps are repeated off the clock, under a dispatch mode.
It counts each storage from the operation that returns it to the moment when it is freed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusetune.tuner.memory.ranks import local_part
from fusetune.tuner.memory.resized import seen_resizes
from fusetune.tuner.training import (
    Batches,
    LossFunction,
    MakeOptimizer,
    Plan,
    RunningLoss,
    autocast,
    planned_step,
    resolve_precision,
    restored,
)

# The first creates the optimizer's state, the second finds it there.
_STEPS = 2


def peak_tensor_bytes(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    batches: Batches,
    *,
    plan: Plan,
    held_out: Iterable[Batches] = (),
    loss_fn: LossFunction = nn.functional.cross_entropy,
) -> int:
    """Return the most bytes that weights, gradients, optimizer, activations and data hold at once in a training.

    Two steps are made and one batch of each set is evaluated, with the model as it is, not compiled. What kernels
    allocate inside an operation, and what libraries keep, is not seen.

    Args:
        model: on the batches' device.
        make_optimizer: parameters -> torch optimizer.
        batches: training data.
        plan: how to train.
        held_out: sets that are evaluated.
        loss_fn: (logits, labels) -> mean loss.

    Memory: a copy of parameters and buffers besides what training takes.

    Mutates: nothing. Parameters, buffers, modes and torch's random states are put back, gradients are dropped.

    Example:
        >>> data = Batches(torch.zeros(64, 1000), torch.zeros(64, dtype=torch.int64), 64)
        >>> model = nn.Linear(1000, 10, bias=False)
        >>> peak = peak_tensor_bytes(model, lambda p: torch.optim.SGD(p, lr=0.1), data, plan=Plan(epochs=1))
        >>> 4 * 64 * 1000 * 2 + 4 * 10_000 * 2 < peak < 4 * 64 * 1000 * 2 + 4 * 10_000 * 5
        True
    """
    held_out = list(held_out)
    device = batches.device
    precision = resolve_precision(plan.precision, device)
    modes = [(module, module.training) for module in model.modules()]
    live = _LiveBytes()
    sets = (value for each in (batches, *held_out) for value in vars(each).values())
    live.see([*model.parameters(), *model.buffers(), *sets])
    devices = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices=devices),
            restored(model.named_buffers),
            restored(model.named_parameters),
            live,
            seen_resizes(live.resized),
        ):
            model.train()
            step = planned_step(plan, model, loss_fn=loss_fn, device=device)
            optimizer = make_optimizer(model.parameters())
            stream = chain.from_iterable(batches.epoch(index) for index in count())
            for _ in range(_STEPS):
                step.accumulate(stream, RunningLoss(device))
                step.update(optimizer)
            model.eval()
            with torch.no_grad(), autocast(precision, device):
                for each in held_out:
                    x, y = next(each.in_order())
                    loss_fn(model(x), y)
            step.drop_gradients()
    finally:
        for module, training in modes:
            module.training = training
    return live.peak_bytes


class _LiveBytes(TorchDispatchMode):
    """Counts the storages that operations return, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._bytes = 0
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and see its results."""
        result = func(*args, **(kwargs or {}))
        self.see(tree_leaves(result))
        return result

    def see(self, tensors: Iterable[Any]) -> None:
        """Count the storages of these tensors that are not counted yet. Only dense tensors count."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                storage = local_part(tensor).untyped_storage()
                if (key := storage._cdata) not in self._live:
                    self._hold(key, storage)

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Count a storage that is counted already with the size that it has now."""
        if (key := storage._cdata) in self._live:
            reference, size = self._live[key]
            self._live[key] = (reference, storage.nbytes())
            self._add(storage.nbytes() - size)

    def _hold(self, key: int, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed."""

        def freed(_: object) -> None:
            self._add(-self._live.pop(key)[1])

        self._live[key] = (weakref.ref(storage, freed), storage.nbytes())
        self._add(storage.nbytes())

    def _add(self, size: int) -> None:
        """Add what is held in more, or in less where it is below 0."""
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)
