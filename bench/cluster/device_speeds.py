"""Which device is slower than its kind, by a short reference loop that every device runs now and then (pure)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import median

# Of a normal distribution, the standard deviation over the median absolute deviation.
_DEVIATIONS = 1.4826
_STANDARD_ERRORS = 4.0
# A smaller difference matters to nobody.
_LEAST = 0.03
# Of two devices that differ, nobody knows which is the slow one.
_FEWEST = 3


@dataclass(frozen=True)
class Speed:
    """How fast a device is, beside the others of its kind.

    Args:
        ratio: of its kind's median time to its own. 1: as its kind. 0.8: it takes 1.25 times as long.
        slow: whether it is slower by more than the noise.
    """

    ratio: float
    slow: bool


class DeviceSpeeds:
    """The last times of the reference loop of each device of one kind.

        slow:   t / T - 1 > max(0.03, 4 sqrt(s^2 + b^2))

    t is the device's median time and T the median of all devices' t. s is the standard error of t / T, from the median
    absolute deviation of the device's rounds. b is the spread of t / T between devices, from the same. Of fewer than
    three devices none is slow.

    Example:
        >>> speeds = DeviceSpeeds()
        >>> for device, seconds in {"a": 0.10, "b": 0.10, "c": 0.13, "d": 0.10}.items():
        ...     speeds.add(device, [seconds, seconds * 1.01, seconds * 0.99])
        >>> round(speeds.of("c").ratio, 2), speeds.slow()
        (0.77, ['c'])
    """

    def __init__(self) -> None:
        self._rounds: dict[str, tuple[float, ...]] = {}
        # Devices are measured by the threads of their executors.
        self._lock = threading.Lock()

    def add(self, device: str, seconds: Sequence[float]) -> None:
        """Take the rounds of a device's reference loop, in seconds, in place of its last ones."""
        if seconds:
            with self._lock:
                self._rounds[device] = tuple(seconds)

    def remove(self, device: str) -> None:
        """Forget a device that is gone."""
        with self._lock:
            self._rounds.pop(device, None)

    def slow(self) -> list[str]:
        """Return the devices that are slower than their kind, in the order in which they came."""
        with self._lock:
            devices = list(self._rounds)
        return [device for device in devices if (speed := self.of(device)) is not None and speed.slow]

    def of(self, device: str) -> Speed | None:
        """Return a device's speed. None where it has run no loop."""
        with self._lock:
            rounds = self._rounds.get(device)
            times = {each: median(seconds) for each, seconds in self._rounds.items()}
        if rounds is None:
            return None
        kind_s = median(times.values())
        relative = times[device] / kind_s
        between = _spread([seconds / kind_s for seconds in times.values()])
        own = _spread([seconds / kind_s for seconds in rounds]) / sqrt(len(rounds))
        threshold = max(_LEAST, _STANDARD_ERRORS * hypot(own, between))
        return Speed(1.0 / relative, len(times) >= _FEWEST and relative - 1.0 > threshold)


def _spread(values: Sequence[float]) -> float:
    """Return a standard deviation that a few outliers do not change."""
    middle = median(values)
    return _DEVIATIONS * median(abs(value - middle) for value in values)
