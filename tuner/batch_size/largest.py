"""The largest batch under a byte limit: predicted, run for real under the limit, corrected, in at most four runs.

What a run needs is taken as a straight line over what its tensors need:

    needed(b) = offset + slope * predicted(b)

The offset is what libraries keep, the slope what allocators waste. Both are unknown before the first run, roughly known
after it and measured after the second. Where a run that failed, or the third that fits, took more than the line allows,
a term in predicted(b)^2 is added. Every size that is returned has been run in full under the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fusetune.errors import InvalidValueError
from fusetune.tuner.measure import is_out_of_memory

MIB = 2**20
MAX_PROBES = 4
# Aimed at below the limit, for what a run needs differs by about this much from one size to the next.
MARGIN = 0.01
# A size that is this close to what the line allows is not worth another run.
CLOSE = 0.975
# The step down from a size that failed, and after failures in a row. If the first step runs, it is within 5 % of the
# largest, whatever that is. The others make sure that the runs do not end on a failure.
STEPS_DOWN = (0.955, 0.9, 0.75)
# After one run the offset is still a guess. This much of it is believed.
BELIEVED_OFFSET = 0.75
# By more than this above or below the line, a run asks for a curve: needs scatter by less.
BENT = 0.05
# The last run's step from the largest size that fits, if a curve says how far it may be.
LAST_STEP = 0.9
# So many samples run if anything does.
A_FEW = 8
# Without a bound on the batch size: no model has a batch of more samples.
LARGEST = 2**40

Bound = Literal["memory", "samples", "nothing fits"]


@dataclass(frozen=True)
class Overhead:
    """needed = offset_bytes + slope * predicted + curve * predicted^2."""

    offset_bytes: float
    slope: float
    curve: float = 0.0

    def needed(self, predicted_bytes: float) -> float:
        """Return the bytes that a run needs whose tensors need `predicted_bytes`."""
        return self.offset_bytes + (self.slope + self.curve * predicted_bytes) * predicted_bytes

    def needed_at_least(self, predicted_bytes: float) -> float:
        """Return the same far from what was measured: a negative offset can't make a run need less than its tensors."""
        return max(predicted_bytes, self.needed(predicted_bytes))


# More than what was seen on CPUs (a median of 1.31 and up to 1.73, with some tens of MiB for libraries), so that the
# first run fits. On CUDA the allocator's rounding and the matrix library's workspace.
CPU_OVERHEAD = Overhead(24 * MIB, 1.75)
CUDA_OVERHEAD = Overhead(64 * MIB, 1.2)


@dataclass(frozen=True)
class Probe:
    """The outcome of running one batch size under the limit.

    Args:
        batch_size: samples in a forward.
        fits: whether it ran in full: steps, optimizer and evaluation.
        needed_bytes: the peak where it fits, else a lower bound of it. None where it is not known.
        reason: why it does not fit.
        broken: whether it failed for another reason than memory, as far as anybody knows.
    """

    batch_size: int
    fits: bool
    needed_bytes: int | None = None
    reason: str = ""
    broken: bool = False


@dataclass(frozen=True)
class LargestBatch:
    """The answer and how it was found.

    Args:
        batch_size: the largest that ran in full. None where none did.
        limit_bytes: the limit it ran under.
        bound: what keeps it from being larger: memory, or the number of samples that was given as `max_batch`.
        probes: the runs, in their order.
        overhead: the line through the measured needs. As assumed where fewer than two runs fitted.
        estimate: the largest that this line allows, run or not.
        smallest_failed: the smallest size that did not fit. None where all did.
        reason: one sentence.
    """

    batch_size: int | None
    limit_bytes: int
    bound: Bound
    probes: tuple[Probe, ...]
    overhead: Overhead
    estimate: int
    smallest_failed: int | None
    reason: str


def largest_batch(
    predict: Callable[[int], float],
    probe: Callable[[int], Probe],
    *,
    limit_bytes: int,
    max_batch: int | None = None,
    overhead: Overhead = CPU_OVERHEAD,
    max_probes: int = MAX_PROBES,
) -> LargestBatch:
    """Find the largest batch that runs in full under a byte limit.

    The first run is of a size that fits even with the assumed overhead. Its need, taken as proportional to the
    prediction, gives the second, which still errs on the small side. The line through both gives the third. After a
    failure the search goes on between the largest size that fitted and the smallest that did not, and below what the
    bytes of the failed run leave room for. After a run that broke, for a reason that is not known to be memory, one of
    a few samples shows whether anything runs. The search ends when another run could gain less than 2.5 %.

    Sizes are whole below 1024 samples, multiples of 8 below 4096 and of 32 from there, which costs less than 1 %.
    `max_batch` itself is tried too.

    Args:
        predict: batch size -> bytes that the tensors need, not decreasing.
        probe: runs a batch size under the limit, in a process that it may kill, and says what came of it. Where it
            raises what `tuner.measure.out_of_memory` knows, the size does not fit. Other errors pass.
        limit_bytes: above 0.
        max_batch: the largest size that makes sense, 1 or more, such as the number of training samples.
        overhead: assumed before the first run.
        max_probes: the most runs, 1 or more.

    Raises:
        ValueError: a limit or bound out of range.

    Example:
        >>> needs = lambda size: 2**20 * (30 + 1.3 * size)
        >>> def run(size):
        ...     return Probe(size, needs(size) <= 2**29, int(needs(size)))
        >>> found = largest_batch(lambda size: 2**20 * size, run, limit_bytes=2**29)
        >>> found.batch_size, len(found.probes)
        (363, 2)
    """
    for name, value in (("limit_bytes", limit_bytes), ("max_batch", max_batch), ("max_probes", max_probes)):
        if value is not None and value < 1:
            raise InvalidValueError(name, f"{value} must be 1 or more")
    search = _Search(predict, limit_bytes, max_batch or LARGEST, overhead, max_probes)
    while len(search.probes) < max_probes:
        size = search.next_size()
        if size is None:
            break
        search.probes.append(_probed(probe, size))
    return search.result()


def _probed(probe: Callable[[int], Probe], batch_size: int) -> Probe:
    """Run a batch size. One that raises an out-of-memory error does not fit."""
    try:
        return probe(batch_size)
    except Exception as error:  # a person's model, which may be probed in any way
        if not is_out_of_memory(error):
            raise
        return Probe(batch_size, fits=False, reason=" ".join(f"{type(error).__name__}: {error}".split()))


def on_grid(batch_size: int) -> int:
    """Round a batch size down to one that is tried.

    Example:
        >>> on_grid(1000), on_grid(1030), on_grid(5000)
        (1000, 1024, 4992)
    """
    step = 1 if batch_size < 1024 else 8 if batch_size < 4096 else 32
    return batch_size - batch_size % step


def largest_predicted(need: Callable[[int], float], limit_bytes: float, max_batch: int = LARGEST) -> int:
    """Return the largest batch size with need(size) <= limit, by bisection. 0 where even 1 needs more.

    Args:
        need: batch size -> bytes, not decreasing.
        limit_bytes: the limit.
        max_batch: the largest size that counts.

    Example:
        >>> largest_predicted(lambda size: 10 * size, 128)
        12
    """
    fits, fails = 0, 1
    while fails <= max_batch and need(fails) <= limit_bytes:
        fits, fails = fails, 2 * fails
    fails = min(fails, max_batch + 1)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if need(middle) <= limit_bytes:
            fits = middle
        else:
            fails = middle
    return fits


def fit_overhead(
    points: Sequence[tuple[float, float]],
    assumed: Overhead,
    *,
    failures: int = 0,
    bounds: Sequence[tuple[float, float]] = (),
) -> Overhead:
    """Return the line through what was measured, or the parabola where the points ask for one.

        two runs:   slope = (needed_2 - needed_1) / (predicted_2 - predicted_1)    of the smallest and the largest, and
                    at least 1: a byte more of tensors needs a byte
                    offset = needed_2 - slope * predicted_2
        one run:    offset = 3/4 of the assumed one, slope = (needed - offset) / predicted, and at least 1
                    (offset = 0 once a run has failed, which shows that the assumption was too kind)
        a parabola  through the smallest and the largest run, or the offset and the only one, and a failed run that
                    wanted 5 % more than the line says, or through three runs of which the middle one is 5 % below it

    Args:
        points: (predicted bytes, needed bytes) of each run that fitted.
        assumed: the answer where there are none.
        failures: how many runs did not fit.
        bounds: (predicted bytes, bytes that it needs at least) of those where somebody saw them.

    Example:
        >>> fit_overhead([(100.0, 150.0), (200.0, 270.0)], CPU_OVERHEAD)
        Overhead(offset_bytes=30.0, slope=1.2, curve=0.0)
        >>> fit_overhead([(1.0, 3.0), (2.0, 5.0)], Overhead(0.0, 1.5), failures=1, bounds=[(4.0, 12.0)])
        Overhead(offset_bytes=2.0, slope=0.5, curve=0.5)
    """
    if not points:
        return assumed
    line = _fit_line(points, assumed, failures)
    ordered = sorted(points)
    start = (0.0, BELIEVED_OFFSET * assumed.offset_bytes)
    low = ordered[0] if ordered[-1][0] > ordered[0][0] else start
    exceeded = [bound for bound in bounds if bound[1] > (1 + BENT) * line.needed(bound[0])]
    curves = [_parabola(low, ordered[-1], bound) for bound in exceeded]
    if exceeded and low is not start:
        # What the failed run wanted is a lower bound. Three points that are no bounds may bend more.
        curves.append(_parabola(start, low, ordered[-1]))
    curves += [
        _parabola(low, point, ordered[-1])
        for point in ordered[1:-1]
        if point[0] > low[0] and point[1] < (1 - BENT) * line.needed(point[0])
    ]
    return max([line, *curves], key=lambda overhead: overhead.curve)


def _parabola(low: tuple[float, float], middle: tuple[float, float], high: tuple[float, float]) -> Overhead:
    """Return the parabola through three points, or one that rises from 0 on through the last two."""
    (x_0, y_0), (x_1, y_1), (x_2, y_2) = low, middle, high
    if not x_0 < x_1 < x_2:
        return Overhead(0.0, 1.0)
    first, second = (y_1 - y_0) / (x_1 - x_0), (y_2 - y_1) / (x_2 - x_1)
    curve = (second - first) / (x_2 - x_0)
    slope = first - curve * (x_0 + x_1)
    if slope < 0:
        slope, curve = 0.0, (y_2 - y_1) / (x_2**2 - x_1**2)
    return Overhead(y_1 - (slope + curve * x_1) * x_1, slope, curve)


def _fit_line(points: Sequence[tuple[float, float]], assumed: Overhead, failures: int) -> Overhead:
    """Return the line of `fit_overhead`."""
    (x_low, y_low), (x_high, y_high) = min(points), max(points)
    if x_high > x_low and y_high > y_low:
        slope = max(1.0, (y_high - y_low) / (x_high - x_low))
        return Overhead(y_high - slope * x_high, slope)
    offset = 0.0 if failures else BELIEVED_OFFSET * assumed.offset_bytes
    slope = max(1.0, (y_high - offset) / x_high)
    return Overhead(y_high - slope * x_high, slope)


class _Search:
    """The state of a search: the runs so far, and the next size."""

    def __init__(
        self,
        predict: Callable[[int], float],
        limit_bytes: int,
        max_batch: int,
        overhead: Overhead,
        max_probes: int,
    ) -> None:
        self.probes: list[Probe] = []
        self._max_probes = max_probes
        self._predict = predict
        self._limit_bytes = limit_bytes
        self._max_batch = max_batch
        self._assumed = overhead

    @property
    def _fitting(self) -> list[Probe]:
        """The runs that fitted, by size."""
        return sorted((probe for probe in self.probes if probe.fits), key=lambda probe: probe.batch_size)

    @property
    def _smallest_failed(self) -> int | None:
        """The smallest size that did not fit."""
        return min((probe.batch_size for probe in self.probes if not probe.fits), default=None)

    def next_size(self) -> int | None:
        """Return the size to run next. None when another run is not worth it."""
        fitting, failed = self._fitting, self._smallest_failed
        if not fitting:
            return self._first() if failed is None else self._below(failed)
        best = fitting[-1].batch_size
        if best == self._max_batch:
            return None
        if failed is not None:
            return self._between(best, failed)
        if best >= CLOSE * self._allowed(self._limit_bytes):
            return None
        size = self._allowed(self._limit_bytes * (1 - MARGIN))
        return size if size > best else None

    def result(self) -> LargestBatch:
        """Sum up."""
        fitting, failed = self._fitting, self._smallest_failed
        best = fitting[-1].batch_size if fitting else None
        allowed = self._allowed(self._limit_bytes)
        bound: Bound = "memory"
        if best is None:
            bound = "nothing fits"
            tried = ", ".join(str(probe.batch_size) for probe in self.probes)
            reason = f"no batch ran in full under the limit; tried {tried}"
        elif best == self._max_batch:
            bound = "samples"
            reason = f"{best} is the largest that was asked for, and it fits"
        elif failed is not None:
            reason = f"{best} ran in full under the limit, {failed} did not"
        else:
            reason = (
                f"{best} ran in full under the limit; by the measured line {allowed} would be the largest"
            )
        return LargestBatch(
            best, self._limit_bytes, bound, tuple(self.probes), self._overhead(), allowed, failed, reason
        )

    def _first(self) -> int:
        """Return the first size: it fits if the overhead is not above the assumed one."""
        size = self._largest(self._assumed, self._limit_bytes)
        # A limit that the assumed overhead alone would fill may still hold a batch.
        return size or max(1, self._largest(Overhead(0, 2), self._limit_bytes))

    def _below(self, failed: int) -> int | None:
        """Return a size far below the smallest that failed, while nothing has fitted."""
        broken = sum(probe.broken for probe in self.probes)
        if failed == 1 or broken > 1:
            return None
        if broken:
            return min(A_FEW, failed // 2)
        # A line from nothing through what the failed run wanted. A curve that bends upwards stays below it.
        wanted_bytes = max(self._limit_bytes, *(probe.needed_bytes or 0 for probe in self.probes[-1:]))
        room = self._limit_bytes / wanted_bytes
        return max(1, on_grid(int(failed * min(0.5 ** len(self.probes), room))))

    def _between(self, best: int, failed: int) -> int | None:
        """Return a size between the largest that fitted and the smallest that failed. None where they are close."""
        if best >= CLOSE * failed:
            return None
        broken = [probe.batch_size for probe in self.probes if probe.broken]
        if failed in broken:
            # Bytes do not explain it: try the half, then a quarter.
            size = on_grid(failed // 2 ** len(broken))
            size = size if size > best else on_grid((best + failed) // 2)
            return size if size > best else None
        down = STEPS_DOWN[min(max(1, self._failures_in_a_row()), len(STEPS_DOWN)) - 1] * failed
        size = min(self._allowed(self._limit_bytes * (1 - MARGIN)), on_grid(int(down)))
        if self._overhead().curve and len(self.probes) == self._max_probes - 1:
            # The last run, by a curve that what failed bounds on one side only.
            size = on_grid(int(best + LAST_STEP * (size - best)))
        if size <= best:
            size = on_grid((best + failed) // 2)
        return size if size > best else None

    def _failures_in_a_row(self) -> int:
        """Return how many of the last runs did not fit."""
        return next(
            (count for count, probe in enumerate(reversed(self.probes)) if probe.fits), len(self.probes)
        )

    def _allowed(self, limit_bytes: float) -> int:
        """Return the largest size that the line so far allows."""
        return self._largest(self._overhead(), limit_bytes)

    def _overhead(self) -> Overhead:
        """Return the line so far."""
        points = [
            (self._predict(probe.batch_size), probe.needed_bytes)
            for probe in self._fitting
            if probe.needed_bytes is not None
        ]
        failed = [probe for probe in self.probes if not probe.fits]
        bounds = [
            (self._predict(probe.batch_size), float(probe.needed_bytes))
            for probe in failed
            if probe.needed_bytes
        ]
        return fit_overhead(points, self._assumed, failures=len(failed), bounds=bounds)

    def _largest(self, overhead: Overhead, limit_bytes: float) -> int:
        """Return the largest size on the grid that `overhead` allows. The bound itself is on the grid."""
        size = largest_predicted(
            lambda batch_size: overhead.needed(self._predict(batch_size)), limit_bytes, self._max_batch
        )
        return size if size == self._max_batch else on_grid(size)
