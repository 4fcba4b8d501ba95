"""A process's part in a data parallel training: its share of the gradients, and decisions that are the same in all."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from fusetune.tuner.parallel.batch_norm import batch_norms, same_buffers, synchronise_batch_norms
from fusetune.tuner.parallel.communication import Communication, communication_of
from fusetune.tuner.parallel.sharding import shard
from fusetune.tuner.training import Batches, LossFunction, place, restored

Decision = TypeVar("Decision")
# Losses and clocks are compared about as often. A small exchange takes some 0.2 ms between processes of one machine.
_AGREE_EVERY_S = 0.1
_AGREE_EVERY_STEPS = 64


class DataParallel:
    """The training's `ranks` in each of the processes that have joined a group, see `tuner.training.Ranks`.

        g = (1/N) sum_{r=1..N} grad mean loss(share_r) = grad mean loss(batch)        shares have equal sizes

    So the mathematics are those of one process, up to the rounding of sums. Three things differ. Random numbers that
    the model draws, as dropout does, are different ones in each process. Batch normalisation works over each share,
    unless `sync_batchnorm` is given. A loss that is not finite, and the time limit, are noticed within 0.1 s or one
    step, whichever is longer, and within 64 steps.

    Args:
        parallel: `ddp` (torch's DistributedDataParallel) or `fsdp` (torch's `fully_shard`).
        sync_batchnorm: normalise over the batches of all processes.
        seed: of the random numbers that the model draws in processes but the first, which goes on with its own.
        clock: seconds.

    Attributes:
        batch_norm: what the model's batch normalisation works over, `batch` or `share`, once it is wrapped. None: it
            has none.

    Raises:
        RuntimeError: no group has been joined.
    """

    def __init__(
        self,
        parallel: Literal["ddp", "fsdp"] = "ddp",
        *,
        sync_batchnorm: bool = False,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self.batch_norm: Literal["batch", "share"] | None = None
        self._parallel = parallel
        self._sync_batchnorm = sync_batchnorm
        self._seed = seed
        self._clock = clock
        self._observes = self.rank == 0 and parallel == "ddp"
        self._ddp: DistributedDataParallel | None = None
        self._fsdp: Any = None
        self._late: bool | None = None
        self._steps_to_go, self._steps, self._since_s = 1, 0, 0.0

    @property
    def observes(self) -> bool:
        """Whether an observer can look at the model here: the first process alone has one, and none with fsdp."""
        return self._observes

    def place(self, model: nn.Module, batches: Batches) -> None:
        """Bring a model to the device of its batches. With fsdp it stays in the host's memory, where it was built."""
        if self._parallel != "fsdp":
            place(model, batches)
        elif batches.memory_format == torch.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def wrap(self, model: nn.Module, batches: Batches, loss_fn: LossFunction) -> Callable[[Tensor], Tensor]:
        """Return the model with gradients that are means over all processes."""
        if batch_norms(model):
            self.batch_norm = "batch" if self._sync_batchnorm else "share"
        called: set[str] = set()
        # Asked while the model is as it was built, for SyncBatchNorm runs on GPUs alone.
        if self._parallel == "fsdp":
            found = _called_where_it_is(model, next(batches.epoch(0))[0][:2])
            called = {name for name, module in model.named_modules() if module in found}
        if self.batch_norm == "batch":
            synchronise_batch_norms(model, batches.device)
            self._observes = self._parallel == "ddp"  # all at once, or the first would wait for the others
        if self.rank:
            torch.manual_seed(self._seed * self.count + self.rank)
        if self._parallel == "fsdp":
            mesh = init_device_mesh(batches.device.type, (self.count,))
            shard(model, mesh, {module for name, module in model.named_modules() if name in called})
            self._fsdp = model
            return model
        unused = _has_unused(model, batches, loss_fn)
        self._ddp = DistributedDataParallel(
            model,
            gradient_as_bucket_view=True,
            find_unused_parameters=bool(self.sum(torch.tensor(float(unused))).item()),
            # Running statistics are averaged before each evaluation. Nothing in training goes by them.
            **cast("dict[str, Any]", {no_buffers(): False}),
        )
        self._ddp._set_ddp_runtime_logging_sample_rate(1)
        return self._ddp

    def without_sharing(self) -> AbstractContextManager[object]:
        """Return a context in which gradients add up in each process and are not shared."""
        if self._ddp is not None:
            return self._ddp.no_sync()
        return gradients_stay(self._fsdp) if self._fsdp is not None else nullcontext()

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sums over all processes, the same bits in each."""
        total = numbers.detach().clone()
        dist.all_reduce(total)
        return total

    def most(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        numbers = torch.tensor(number, dtype=torch.int64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def begin_epoch(self) -> None:
        """Forget what was agreed on: an evaluation may have used up the time."""
        self._late, self._steps_to_go, self._steps = None, 1, 0
        self._since_s = self._clock()

    def late(self, is_late: Callable[[], bool]) -> bool:
        """Return whether the first process's time is up, as of the last agreement."""
        if self._late is None:
            self._late = self.from_first(is_late())
        return self._late

    def agreed_loss(self, loss: float | None, is_late: Callable[[], bool]) -> float | None:
        """Return the mean loss of all processes after the steps that the first process chose, else None."""
        self._steps += 1
        self._steps_to_go -= 1
        if self._steps_to_go:
            return None
        first = self.rank == 0
        known = loss is not None
        numbers = [
            loss or 0.0,
            float(known),
            float(first and is_late()),
            float(self._next_interval() * first),
        ]
        total, losses, late, steps = self.sum(torch.tensor(numbers, dtype=torch.float64)).tolist()
        self._late, self._steps_to_go = late > 0, int(steps)
        return total / losses if losses else None

    def from_first(self, decision: Decision) -> Decision:
        """Return what the first process has decided."""
        decisions: list[Any] = [decision if self.rank == 0 else None]
        dist.broadcast_object_list(decisions, device=torch.device("cpu"))
        decided: Decision = decisions[0]
        return decided

    def before_evaluation(self, model: nn.Module) -> None:
        """Give all processes the same buffers."""
        same_buffers(model)

    def communication(self, model: nn.Module) -> Communication | None:
        """Return how long this process communicated. None with fsdp, which measures nothing."""
        if self._ddp is None:
            return None
        gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        return communication_of(self._ddp._get_ddp_logging_data(), gradients)

    def _next_interval(self) -> int:
        """Return after how many steps to agree again, by the steps' times so far."""
        step_s = (self._clock() - self._since_s) / self._steps
        return max(1, min(_AGREE_EVERY_STEPS, int(_AGREE_EVERY_S / max(step_s, 1e-6))))


def no_buffers() -> str:
    """Return the argument that keeps DistributedDataParallel from sending buffers at each step, by its release."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


def _has_unused(model: nn.Module, batches: Batches, loss_fn: LossFunction) -> bool:
    """Return whether a parameter gets no gradient, by two samples that leave no trace."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    x, y = next(batches.epoch(0))
    with _untouched(model, x.device):
        gradients = torch.autograd.grad(loss_fn(model(x[:2]), y[:2]), parameters, allow_unused=True)
    return any(gradient is None for gradient in gradients)


def _called_where_it_is(model: nn.Module, x: Tensor) -> set[nn.Module]:
    """Return the modules that a forward calls, without bringing the model to the device of the samples if it can be."""
    home = next(model.parameters()).device
    if home != x.device:
        try:
            return called_modules(model, x.to(home))
        except Exception:  # a person's model, which may run on its device alone
            model.to(x.device)
    return called_modules(model, x)


def called_modules(model: nn.Module, x: Tensor) -> set[nn.Module]:
    """Return the modules that a forward calls. It leaves no trace, and makes no gradients of whole parameters.

    Args:
        model: still whole.
        x: some samples.
    """
    called: set[nn.Module] = set()
    with _untouched(model, x.device), ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            handle = module.register_forward_pre_hook(lambda module, _: called.add(module))
            hooks.callback(handle.remove)
        model(x)
    return called


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put back buffers and random states."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), restored(model.named_buffers):
        yield


@contextmanager
def gradients_stay(model: Any) -> Iterator[None]:
    """Let sharded parameters keep each process's own gradients."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
