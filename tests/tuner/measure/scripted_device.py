"""A device whose every action takes a time that the test gives, with a queue of its own, as a GPU has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class ScriptedDevice:
    """Keeps a log of what it was told, and moves two clocks: the host's, and the end of the device's queue.

    Args:
        asynchronous: work is queued, and the host goes on. Otherwise the host waits for all it gives.
    """

    FLUSH_S, CALL_S, HOST_S, ALLOCATION_S = 100.0, 1.0, 0.25, 40.0

    def __init__(self, asynchronous: bool = False) -> None:
        self.asynchronous = asynchronous
        self.host_s = 1000.0
        self.done_s = 1000.0
        self.log: list[str] = []
        self.addresses: list[int] = []
        self.values: list[float] = []
        self.needs_bytes = self.reserved_bytes = self._faults = 0
        self._recording: list[float] | None = None

    def now_s(self) -> float:
        return self.host_s

    def wait(self) -> None:
        self.log.append("wait")
        self.host_s = max(self.host_s, self.done_s)

    def event(self) -> Any:
        self.log.append("event")
        self.done_s = max(self.done_s, self.host_s)
        return self.done_s

    def seconds_between(self, start: Any, end: Any) -> float:
        return float(end - start)

    def reserve(self, size_bytes: int) -> None:
        self.log.append(f"reserve {size_bytes}")
        self.host_s += self.ALLOCATION_S
        self.reserved_bytes = size_bytes

    def faults(self) -> int:
        return self._faults

    def delay(self, seconds: float) -> None:
        self.log.append("delay")
        self.done_s = max(self.done_s, self.host_s) + seconds

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        self.log.append("capture")
        self._recording = []
        work()
        recorded, self._recording = self._recording, None

        def replay() -> None:
            self.log.append("replay")
            for seconds in recorded:
                self.give(seconds)

        return replay

    def give(self, seconds: float) -> None:
        """Work for the device."""
        if self._recording is not None:
            self._recording.append(seconds)
            return
        self.done_s = max(self.done_s, self.host_s) + seconds
        if not self.asynchronous:
            self.host_s = self.done_s

    def flush(self) -> None:
        self.log.append("flush")
        self.give(self.FLUSH_S)

    def call(self, x: torch.Tensor) -> torch.Tensor:
        """The kernel that is timed."""
        self.log.append("call")
        self.addresses.append(x.data_ptr())
        self.values.append(float(x))
        self.host_s += self.HOST_S
        self._faults += max(0, self.needs_bytes - self.reserved_bytes) // 4096
        self.give(self.CALL_S)
        return 2 * x

    def fresh(self, value: float) -> torch.Tensor:
        """A tensor made anew."""
        self.log.append("allocate")
        self.host_s += self.ALLOCATION_S
        return torch.tensor(value)
