"""The memory of a training as a function of its batch size: a line for every moment that can be the peak. No torch.

    peak(b) = max over the moments m of a training of (fixed_m + per_sample_m * b + per_square_m * b^2)

Every moment has a line of its own, so the prediction is right where another moment takes over as the peak. The square
is there only where traces ask for one: for what compares the samples of a batch with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fusetune.tuner.memory.caching_allocator import Reserved, replay

if TYPE_CHECKING:
    from fusetune.tuner.memory.trace import Trace

RESIDENT = "data set"


@dataclass(frozen=True)
class Line:
    """fixed_bytes + bytes_per_sample * samples + bytes_per_square * samples^2."""

    fixed_bytes: float
    bytes_per_sample: float
    bytes_per_square: float = 0.0

    def at(self, samples: float) -> float:
        """Return the bytes for so many samples."""
        return self.fixed_bytes + (self.bytes_per_sample + self.bytes_per_square * samples) * samples


@dataclass(frozen=True)
class Moment:
    """One moment of a training that can be its peak.

    Args:
        phase: forward, backward, optimizer, burn-in or evaluation. Of FSDP also sharding, before which a rank holds
            all parameters.
        parts: what is held at that moment: parameters (with buffers), gradients, optimizer state, batch, activations
            (with all that is temporary), data set. With several devices also communication: gathered parameters and
            buffers of FSDP. The buckets of DDP are its gradients.
    """

    phase: str
    parts: Mapping[str, Line]

    @cached_property
    def total(self) -> Line:
        """The sum of the parts."""
        lines = self.parts.values()
        return Line(
            sum(line.fixed_bytes for line in lines),
            sum(line.bytes_per_sample for line in lines),
            sum(line.bytes_per_square for line in lines),
        )


@dataclass(frozen=True)
class MemoryPrediction:
    """The predicted peak of one batch size.

    Args:
        batch_size: samples in a forward.
        peak_bytes: what all tensors hold at the peak. What the allocator and libraries add is not in it.
        phase: the phase of the peak.
        parts: what holds it at the peak. They add up to `peak_bytes`.
        phases: the peak of each phase.
        method: `traced` on fake tensors, or `measured` on real ones of a few samples.
        note: why it was measured, or what keeps the prediction from being exact. Empty where nothing does.
    """

    batch_size: int
    peak_bytes: int
    phase: str
    parts: Mapping[str, int]
    phases: Mapping[str, int]
    method: str
    note: str = ""


def _lagrange(places: list[int], at: int) -> list[float]:
    """Return the weights of values at `places` in the polynomial through them, at another place."""
    return [
        math.prod((at - other) / (place - other) for other in places if other != place) for place in places
    ]


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training as a function of the batch size.

    Args:
        moments: those that are the peak of their phase for some batch size.
        method: `traced` or `measured`.
        note: see MemoryPrediction.
        evaluation_factor: batches that an evaluation takes together.
        evaluation_samples: the most samples an evaluation can have at once. None: no such bound.
        traces: the two traces, or three where there is a square, for the allocator's simulation. None once it was
            read from a record, or where the traces have different events.
    """

    moments: tuple[Moment, ...]
    method: str = "traced"
    note: str = ""
    evaluation_factor: int = 1
    evaluation_samples: int | None = None
    traces: tuple[Trace, ...] | None = None

    @property
    def resident_bytes(self) -> float:
        """The part that is held all the time: the data set."""
        return self.moments[0].parts[RESIDENT].fixed_bytes

    def at(self, batch_size: int) -> MemoryPrediction:
        """Predict the peak of a batch size, 1 or more."""
        peaks: dict[str, tuple[float, Moment]] = {}
        for moment in self.moments:
            size = moment.total.at(self._samples(moment.phase, batch_size))
            if moment.phase not in peaks or size > peaks[moment.phase][0]:
                peaks[moment.phase] = (size, moment)
        _, peak = max(peaks.values(), key=lambda item: item[0])
        samples = self._samples(peak.phase, batch_size)
        # A curve through three traces may start below nothing.
        parts = {name: max(0, round(line.at(samples))) for name, line in peak.parts.items()}
        return MemoryPrediction(
            batch_size,
            sum(parts.values()),
            peak.phase,
            parts,
            {phase: round(size) for phase, (size, _) in peaks.items()},
            self.method,
            self.note,
        )

    def reserved(self, batch_size: int, limit_bytes: int | None = None) -> Reserved | None:
        """Simulate what CUDA's caching allocator reserves, the data set first. None without traces."""
        if self.traces is None:
            return None
        return replay(self._events(self.traces, round(self.resident_bytes), batch_size), limit_bytes)

    def _events(self, traces: tuple[Trace, ...], resident: int, batch_size: int) -> Iterator[tuple[int, int]]:
        """Yield the events of a training with this batch size."""
        if resident:
            yield -1, resident
        first = traces[0]
        weights = {
            phase: _lagrange([trace.batch_size for trace in traces], self._samples(phase, batch_size))
            for phase in set(first.phases)
        }
        sizes = zip(*(trace.bytes for trace in traces), strict=True)
        for storage, phase, traced in zip(first.storages, first.phases, sizes, strict=True):
            # A storage of the training that is freed in the evaluation is found by its number: only its sign counts.
            yield (
                storage,
                round(sum(weight * size for weight, size in zip(weights[phase], traced, strict=True))),
            )

    def _samples(self, phase: str, batch_size: int) -> int:
        """Return the samples that a phase has at once."""
        if phase != "evaluation":
            return batch_size
        samples = self.evaluation_factor * batch_size
        return samples if self.evaluation_samples is None else min(samples, self.evaluation_samples)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON object, without the traces."""
        return {
            "moments": [
                {
                    "phase": moment.phase,
                    "parts": {
                        name: [line.fixed_bytes, line.bytes_per_sample, line.bytes_per_square]
                        for name, line in moment.parts.items()
                    },
                }
                for moment in self.moments
            ],
            "method": self.method,
            "note": self.note,
            "evaluation_factor": self.evaluation_factor,
            "evaluation_samples": self.evaluation_samples,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepMemory:
        """Rebuild it from its JSON object."""
        moments = tuple(
            Moment(item["phase"], {name: Line(*line) for name, line in item["parts"].items()})
            for item in data["moments"]
        )
        return cls(moments, **{key: value for key, value in data.items() if key != "moments"})
