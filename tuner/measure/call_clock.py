"""The time of single calls: only the call is on the clock, and every policy says whether host time is in.

    sample = reserve, flush, before_each, lead call, wait, [ call x n, wait ]      what is on the clock is in brackets

The lead call has arguments of its own. It brings the program back into the caches that the flush emptied, and leaves
the data of the timed calls cold. Reserving has memory for new tensors at hand, so none is asked of the system on the
clock. `TimedSample.faults` counts what was all the same. By the host's clock, the stopwatch takes off what the same
stretch takes with calls that do nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, Protocol

import torch

from fusetune.errors import InvalidValueError, StateError
from fusetune.tuner.measure.freed_memory import fault_in, page_faults

ClockName = Literal["wall", "event", "graph", "kernel"]
Call = Callable[[], Any]
# On a GPU: so much of a call's host time is waited on the device before the first event, so that it never runs dry.
_HEAD_START = 1.5
# A call that is written in C and returns at once.
_NOTHING: Callable[[], Any] = bool
# The interpreter's own small objects may fault in as many pages in a sample.
_FEW_FAULTS = 4
_OF_LATE = 15


@dataclass(frozen=True)
class Sample:
    """What one sample calls, each with tensors of its own that were made beforehand.

    Args:
        lead: the call that precedes, off the clock.
        timed: the calls on the clock, in their order.
    """

    lead: Call
    timed: Sequence[Call]


@dataclass(frozen=True)
class TimedSample:
    """What a sample came to.

    Args:
        seconds: of a call, the mean over the sample.
        results: of the timed calls.
        faults: pages of memory (CPU) or blocks (CUDA) that the system had to give on the clock.
    """

    seconds: float
    results: tuple[Any, ...]
    faults: int = 0


class TimedDevice(Protocol):
    """What a call clock needs of a device. Tests script one."""

    def now_s(self) -> float:
        """Seconds of the host's monotonic clock."""

    def wait(self) -> None:
        """Return when the device has done all it was given."""

    def event(self) -> Any:
        """Put an event into the device's queue, and return it."""

    def seconds_between(self, start: Any, end: Any) -> float:
        """Seconds from one event to another, both of which have happened."""

    def reserve(self, size_bytes: int) -> None:
        """Have so much free memory for new tensors at hand."""

    def faults(self) -> int:
        """How often the system has given memory so far."""

    def delay(self, seconds: float) -> None:
        """Keep the device at work for about so long."""

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        """Record what `work` gives to the device, without running it, and return what runs it."""


class CallClock:
    """Times calls of one function by one policy.

        wall    the host's clock around the calls, until the device has done them: host time in
        event   events of the device around the calls: host time out, where the device never waits for the host
        graph   events around a replayed CUDA graph of the calls: host time out, gaps between kernels as in a graph
        kernel  the compiled functions alone, on a CPU: host time out, and the work of other libraries too

    Args:
        name: the policy.
        device: `cpu` or `cuda`, or what stands for one.
        flush: empties the last-level cache before each sample. None: the cache stays warm.
        launch_times: for `kernel`: a context that yields a list, to which each launch adds its seconds.
        host_s: for `event`: about the host's seconds of a call.

    Raises:
        ValueError: a clock that the device does not have, or `kernel` without `launch_times`.

    Example:
        >>> from functools import partial
        >>> clock = CallClock("wall", "cpu")
        >>> lead, timed = (partial(torch.neg, torch.ones(9)) for _ in range(2))
        >>> (found,) = clock.time([Sample(lead, [timed])])
        >>> found.seconds > 0, len(found.results)
        (True, 1)
    """

    def __init__(
        self,
        name: ClockName,
        device: torch.device | str | TimedDevice,
        *,
        flush: Callable[[], object] | None = None,
        launch_times: Callable[[], AbstractContextManager[list[float]]] | None = None,
        host_s: float = 50e-6,
    ) -> None:
        self._device = timed_device(device) if isinstance(device, str | torch.device) else device
        if name not in (known := clocks_of(device)):
            raise InvalidValueError("clock", f"this device has no {name!r}", f"known: {', '.join(known)}")
        if name == "kernel" and launch_times is None:
            raise InvalidValueError("clock", "'kernel' needs `launch_times`")
        self.name = name
        self._flush = flush
        self._launch_times = launch_times
        self._host_s = host_s
        self._reserved_bytes = 0
        self._own_s: dict[int, deque[float]] = {}

    def time(
        self, samples: Sequence[Sample], *, before_each: Callable[[], object] = lambda: None
    ) -> list[TimedSample]:
        """Time samples, one after the other. Events are read at the end, so no sample waits for the device.

        Args:
            samples: of calls that were made before, so that nothing compiles. Their results live until the end.
            before_each: called between the flush and the lead call of each sample, off the clock.
        """
        for sample in samples:
            if not sample.timed:
                raise InvalidValueError("sample", "it has no timed call")
        if self.name == "event":
            return self._by_events(samples, before_each)
        if self.name == "graph":
            return self._by_graph(samples, before_each)
        one = self._by_launches if self.name == "kernel" else self._by_wall
        return [one(sample, before_each) for sample in samples]

    def _begin(self, sample: Sample, before: Call) -> Any:
        """What precedes the timed calls. Returns the lead's results, so that their memory is not used again yet."""
        if self._reserved_bytes:
            self._device.reserve(self._reserved_bytes)
        if self._flush is not None:
            self._flush()
        if self.name in ("wall", "kernel"):
            self._device.wait()
        before()
        return sample.lead()

    def _by_wall(self, sample: Sample, before: Call) -> TimedSample:
        kept = self._begin(sample, before)
        device, nothing = self._device, [_NOTHING] * len(sample.timed)
        device.wait()
        faults = device.faults()
        # The first stretch brings the stopwatch itself into the cache, and the second is what it takes by itself.
        self._stretch(nothing)
        own_s, _ = self._stretch(nothing)
        passed_s, results = self._stretch(sample.timed)
        faults = device.faults() - faults
        own_s = self._usual(len(results), own_s)
        self._learn(faults, kept, results)
        # No clock resolves less than a nanosecond.
        return TimedSample(max(1e-9, passed_s - own_s) / len(results), tuple(results), faults)

    def _usual(self, calls: int, own_s: float) -> float:
        """The median of what the stopwatch took by itself of late: it may have been interrupted this time."""
        latest = self._own_s.setdefault(calls, deque(maxlen=_OF_LATE))
        latest.append(own_s)
        return median(latest)

    def _stretch(self, calls: Sequence[Call]) -> tuple[float, list[Any]]:
        """Call, and wait for the device. Returns the host's seconds and the results."""
        now_s, wait = self._device.now_s, self._device.wait
        first, *others = calls
        start_s = now_s()
        results = [first()]
        for call in others:
            results += (call(),)
        wait()
        return now_s() - start_s, results

    def _by_launches(self, sample: Sample, before: Call) -> TimedSample:
        assert self._launch_times is not None
        with self._launch_times() as seconds:
            kept = self._begin(sample, before)
            self._device.wait()
            seconds.clear()
            faults = self._device.faults()
            results = [call() for call in sample.timed]
            self._device.wait()
            faults = self._device.faults() - faults
            if not seconds:
                raise StateError("clock", "the call launched no kernel that Triton compiled for this device")
            total_s = sum(seconds)
        self._learn(faults, kept, results)
        return TimedSample(total_s / len(sample.timed), tuple(results), faults)

    def _learn(self, faults: int, *results: Any) -> None:
        """See how much memory the next sample needs: what its results take, and more where calls make other tensors."""
        needed = 2 * _bytes_of(results)
        if faults > _FEW_FAULTS:
            needed = max(needed, self._reserved_bytes + max(_bytes_of(results), 1 << 20))
        self._reserved_bytes = max(self._reserved_bytes, needed)

    def _by_events(self, samples: Sequence[Sample], before: Call) -> list[TimedSample]:
        device, kept, marks, results = self._device, [], [], []
        for sample in samples:
            kept.append(self._begin(sample, before))
            device.delay(_HEAD_START * self._host_s * len(sample.timed))
            start = device.event()
            results.append(tuple(call() for call in sample.timed))
            marks.append((start, device.event()))
        device.wait()
        self._learn(0, kept, results)
        return self._read(samples, marks, results)

    def _by_graph(self, samples: Sequence[Sample], before: Call) -> list[TimedSample]:
        device, marks, results = self._device, [], []
        captured: list[list[Any]] = []

        def calls(sample: Sample) -> Callable[[], None]:
            """What is captured. Its results have the addresses that each replay writes to."""
            found: list[Any] = []
            captured.append(found)
            return lambda: found.extend(call() for call in sample.timed)

        replays = [device.capture(calls(sample)) for sample in samples]
        device.wait()
        kept = []
        for sample, replay in zip(samples, replays, strict=True):
            kept.append(self._begin(sample, before))
            device.delay(_HEAD_START * self._host_s)
            start = device.event()
            replay()
            marks.append((start, device.event()))
        device.wait()
        results = [tuple(found) for found in captured]
        return self._read(samples, marks, results)

    def _read(
        self, samples: Sequence[Sample], marks: Sequence[tuple[Any, Any]], results: Sequence[tuple[Any, ...]]
    ) -> list[TimedSample]:
        """Read the events, all of which have happened."""
        return [
            TimedSample(self._device.seconds_between(start, end) / len(sample.timed), found)
            for sample, (start, end), found in zip(samples, marks, results, strict=True)
        ]


def _bytes_of(results: Any) -> int:
    """The bytes of all tensors in a nest of sequences and mappings."""
    if isinstance(results, torch.Tensor):
        return results.numel() * results.element_size()
    if isinstance(results, Mapping):
        results = results.values()
    elif not isinstance(results, list | tuple):
        return 0
    return sum(map(_bytes_of, results))


def clocks_of(device: torch.device | str | TimedDevice) -> tuple[ClockName, ...]:
    """Return the clocks that a device has, the one that includes host time first.

    Example:
        >>> clocks_of("cpu")
        ('wall', 'kernel')
    """
    if isinstance(device, str | torch.device):
        return ("wall", "event", "graph") if torch.device(device).type == "cuda" else ("wall", "kernel")
    return ("wall", "event", "graph", "kernel")


def timed_device(device: torch.device | str) -> TimedDevice:
    """Return what times calls on a device of torch's."""
    device = torch.device(device)
    return _Cuda(device) if device.type == "cuda" else _Cpu()


class _Cpu:
    """Work on a CPU is done when the call returns."""

    now_s = staticmethod(time.perf_counter)

    def wait(self) -> None:
        """Return at once."""

    def event(self) -> Any:
        raise StateError("clock", "a CPU has no events")

    def seconds_between(self, start: Any, end: Any) -> float:
        raise StateError("clock", "a CPU has no events")

    def reserve(self, size_bytes: int) -> None:
        fault_in(size_bytes)

    def faults(self) -> int:
        return page_faults()

    def delay(self, seconds: float) -> None:
        """Do nothing."""

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        raise StateError("clock", "a CPU has no graphs")


# Taken hold of here, before a person's code could replace them.
_Event: Any = torch.cuda.Event
_synchronize, _sleep = torch.cuda.synchronize, getattr(torch.cuda, "_sleep", None)


class _Cuda:
    """A CUDA device. All work goes to its current stream."""

    now_s = staticmethod(time.perf_counter)

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Cycles of torch.cuda._sleep in a second. The clock that it counts is near the device's rate.
        rate_khz = getattr(torch.cuda.get_device_properties(device), "clock_rate", 1_500_000)
        self._cycles_per_s = 1e3 * rate_khz

    def wait(self) -> None:
        _synchronize(self._device)

    def event(self) -> Any:
        event = _Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        milliseconds: float = start.elapsed_time(end)
        return 1e-3 * milliseconds

    def reserve(self, size_bytes: int) -> None:
        torch.empty(size_bytes, dtype=torch.uint8, device=self._device)

    def faults(self) -> int:
        return int(torch.cuda.memory_stats(self._device).get("segment.all.allocated", 0))

    def delay(self, seconds: float) -> None:
        if _sleep is not None:
            _sleep(int(seconds * self._cycles_per_s))

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay
