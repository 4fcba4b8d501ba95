"""A timer for pytest-benchmark that says what our stopwatch measured, so that its rounds are ours."""

from __future__ import annotations

from collections.abc import Sequence


class ReplayedClock:
    """A timer whose readings come in pairs: 0 before a round, and the round's seconds after it.

    pytest-benchmark subtracts the first from the second, which is exact. Its JSON names a timer by `__name__`, which
    is what was on the clock.

    Args:
        policy: what is on the clock, e.g. `wall, cold`.

    Example:
        >>> clock = ReplayedClock()
        >>> clock.set_rounds("wall, cold", [0.002, 0.003])
        >>> [-clock() + clock() for _ in range(2)], clock.__name__
        ([0.002, 0.003], 'fusetune: wall, cold')
    """

    def __init__(self) -> None:
        self.__name__ = "fusetune"
        self._readings: list[float] = []

    def set_rounds(self, policy: str, latencies_s: Sequence[float]) -> None:
        """Take the rounds to replay, in seconds a call."""
        self.__name__ = f"fusetune: {policy}"
        self._readings = [reading for latency_s in reversed(latencies_s) for reading in (latency_s, 0.0)]

    def __call__(self) -> float:
        """Return the next reading. It is 0 where nothing is replayed, as in a test that times nothing."""
        return self._readings.pop() if self._readings else 0.0
