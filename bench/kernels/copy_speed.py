"""What memory can do in this run: the best copy of as many bytes, and the rate that no kernel can exceed.

Five ways to move a working set of W bytes are timed by the row's own policy, in a lane that runs no other code:

    copy, copy by Triton    W/2 read, W/2 written
    scale in place          W/2 read and written at the same addresses: no line is fetched only to be overwritten
    read                    W read, nothing written
    write                   W written, nothing read

The best copy is what a row is compared with. A kernel that mostly reads, or works in place, may be faster by byte: a
CPU fetches a line before it writes it, so a copy moves 3/2 W. So the limit is the fastest of all ways, without the
time that the same call takes on next to no bytes, and with a margin for what a neighbour took from the copies:

    limit = 1.25 max over ways W / (min t(W) - t(1 KB))

Where the difference is less than half of t(W), the call's own time hides that of memory, and there is no limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from fusetune.bench.kernels.case import Case, KernelSource
from fusetune.bench.kernels.lane import Lane, LaneError, Prepared
from fusetune.bench.kernels.row import CopySpeed, Policy
from fusetune.bench.kernels.shared_arrays import Array, SharedTree

_SOURCE = KernelSource("fusetune.bench.kernels.copies:MOVES")
_WAYS = 5
_COPIES = 2  # the first ones
_ROUNDS = 5
_MARGIN = 1.25
# The call's own time is so small a part that the rest is memory's.
_LEAST_SHARE = 0.5
_NEXT_TO_NOTHING = 1 << 10
_LEAST_BYTES = 4 << 10
# Beyond this and eight times the caches, more bytes are not faster.
_MOST_BYTES = 256 << 20


@dataclass
class CopyMeter:
    """Measures copies, each working set once in a run.

    Args:
        lane: opens the lane that copies.
        draw: random numbers in [0, 1).

    Example: `CopyMeter(lambda: ProcessLane("ours")).speed(2**23, case, Policy())`.
    """

    lane: Callable[[], Lane]
    draw: Callable[[], float] = field(default=lambda: 0.5)
    _open: Lane | None = None
    _found: dict[tuple[Any, ...], CopySpeed | None] = field(default_factory=dict)
    _own_s: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def speed(self, moved_bytes: int, case: Case, policy: Policy, *, anew: bool = False) -> CopySpeed | None:
        """Return the best copy of about as many bytes. None: there is no lane that copies.

        Args:
            moved_bytes: by a call of the kernel.
            case: of the row, for device and threads.
            policy: of the row. Several calls in a sample are timed as one.
            anew: measure again, and return the faster of both.
        """
        size = working_set(moved_bytes)
        policy = Policy(policy.clock, policy.cache)
        key = (size, case.device, case.threads, policy.name)
        if key in self._found and not anew:
            return self._found[key]
        before = self._found.get(key)
        try:
            now = self._measured(size, case, policy)
        except LaneError:
            self.close()
            now = None
        self._found[key] = max((each for each in (before, now) if each), key=_limit, default=None)
        return self._found[key]

    def close(self) -> None:
        """End the lane."""
        lane, self._open = self._open, None
        if lane is not None:
            lane.close()

    def _measured(self, size: int, case: Case, policy: Policy) -> CopySpeed:
        copies, rates = [], []
        place = ""
        for way in range(_WAYS):
            if self._open is None:
                self._open = self.lane()
            try:
                own_s = self._time_of_the_call(way, case, policy)
                times_s, prepared = self._times(way, size, case, policy)
            except LaneError:
                if way == 1:  # Triton has no backend here, or another copy does not build
                    continue
                raise
            place = level_named(size, prepared, policy)
            if way < _COPIES:
                copies.append(size / median(times_s))
            rates.append(limit_of(size, min(times_s), own_s))
        known = [rate for rate in rates if rate is not None]
        # One way without a rate may be the fastest.
        limit = _MARGIN * max(known) if len(known) == len(rates) else None
        return CopySpeed(max(copies), place, size, limit)

    def _time_of_the_call(self, way: int, case: Case, policy: Policy) -> float:
        """Return how long a way takes on next to nothing."""
        key = (way, case.device, case.threads, policy.name)
        if key not in self._own_s:
            self._own_s[key] = median(self._times(way, _NEXT_TO_NOTHING, case, policy)[0])
        return self._own_s[key]

    def _times(self, way: int, size: int, case: Case, policy: Policy) -> tuple[list[float], Prepared]:
        """Time one way, and leave out the first round."""
        assert self._open is not None
        elements = size // 4
        what = Case(_SOURCE, "moves", elements, "float32", "forward", case.device, case.threads)
        prepared = self._open.prepare(what, {"way": way})
        values = np.random.default_rng(int(2**32 * self.draw())).random(elements // 2, np.float32)
        shared = SharedTree({"x": Array.of(values), "y": Array.of(values[::-1].copy())})
        try:
            rounds = [
                self._open.time_round([shared, shared], [policy], keep=False) for _ in range(1 + _ROUNDS)
            ]
        finally:
            shared.close()
        return [each.latencies_s[policy.name] for each in rounds[1:]], prepared


def working_set(moved_bytes: int) -> int:
    """Round to a quarter of a power of two, so that rows share copies, and leave out what is too small or large.

    Example:
        >>> working_set(8_000_000), working_set(3), working_set(10**10) == 256 << 20
        (8388608, 4096, True)
    """
    bounded = max(_LEAST_BYTES, min(_MOST_BYTES, moved_bytes))
    step = 1 << max(0, bounded.bit_length() - 3)
    return min(_MOST_BYTES, step * max(1, round(bounded / step)))


def limit_of(size: int, fastest_s: float, own_s: float) -> float | None:
    """Return bytes by second without the time of the call itself. None: it is too large a part.

    Example:
        >>> limit_of(1000, 3.0, 1.0), limit_of(1000, 3.0, 2.0)
        (500.0, None)
    """
    rest_s = fastest_s - own_s
    return size / rest_s if rest_s >= _LEAST_SHARE * fastest_s else None


def level_named(size: int, prepared: Prepared, policy: Policy) -> str:
    """Name the level of memory that a call finds its data in: DRAM, where the caches are flushed.

    Example:
        >>> facts = Prepared(8, 0.0, (), 1e-6, caches=(("L1", 32768), ("L2", 524288)))
        >>> level_named(40_000, facts, Policy(cache="warm")), level_named(40_000, facts, Policy())
        ('L2', 'DRAM')
    """
    if policy.cache == "cold":
        return "DRAM"
    fitting: Sequence[str] = [name for name, holds in prepared.caches if size <= holds]
    return fitting[0] if fitting else "DRAM"


def _limit(speed: CopySpeed) -> float:
    """For comparing two measurements of the same bytes: the one with the laxer limit was less disturbed."""
    return speed.limit_bytes_per_s or float("inf")
