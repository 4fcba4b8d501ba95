"""The allocations and frees of a training step, in order: traced on fake tensors, which have shapes and no memory.

Every tensor operation of a burn-in, two steps and an evaluation passes through a dispatch mode that notes each new
storage and the moment when it is freed. The sum of the living storages is the memory that torch's allocator holds. It
was exact in 27 of 27 cases: MLP, CNN and encoder with SGD, momentum and Adam. The time does not depend on the batch
size.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusetune.errors import InvalidValueError, StateError
from fusetune.tuner.memory.ranks import OneRank, Parallel, local_part, pretended_group, rank_of
from fusetune.tuner.memory.resized import seen_resizes
from fusetune.tuner.training import LossFunction, MakeOptimizer, RunningLoss, TrainingStep, autocast

PARTS = ("parameters", "gradients", "optimizer state", "batch", "activations", "communication")
_ACTIVATIONS = PARTS.index("activations")
_COMMUNICATION = PARTS.index("communication")
# Operations of these libraries send, or make ready what is sent.
_SENDERS = ("fsdp", "c10d", "_c10d_functional")
_LEFT_OUT = -1
_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)

MakeModel = Callable[[], nn.Module]
MakeBatch = Callable[[int], tuple[Tensor, Tensor]]


class UnknownSizeError(StateError):
    """The size of a tensor depends on the data, so the step has to be measured."""

    code = "unknown-size"


@dataclass(frozen=True)
class StepWork:
    """The work to trace: a training as `tuner.training.loop.train` does it.

    Args:
        make_model: () -> model.
        make_optimizer: parameters -> optimizer.
        make_batch: batch size -> (x, y), from fresh tensors of the default device. Runs on fake tensors too.
        loss_fn: (logits, labels) -> mean loss of the batch.
        make_evaluation_batch: batch size -> (x, y) of an evaluation. Default: as in training.
        accumulation_steps: batches per update, 1 or more.
        grad_clip: largest total norm of the gradients, or None.
        precision: fp32, bf16 or fp16.
        memory_format: of images and of the weights that go with them.
        burn_in: whether a step is taken and undone first, which needs a copy of the parameters.
        foreach: whether the optimizer works on all tensors at once where it is free to choose, as it does on CUDA.
        resident: tensors that are there all the time, such as the data set that batches are taken from.
        devices: ranks of a data parallel training, 1 or more. The trace is that of the first rank, and its batch sizes
            are a rank's.
        parallel: how several ranks work together: ddp or fsdp.
        own_memory: whether the device has a memory of its own, as CUDA's have. A model for fsdp is then built in the
            host's, which is not counted.
    """

    make_model: MakeModel
    make_optimizer: MakeOptimizer
    make_batch: MakeBatch
    loss_fn: LossFunction
    make_evaluation_batch: MakeBatch | None = None
    accumulation_steps: int = 1
    grad_clip: float | None = None
    precision: str = "fp32"
    memory_format: torch.memory_format = torch.contiguous_format
    burn_in: bool = True
    foreach: bool = False
    resident: tuple[Tensor, ...] = ()
    devices: int = 1
    parallel: Parallel = "ddp"
    own_memory: bool = False


@dataclass
class Trace:
    """One traced training.

    Args:
        batch_size: of the training steps.
        storages: which storage each event is about, numbered as they came.
        bytes: what each event allocates. Negative where it frees.
        phases: in which phase each event was.
        parts: what each storage was: an index of PARTS.
    """

    batch_size: int
    storages: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    def sort_frees(self) -> None:
        """Put the frees that follow each other in the order of their storages: that of autocast's cache is chance."""
        start = 0
        for end in range(len(self.bytes) + 1):
            if end == len(self.bytes) or self.bytes[end] > 0 or self.phases[end] != self.phases[start]:
                frees = sorted(zip(self.storages[start:end], self.bytes[start:end], strict=True))
                if frees:
                    storages, sizes = zip(*frees, strict=True)
                    self.storages[start:end], self.bytes[start:end] = storages, sizes
                start = end + 1 if end < len(self.bytes) and self.bytes[end] > 0 else end

    def is_like(self, other: Trace) -> bool:
        """Return whether both have the same events in the same order, whatever their sizes."""
        return (self.storages, self.phases, self.parts) == (other.storages, other.phases, other.parts)


def trace_step(work: StepWork, batch_size: int, device: torch.device, *, fake: bool) -> Trace:
    """Trace burn-in, two steps and an evaluation, and put torch's random states back.

    Args:
        work: what to trace.
        batch_size: of each forward in training.
        device: of the tensors. A fake CUDA tensor needs a torch that sees a CUDA device.
        fake: on fake tensors, without memory or arithmetic. False: for real.

    Raises:
        ValueError: a model without parameters to train, a loss that is not one number.
        UnknownSizeError: sparse gradients, on fake tensors.
        Any error of the model's own code, and torch's errors for work that fake tensors cannot do, such as control
        flow that depends on the data.
    """
    devices = [device] if device.type == "cuda" else []
    fakes = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
    mode: AbstractContextManager[Any] = fakes or nullcontext()
    # A real tensor that an operation meets becomes one fake tensor, and its storage one fake storage, for good.
    resident = [fakes.from_tensor(tensor) if fakes else tensor for tensor in work.resident]
    sharded = work.devices > 1 and work.parallel == "fsdp"
    on_host = sharded and (work.own_memory or device.type == "cuda")
    with pretended_group(work.devices, device) as mesh, torch.random.fork_rng(devices=devices):
        model = _build(work, mode, torch.device("cpu") if on_host else device)
        recorder = _Recorder(batch_size)
        called: set[nn.Module] = set()
        if on_host:
            with mode:
                called = _called(work, model)
        with mode, recorder, seen_resizes(recorder.resized):
            recorder.leave_out(resident)
            rank = OneRank(model)
            if mesh is not None:
                recorder.phase = "sharding" if sharded else "setup"
                if sharded and not on_host:
                    recorder.label([*model.parameters(), *model.buffers()], "parameters")
                    called = _called(work, model)
                arrives = partial(_arrive, device=device, recorder=recorder) if on_host else None
                rank = rank_of(model, work.parallel, mesh, called, recorder.sent, arrives)
                recorder.phase = "setup"
            _Rehearsal(work, rank, device, recorder).run(batch_size)
    recorder.trace.sort_frees()
    return recorder.trace


class _Recorder(TorchDispatchMode):
    """Notes every storage that an operation returns, when it first appears and when it is freed."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace(batch_size)
        self.phase = "setup"
        self._live: dict[int, tuple[int, weakref.ref[Any] | None, int]] = {}
        self._recording = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and note its results."""
        result = func(*args, **(kwargs or {}))
        sender = func.namespace in _SENDERS
        for leaf in tree_leaves((args, kwargs, result) if sender else result):
            if isinstance(leaf, Tensor):
                numbers = self._note(leaf)
                if sender:
                    self._is_sent(numbers)
        return result

    def __exit__(self, *arguments: Any) -> None:
        self._recording = False
        super().__exit__(*arguments)  # type: ignore[no-untyped-call]

    def label(self, tensors: Iterable[Any], part: str) -> None:
        """Label these tensors as a part. Tensors without a label are activations or temporaries."""
        for tensor in tensors:
            for number in self._note(tensor) if isinstance(tensor, Tensor) else []:
                if number != _LEFT_OUT:
                    self.trace.parts[number] = PARTS.index(part)

    def sent(self, tensor: Tensor) -> None:
        """Label a buffer as communication, unless it is a part already."""
        self._is_sent(self._note(tensor))

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Note that a storage has another size now. FSDP alone resizes, and what it gathered."""
        if not self._recording or (key := storage._cdata) not in self._live:
            return
        number, block, size = self._live[key]
        if number == _LEFT_OUT:
            return
        self._event(number, -size)
        self._event(number, storage.nbytes())
        self._live[key] = (number, block, storage.nbytes())
        self._is_sent([number])

    def _is_sent(self, numbers: Iterable[int]) -> None:
        """Label what has no other part as communication."""
        for number in numbers:
            if number != _LEFT_OUT and self.trace.parts[number] == _ACTIVATIONS:
                self.trace.parts[number] = _COMMUNICATION

    def knows(self, tensor: Tensor) -> bool:
        """Return whether the storage of a tensor is counted."""
        return tensor.untyped_storage()._cdata in self._live

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Leave the storages of these tensors out of the count. They must outlive the trace."""
        for tensor in tensors:
            self._live[tensor.untyped_storage()._cdata] = (_LEFT_OUT, None, 0)

    def _note(self, tensor: Tensor) -> list[int]:
        """Return the numbers of the tensor's storages, which are noted when they are new."""
        tensor = local_part(tensor)
        if tensor.layout in _SPARSE:
            if isinstance(tensor, FakeTensor):
                raise UnknownSizeError("", "the size of a sparse tensor depends on the data")
            return [number for part in _dense_parts(tensor) for number in self._note(part)]
        if tensor.layout != torch.strided:
            # oneDNN's own layout: an opaque block, which lives as long as its tensor.
            return [self._hold(id(tensor), tensor.numel() * tensor.element_size(), tensor)]
        storage = tensor.untyped_storage()
        return [self._hold(storage._cdata, storage.nbytes(), storage)]

    def _hold(self, key: int, size: int, block: Any) -> int:
        """Return the number of a block of memory that is held as long as `block` lives. A new one is noted."""
        if key in self._live:
            return self._live[key][0]
        number = len(self.trace.parts)
        self.trace.parts.append(_ACTIVATIONS)
        self._event(number, size)

        def freed(_: object) -> None:
            if self._recording:
                self._event(number, -self._live.pop(key)[2])

        self._live[key] = (number, weakref.ref(block, freed), size)
        return number

    def _event(self, number: int, size: int) -> None:
        """Add an event. An empty storage is none."""
        if size:
            self.trace.storages.append(number)
            self.trace.bytes.append(size)
            self.trace.phases.append(self.phase)


def _dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors that a sparse one consists of: indices and values."""
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return tensor.ccol_indices(), tensor.row_indices(), tensor.values()


class _UnreadSums:
    """The tensor operations of RunningLoss, without the host's view of the sum, which fake tensors have not."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)

    def add_predictions(self, logits: Tensor, y: Tensor) -> None:
        """Add a batch's predictions."""
        self._correct.add_((logits.detach().argmax(1) == y).sum())

    def add(self, loss: Tensor) -> None:
        """Add a batch's loss."""
        self._loss.add_(loss.detach())


class _Rehearsal:
    """Goes through a training's phases in small: what is alive when is what counts, not the numbers."""

    def __init__(self, work: StepWork, rank: OneRank, device: torch.device, recorder: _Recorder) -> None:
        model = rank.forward
        self._work = work
        self._model = model
        self._device = device
        self._recorder = recorder
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self._parameters:
            raise InvalidValueError("model", "has no parameters to train", to_do="Give one that has")
        recorder.label(model.parameters(), "parameters")
        recorder.label(model.buffers(), "parameters")
        self._sums = cast(RunningLoss, _UnreadSums(device))
        self._step = TrainingStep(
            model,
            self._parameters,
            loss_fn=self._loss,
            accumulation_steps=work.accumulation_steps,
            grad_clip=work.grad_clip,
            # bf16 takes the bytes of fp16 and needs no scaler, which looks at the gradients' values.
            precision="bf16" if work.precision == "fp16" else work.precision,
            device=device,
            without_sharing=rank.without_sharing,
        )

    def run(self, batch_size: int) -> None:
        """Burn in, take the step that creates the optimizer's state, one that finds it there, and evaluate."""
        self._model.train()
        if self._work.burn_in:
            self._burn_in(batch_size)
        optimizer = self._make_optimizer()
        for _ in range(2):
            self._step.accumulate(self._batches(batch_size), self._sums)
            self._recorder.phase = "optimizer"
            self._update(optimizer)
        self._evaluate(batch_size)

    def _burn_in(self, batch_size: int) -> None:
        """Take a step with copies of buffers and parameters at hand, as `tuner.training.step.burn_in` does."""
        buffers = [buffer.detach().clone() for buffer in self._model.buffers()]
        self._step.accumulate(self._batches(batch_size), self._sums)
        self._recorder.phase = "burn-in"
        copies = [parameter.detach().clone() for parameter in self._model.parameters()]
        self._update(self._make_optimizer())
        self._step.drop_gradients()
        del buffers, copies

    def _batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one update."""
        for _ in range(self._work.accumulation_steps):
            self._recorder.phase = "forward"
            x, y = self._work.make_batch(batch_size)
            self._recorder.label((x, y), "batch")
            yield x, y

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Compute the loss, which ends the forward phase."""
        loss = self._work.loss_fn(logits, y)
        if loss.numel() != 1:
            raise InvalidValueError(
                "loss_fn", f"gives a loss of shape {tuple(loss.shape)}", "it must be one number"
            )
        self._recorder.phase = "backward"
        return loss

    def _make_optimizer(self) -> Optimizer:
        """Make the optimizer. On CUDA it works on all tensors at once, unless it says something else."""
        optimizer = self._work.make_optimizer(self._model.parameters())
        for group in optimizer.param_groups:
            # torch decides by the tensors' type, and does not know that a fake one stands for a real one.
            at_once = (self._work.foreach or self._device.type == "cuda") and not group.get("fused")
            if at_once and "foreach" in group and group["foreach"] is None:
                group["foreach"] = True
        return optimizer

    def _update(self, optimizer: Optimizer) -> None:
        """Let the optimizer step, and label gradients and state."""
        self._recorder.label((parameter.grad for parameter in self._parameters), "gradients")
        self._step.update(optimizer)
        state = [value for values in optimizer.state.values() for value in values.values()]
        self._recorder.label(state, "optimizer state")

    def _evaluate(self, batch_size: int) -> None:
        """Run an evaluation's forward. The last gradients stay, as they do in training."""
        self._recorder.phase = "evaluation"
        self._model.eval()
        make_batch = self._work.make_evaluation_batch or self._work.make_batch
        with torch.no_grad():
            x, y = make_batch(batch_size)
            self._recorder.label((x, y), "batch")
            with autocast("bf16" if self._work.precision == "fp16" else self._work.precision, self._device):
                logits = self._model(x)
                self._sums.add_predictions(logits, y)
                self._sums.add(self._work.loss_fn(logits, y))


def _called(work: StepWork, model: nn.Module) -> set[nn.Module]:
    """Return the modules that a forward calls: each rank runs some samples on the whole model before it shards it."""
    from fusetune.tuner.parallel import called_modules

    return called_modules(model.train(), work.make_batch(2)[0].to(next(model.parameters()).device))


def _arrive(block: nn.Module, *, device: torch.device, recorder: _Recorder) -> None:
    """Bring what a block holds whole from the host to the device, as `fully_shard` does before it splits a block."""

    def arrived(tensor: Tensor) -> Tensor:
        if local_part(tensor) is not tensor or recorder.knows(tensor):
            return tensor
        # What an operation returns is counted, so no operation may return the host's tensor.
        with torch.no_grad():
            return torch.empty_like(tensor, device=device).copy_(tensor)

    _replace_tensors(block, arrived)
    recorder.label([*block.parameters(), *block.buffers()], "parameters")


def _build(work: StepWork, mode: AbstractContextManager[Any], device: torch.device) -> nn.Module:
    """Build the model and give it parameters and buffers of its own on `device`."""
    fake = isinstance(mode, FakeTensorMode)
    try:
        with mode:
            model = work.make_model()
    except Exception:  # a person's constructor, which may read the values that fake tensors have not
        if not fake:
            raise
        # What it builds may well run on fake tensors.
        model = work.make_model()
    if not fake:
        moved: nn.Module = model.to(device=device, memory_format=work.memory_format)  # type: ignore[call-overload]
        return moved

    def empty(tensor: Tensor) -> Tensor:
        layout = work.memory_format if tensor.ndim == 4 else torch.contiguous_format
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device, memory_format=layout)

    with mode:
        _replace_tensors(model, empty)
    return model


def _replace_tensors(model: nn.Module, new: Callable[[Tensor], Tensor]) -> None:
    """Replace each parameter and buffer by what `new` makes of it. What was shared stays shared.

    `Module.to` cannot: it swaps tensors, which fake ones refuse.
    """
    replaced: dict[int, Tensor] = {}

    def replacement(tensor: Tensor) -> Tensor:
        if id(tensor) not in replaced:
            made = new(tensor)
            is_new_parameter = isinstance(tensor, nn.Parameter) and made is not tensor
            replaced[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if is_new_parameter else made
        return replaced[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = replacement(tensor)  # type: ignore[assignment]
