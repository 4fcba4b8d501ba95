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
        self._devices: dict[str, _Rounds] = {}
        self._kind: tuple[float, float] | None = None
        # Devices are measured by the threads of their executors.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of devices that have run the loop and are not gone."""
        return len(self._devices)

    def add(self, device: str, seconds: Sequence[float]) -> None:
        """Take the rounds of a device's reference loop, in seconds, in place of its last ones."""
        if seconds:
            rounds = _Rounds(median(seconds), _spread(seconds) / sqrt(len(seconds)))
            with self._lock:
                self._devices[device], self._kind = rounds, None

    def remove(self, device: str) -> None:
        """Forget a device that is gone."""
        with self._lock:
            if self._devices.pop(device, None):
                self._kind = None

    def slow(self) -> list[str]:
        """Return the devices that are slower than their kind, in the order in which they came."""
        with self._lock:
            devices = list(self._devices)
        return [device for device in devices if (speed := self.of(device)) is not None and speed.slow]

    def of(self, device: str) -> Speed | None:
        """Return a device's speed. None where it has run no loop."""
        with self._lock:
            rounds = self._devices.get(device)
            if rounds is None:
                return None
            # Every record asks, and a large cluster has many devices: worked out once for each change.
            if self._kind is None:
                times = [each.seconds for each in self._devices.values()]
                kind_s = median(times)
                self._kind = kind_s, _spread([seconds / kind_s for seconds in times])
            kind_s, between = self._kind
            count = len(self._devices)
        relative = rounds.seconds / kind_s
        threshold = max(_LEAST, _STANDARD_ERRORS * hypot(rounds.error_s / kind_s, between))
        return Speed(1.0 / relative, count >= _FEWEST and relative - 1.0 > threshold)


@dataclass(frozen=True)
class _Rounds:
    """The median time of a device's rounds, and its standard error as if it were a mean."""

    seconds: float
    error_s: float


def _spread(values: Sequence[float]) -> float:
    """Return a standard deviation that a few outliers do not change."""
    middle = median(values)
    return _DEVIATIONS * median(abs(value - middle) for value in values)
