"""The peak memory of a training, predicted without running it: as a function of the batch size, from two traces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tuner.evaluation import LossFunction
from tuner.memory_lines import RESIDENT, Line, MemoryPrediction, Moment, StepMemory
from tuner.memory_trace import PARTS, MakeBatch, MakeModel, StepWork, Trace, trace_step
from tuner.training_step import MakeOptimizer

# Two lines need two sizes; a third shows whether they are lines. Below some tens of samples strides and kernels are
# not those of a large batch. Measured in place of traced, the sizes are small, for they take memory.
TRACED_SIZES = (16, 48, 128)
MEASURED_SIZES = (4, 8, 16)


def trace_memory(
    work: StepWork,
    *,
    device: torch.device | str = "cpu",
    resident_bytes: int = 0,
    evaluation_factor: int = 1,
    evaluation_samples: int | None = None,
    most_samples: int | None = None,
) -> StepMemory:
    """Trace a training at two batch sizes and return its memory as a function of the batch size.

    Traced are a burn-in, a step that creates the optimizer's state, one that finds it there, and an evaluation, on fake
    tensors: nothing is computed and no memory taken, whatever the batch size. Work that fake tensors cannot do is
    measured instead, on batches of a few samples, and the note says why. A third size shows whether the lines hold.

    Args:
        work: the training, see `tuner.memory_trace.StepWork`.
        device: where it will run; for `cuda` torch must see a CUDA device.
        resident_bytes: what is held all the time besides `work.resident`.
        evaluation_factor: how many training batches an evaluation takes at once.
        evaluation_samples: samples of the largest set that is evaluated; None: it fills every batch.
        most_samples: the largest batch that `work` can make, 6 or more; None: any.

    Raises:
        ValueError: a model without parameters to train, a loss that is no scalar.
        Whatever the model raises on real tensors.
    """
    target = torch.device(device)
    method, note = "traced", ""
    resident_bytes += _storage_bytes(work.resident)
    try:
        low, high, check = (
            trace_step(work, size, target, fake=True) for size in _sizes(TRACED_SIZES, most_samples)
        )
    except Exception as error:
        method, note = "measured", f"cannot be traced: {_one_line(error)}"
        low, high, check = (
            trace_step(work, size, target, fake=False) for size in _sizes(MEASURED_SIZES, most_samples)
        )
    alike = low.is_like(high)
    moments = _moments(low, high) if alike else _phase_lines(low, high)
    resident = Line(float(resident_bytes), 0.0)
    memory = StepMemory(
        tuple(Moment(moment.phase, {**moment.parts, RESIDENT: resident}) for moment in moments),
        method,
        note,
        traces=(low, high) if alike else None,
    )
    deviation = _deviation(memory, check, resident_bytes)
    if abs(deviation) > 0.01:
        curved = f"not linear in the batch size: {deviation:+.0%} at {check.batch_size} samples"
        memory = replace(memory, note="; ".join(filter(None, [note, curved])))
    return replace(memory, evaluation_factor=evaluation_factor, evaluation_samples=evaluation_samples)


def predict_peak(
    make_model: MakeModel,
    make_optimizer: MakeOptimizer,
    make_batch: MakeBatch,
    loss_fn: LossFunction,
    batch_size: int,
    *,
    make_evaluation_batch: MakeBatch | None = None,
    device: torch.device | str = "cpu",
    accumulation_steps: int = 1,
    grad_clip: float | None = None,
    precision: str = "fp32",
    memory_format: torch.memory_format = torch.contiguous_format,
    burn_in: bool = True,
    resident_bytes: int = 0,
    evaluation_factor: int = 1,
    evaluation_samples: int | None = None,
) -> MemoryPrediction:
    """Predict the peak memory of a training without running it.

        peak(b) = max_m (fixed_m + per_sample_m * b)

    Args:
        make_model: () -> model.
        make_optimizer: parameters -> optimizer.
        make_batch: batch size -> (x, y), from fresh tensors.
        loss_fn: (logits, labels) -> mean loss of the batch.
        batch_size: samples in a forward, 1 or more.
        make_evaluation_batch: batch size -> (x, y) of an evaluation; default: as in training.
        device: where it will run.
        accumulation_steps: batches per update.
        grad_clip: largest total norm of the gradients, or None.
        precision: fp32, bf16 or fp16.
        memory_format: of images and of the weights that go with them.
        burn_in: whether a step is taken and undone first, as `tuner.training.train` does.
        resident_bytes: what is held all the time besides, such as the data set.
        evaluation_factor: how many training batches an evaluation takes at once.
        evaluation_samples: samples of the largest set that is evaluated; None: it fills every batch.

    Memory: none, unless the model must be measured (`method` says so): then that of 16 samples.

    Raises:
        ValueError: a batch size below 1, a model without parameters to train, a loss that is no scalar.

    Example:
        >>> from torch import nn
        >>> prediction = predict_peak(
        ...     lambda: nn.Linear(100, 10), lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        ...     lambda size: (torch.zeros(size, 100), torch.zeros(size, dtype=torch.long)),
        ...     nn.functional.cross_entropy, batch_size=1000)
        >>> prediction.parts["parameters"], prediction.parts["batch"], prediction.method
        (4040, 408000, 'traced')
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} must be 1 or more")
    work = StepWork(
        make_model,
        make_optimizer,
        make_batch,
        loss_fn,
        make_evaluation_batch,
        accumulation_steps,
        grad_clip,
        precision,
        memory_format,
        burn_in,
    )
    memory = trace_memory(
        work,
        device=device,
        resident_bytes=resident_bytes,
        evaluation_factor=evaluation_factor,
        evaluation_samples=evaluation_samples,
    )
    return memory.at(batch_size)


def _sizes(sizes: tuple[int, int, int], most_samples: int | None) -> tuple[int, int, int]:
    """Return the sizes to trace, smaller ones where there are not so many samples."""
    if most_samples is None or most_samples >= sizes[-1]:
        return sizes
    return max(2, most_samples // 8), max(3, most_samples // 3), max(4, most_samples)


def _storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the tensors' storages, each counted once."""
    storages = {storage._cdata: storage.nbytes() for storage in map(torch.Tensor.untyped_storage, tensors)}
    return sum(storages.values())


def _held(trace: Trace) -> np.ndarray[Any, Any]:
    """Return the bytes that each part holds after each event: (parts, events)."""
    kinds = np.array(trace.parts)[trace.storages]
    changes = np.array(trace.bytes, dtype=np.int64)
    return np.stack([np.cumsum(np.where(kinds == part, changes, 0)) for part in range(len(PARTS))])


def _moments(low: Trace, high: Trace) -> list[Moment]:
    """Return, of two traces with the same events, the moments that no other of their phase exceeds everywhere."""
    held = _held(low)
    slopes = (_held(high) - held) / (high.batch_size - low.batch_size)
    fixed = held - slopes * low.batch_size
    phases = np.array(low.phases)
    moments = []
    for phase in dict.fromkeys(low.phases):
        places = np.flatnonzero(phases == phase)
        # From the steepest on, a line counts only where it starts higher than all before it.
        totals = [(float(slopes[:, place].sum()), float(fixed[:, place].sum()), place) for place in places]
        highest = -np.inf
        for _, start, place in sorted(totals, key=lambda total: (-total[0], -total[1])):
            if start > highest:
                highest = start
                moments.append(_moment(phase, fixed[:, place], slopes[:, place]))
    return [moment for moment in moments if moment.phase != "setup"]


def _phase_lines(low: Trace, high: Trace) -> list[Moment]:
    """Return one line for each phase, through its peaks in two traces whose events differ."""
    moments = []
    for phase in dict.fromkeys(low.phases):
        peaks = []
        for trace in (low, high):
            held = _held(trace)[:, np.array(trace.phases) == phase]
            peaks.append(held[:, held.sum(0).argmax()])
        slopes = (peaks[1] - peaks[0]) / (high.batch_size - low.batch_size)
        moments.append(_moment(phase, peaks[0] - slopes * low.batch_size, slopes))
    return [moment for moment in moments if moment.phase != "setup"]


def _moment(phase: str, fixed: np.ndarray[Any, Any], slopes: np.ndarray[Any, Any]) -> Moment:
    """Put a moment's numbers into a Moment."""
    lines = zip(PARTS, fixed.tolist(), slopes.tolist(), strict=True)
    return Moment(phase, {name: Line(start, slope) for name, start, slope in lines})


def _deviation(memory: StepMemory, check: Trace, resident_bytes: int) -> float:
    """Return by how much a third trace's peak differs from the lines, relative to itself."""
    peak = int(_held(check).sum(0).max()) + resident_bytes
    return peak / memory.at(check.batch_size).peak_bytes - 1


def _one_line(error: BaseException) -> str:
    """Return the first line of an error's text, with its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"
