"""The peak memory of a training, predicted without running it: as a function of the batch size, from two traces.

Two traces give a line. Where a third is off the line, a further one gives the term in the square of the batch size.
If a real small step takes other memory than its trace, the training is measured instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from fusetune.errors import InvalidValueError
from fusetune.tuner.memory.lines import RESIDENT, Line, MemoryPrediction, Moment, StepMemory
from fusetune.tuner.memory.trace import PARTS, StepWork, Trace, trace_step

Method = Literal["traced", "measured"]

# Two lines need two sizes. A third shows whether they are lines. Below some tens of samples strides and kernels are
# not those of a large batch. Measured in place of traced, the sizes are small, for they take memory.
TRACED_SIZES = (16, 48, 128)
MEASURED_SIZES = (4, 8, 16)
# Of the growth between the sizes, what two traces may be wrong by before a square is looked for, at sizes far apart.
_STRAIGHT = 0.005
# Samples: more than any device holds.
_LARGEST = 2**40
_COMMUNICATION = PARTS.index("communication")
_CURVED_SIZE: dict[Method, int] = {"traced": 1024, "measured": 64}
# A step for real takes other memory than its trace says if they differ by more than this share and these bytes.
_AGREE, _AGREE_BYTES = 0.03, 64 * 2**10
# No step of more is made for real only to check or replace a trace.
_SMALL_STEP_BYTES = 2**30


def trace_memory(
    work: StepWork,
    *,
    device: torch.device | str = "cpu",
    resident_bytes: int = 0,
    evaluation_factor: int = 1,
    evaluation_samples: int | None = None,
    most_samples: int | None = None,
    compare: bool = True,
) -> StepMemory:
    """Trace a training at two batch sizes and return its memory as a function of the batch size.

    With `work.devices` above 1 it is the memory of one rank as a function of that rank's batch size. The other ranks
    are pretended, so one process without any of the devices is enough.

    Traced are a burn-in, a step that creates the optimizer's state, one that finds it there, and an evaluation. They
    run on fake tensors, so nothing is computed and no memory taken, whatever the batch size. Work that fake tensors
    cannot do is measured on batches of a few samples, and the note gives the reason. A third size shows whether the
    lines hold. If not, a term in the square of the batch size is traced.

    On a CPU the smallest size also runs for real, because some work takes another path on fake tensors. The LSTM of
    oneDNN, for one, keeps six times as much as the traced one. If the real step takes other memory, the training is
    measured.

    Args:
        work: the training, see `tuner.memory.trace.StepWork`.
        device: where it will run. For `cuda` torch must see a CUDA device.
        resident_bytes: what is held all the time besides `work.resident`.
        evaluation_factor: how many training batches an evaluation takes at once.
        evaluation_samples: samples of the largest set that is evaluated. None: it fills every batch.
        most_samples: the largest batch that `work` can make, 6 or more. None: any.
        compare: whether one small step may be made for real on a CPU. False for a device that is not there.

    Raises:
        ValueError: a model without parameters to train, a loss that is no scalar.
        Any error that the model raises on real tensors.
    """
    tracer = _Tracer(work, torch.device(device), resident_bytes + _storage_bytes(work.resident), most_samples)
    try:
        memory = tracer.memory("traced", TRACED_SIZES)
    except Exception as error:  # a person's model, which may read the values that fake tensors have not
        memory = tracer.memory("measured", MEASURED_SIZES, f"cannot be traced: {_one_line(error)}")
    if memory.method == "traced" and tracer.device.type == "cpu" and compare:
        memory = tracer.compared(memory)
    return replace(memory, evaluation_factor=evaluation_factor, evaluation_samples=evaluation_samples)


def predict_peak(
    work: StepWork,
    batch_size: int,
    *,
    device: torch.device | str = "cpu",
    resident_bytes: int = 0,
    evaluation_factor: int = 1,
    evaluation_samples: int | None = None,
) -> MemoryPrediction:
    """Predict the peak memory of a training without running it.

        peak(b) = max_m (fixed_m + per_sample_m * b + per_square_m * b^2)

    Args:
        work: the training, see `tuner.memory.trace.StepWork`.
        batch_size: samples in a forward, 1 or more.
        device: where it will run.
        resident_bytes: what is held all the time besides `work.resident`.
        evaluation_factor: how many training batches an evaluation takes at once.
        evaluation_samples: samples of the largest set that is evaluated. None: it fills every batch.

    Memory: that of 16 samples on a CPU, where that is below 1 GiB, to see that tracing is right. Else none, unless the
    model must be measured (`method` says so).

    Raises:
        ValueError: a batch size below 1, a model without parameters to train, a loss that is no scalar.

    Example:
        >>> from torch import nn
        >>> work = StepWork(
        ...     make_model=lambda: nn.Linear(100, 10),
        ...     make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        ...     make_batch=lambda size: (torch.zeros(size, 100), torch.zeros(size, dtype=torch.long)),
        ...     loss_fn=nn.functional.cross_entropy)
        >>> prediction = predict_peak(work, batch_size=1000)
        >>> prediction.parts["parameters"], prediction.parts["batch"], prediction.method
        (4040, 408000, 'traced')
    """
    if batch_size < 1:
        raise InvalidValueError("batch_size", f"{batch_size} must be 1 or more")
    memory = trace_memory(
        work,
        device=device,
        resident_bytes=resident_bytes,
        evaluation_factor=evaluation_factor,
        evaluation_samples=evaluation_samples,
    )
    return memory.at(batch_size)


@dataclass(frozen=True)
class _Tracer:
    """Traces a training at some batch sizes, and puts a curve through them.

    Args:
        work: the training.
        device: where it will run.
        resident_bytes: what is held all the time.
        most_samples: the largest batch that there is, or None.
    """

    work: StepWork
    device: torch.device
    resident_bytes: int
    most_samples: int | None

    def memory(self, method: Method, sizes: tuple[int, int, int], note: str = "") -> StepMemory:
        """Return the memory as lines through the first two sizes, or as curves where the third is off the lines."""
        low, high, check = (self._trace(method, size) for size in _sizes(sizes, self.most_samples))
        memory = self._through(method, note, low, high)
        if _strays(memory, check, self.resident_bytes) <= _STRAIGHT:
            return memory
        deviation = _deviation(memory, check, self.resident_bytes)
        curved = "not linear in the batch size"
        if abs(deviation) > 0.01:
            curved += f": {deviation:+.0%} at {check.batch_size} samples"
        far_size = max(check.batch_size, min(_CURVED_SIZE[method], self.most_samples or _LARGEST))
        between, far = high, check
        if far_size > check.batch_size:
            between = self._trace(method, (check.batch_size + far_size) // 2)
            far = self._trace(method, far_size)
        square = self._through(method, f"{curved}; a square is in it", low, high, far)
        if _strays(square, between, self.resident_bytes) > _STRAIGHT:
            # No parabola either: the largest traced sizes predict larger batches best.
            square = self._through(method, curved, between, far)
        return replace(square, note="; ".join(filter(None, [note, square.note])))

    def compared(self, memory: StepMemory) -> StepMemory:
        """Make a small step for real, and measure the training where that takes other memory than its trace."""
        size = _sizes(TRACED_SIZES, self.most_samples)[0]
        expected_bytes = memory.at(size).peak_bytes
        if expected_bytes >= _SMALL_STEP_BYTES:
            return memory
        try:
            taken_bytes = _peak(self._trace("measured", size)) + self.resident_bytes
        except Exception as error:  # a person's model
            note = f"no step could be made for real: {_one_line(error)}"
            return replace(memory, note="; ".join(filter(None, [memory.note, note])))
        if abs(taken_bytes - expected_bytes) <= _AGREE * expected_bytes + _AGREE_BYTES:
            return memory
        why = f"a step of {size} samples takes {taken_bytes:,} bytes, not the {expected_bytes:,} of its trace"
        little = taken_bytes * TRACED_SIZES[-1] / size < _SMALL_STEP_BYTES
        return self.memory("measured", TRACED_SIZES if little else MEASURED_SIZES, why)

    def _trace(self, method: Method, batch_size: int) -> Trace:
        return trace_step(self.work, batch_size, self.device, fake=method == "traced")

    def _through(self, method: Method, note: str, *traces: Trace) -> StepMemory:
        return _through(traces, method, note, self.resident_bytes)


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


def _through(traces: tuple[Trace, ...], method: str, note: str, resident_bytes: int) -> StepMemory:
    """Return the memory as lines through two traces, or as curves through three."""
    alike = all(traces[0].is_like(trace) for trace in traces[1:])
    moments = _moments(traces) if alike else _phase_lines(traces)
    resident = Line(float(resident_bytes), 0.0)
    return StepMemory(
        tuple(
            Moment(moment.phase, {**moment.parts, RESIDENT: resident})
            for moment in moments
            if moment.phase != "setup"
        ),
        method,
        note,
        traces=traces if alike else None,
    )


def _moments(traces: tuple[Trace, ...]) -> list[Moment]:
    """Return, of traces with the same events, the moments that no other of their phase exceeds everywhere."""
    curves = _curves([_held(trace) for trace in traces], [trace.batch_size for trace in traces])
    phases = np.array(traces[0].phases)
    moments = []
    for phase in dict.fromkeys(traces[0].phases):
        places = np.flatnonzero(phases == phase)
        totals = curves[:, :, places].sum(1)
        highest = _highest_curves(totals) if totals[2].any() else _highest_lines(totals)
        moments += [_moment(phase, curves[:, :, places[index]]) for index in highest]
    return moments


def _highest_lines(totals: np.ndarray[Any, Any]) -> list[int]:
    """Return which lines (columns of start, slope and 0) are the highest for some batch size."""
    fixed, slopes = totals[0], totals[1]
    # From the steepest on, a line counts only where it starts higher than all before it.
    found: list[int] = []
    highest = -np.inf
    for index in np.lexsort((-fixed, -slopes)).tolist():
        if fixed[index] > highest:
            highest = fixed[index]
            found.append(index)
    return found


def _highest_curves(totals: np.ndarray[Any, Any]) -> list[int]:
    """Return which curves (columns of coefficients) are the highest for some batch size, on a fine grid of them."""
    sizes = np.geomspace(1, _LARGEST, 321)
    powers = np.stack([sizes**exponent for exponent in range(3)])
    return sorted(set(np.einsum("ce,cs->se", totals, powers).argmax(1).tolist()))


def _phase_lines(traces: tuple[Trace, ...]) -> list[Moment]:
    """Return one line for each phase, through its peaks in traces whose events differ."""
    moments = []
    for phase in dict.fromkeys(traces[0].phases):
        peaks = []
        for trace in traces:
            held = _held(trace)[:, np.array(trace.phases) == phase]
            peaks.append(held[:, [held.sum(0).argmax()]])
        curves = _curves(peaks, [trace.batch_size for trace in traces])
        moments.append(_moment(phase, curves[:, :, 0]))
    return moments


def _curves(held: list[np.ndarray[Any, Any]], sizes: list[int]) -> np.ndarray[Any, Any]:
    """Return fixed bytes, bytes per sample and per square of it, for each part and event: (3, parts, events).

    Two sizes give no square. Three give one only at events whose total bends upwards. A curve that bends downwards
    would fall in the end, so there the line through the two larger sizes counts.
    """
    slopes = (held[1] - held[0]) / (sizes[1] - sizes[0])
    squares = np.zeros_like(slopes)
    base, at = held[0], np.array(sizes[0])
    if len(held) == 3:
        later = (held[2] - held[1]) / (sizes[2] - sizes[1])
        squares = (later - slopes) / (sizes[2] - sizes[0])
        bends_up = squares.sum(0) > 0
        squares = np.where(bends_up, squares, 0.0)
        slopes = np.where(bends_up, slopes - squares * (sizes[0] + sizes[1]), later)
        base, at = np.where(bends_up, held[0], held[1]), np.where(bends_up, sizes[0], sizes[1])
    return np.stack([base - (slopes + squares * at) * at, slopes, squares])


def _moment(phase: str, curves: np.ndarray[Any, Any]) -> Moment:
    """Put a moment's numbers (3, parts) into a Moment."""
    parts = {name: Line(*curve) for name, curve in zip(PARTS, curves.T.tolist(), strict=True)}
    if not curves[:, _COMMUNICATION].any():
        del parts[PARTS[_COMMUNICATION]]
    return Moment(phase, parts)


def _strays(memory: StepMemory, check: Trace, resident_bytes: int) -> float:
    """Return by how much the peak of any phase differs from the curves, relative to the growth of that phase."""
    held, phases = _held(check).sum(0), np.array(check.phases)
    at_check, at_one = memory.at(check.batch_size).phases, memory.at(1).phases
    return max(
        abs(int(held[phases == phase].max()) + resident_bytes - expected)
        # Some numbers more or less are no curve.
        / max(expected - at_one[phase], 64 * check.batch_size)
        for phase, expected in at_check.items()
    )


def _deviation(memory: StepMemory, check: Trace, resident_bytes: int) -> float:
    """Return by how much a third trace's peak differs from the lines, relative to itself."""
    return (_peak(check) + resident_bytes) / memory.at(check.batch_size).peak_bytes - 1


def _peak(trace: Trace) -> int:
    """Return the most that a trace holds at once."""
    return int(_held(trace).sum(0).max())


def _one_line(error: BaseException) -> str:
    """Return the first line of an error's text, with its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"
