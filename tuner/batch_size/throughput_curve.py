"""Samples a second against batch size, with intervals, and where a larger batch stops being faster (no torch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from scipy.optimize import isotonic_regression

from fusetune.errors import InvalidValueError
from fusetune.tuner.measure import Contention, ProcessorWatch, total

if TYPE_CHECKING:
    from fusetune.tuner.measure import Stopwatch

# With fewer, not even the whole range of the rounds is a 95 % interval of their median.
LEAST_ROUNDS = 6
# Of 12 rounds, two at each end may be disturbed and the 95 % interval does not notice.
ROUNDS = 12
CONFIDENCE = 0.95
TOLERANCE = 0.05
# An estimate that is worse than the best by this factor is not taken, however wide its interval.
CLEARLY_WORSE = 1.15
# Of the logarithm of an interval, for weights: rounds that agree by chance are not worth endlessly much.
_LEAST_WIDTH = 0.01
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Throughput:
    """The measured throughput of one batch size.

    Args:
        batch_size: samples in a forward.
        step_times_s: seconds of a step in each round.
        step_time_s: their median.
        samples_per_s: samples of a step over `step_time_s`.
        low: lower end of the interval of `samples_per_s`.
        high: upper end.
    """

    batch_size: int
    step_times_s: tuple[float, ...]
    step_time_s: float
    samples_per_s: float
    low: float
    high: float


@dataclass(frozen=True)
class Plateau:
    """The sizes from which on throughput no longer rises.

    Args:
        start: the smallest batch size on it.
        best: the batch size with the highest throughput by `smoothed_step_times`.
        reached: False where only the largest measured size is on it, so that throughput may rise further.
    """

    start: int
    best: int
    reached: bool


@dataclass(frozen=True)
class StepTimes:
    """The step times of each batch size, and the share of the processor that these timings missed.

    Args:
        seconds: batch size -> seconds of a step in each round.
        contention: of the rounds that are kept.
    """

    seconds: dict[int, list[float]]
    contention: Contention


def measure_step_times(
    steps: Mapping[int, Callable[[], object]],
    *,
    stopwatch: Stopwatch,
    rounds: int = ROUNDS,
    round_s: float = 0.05,
    watch: ProcessorWatch | None = None,
) -> StepTimes:
    """Time training steps at several batch sizes in turn: A B C, A B C, ...

    Drift of the machine so hits all sizes alike. Two steps of each size, from the smallest on, are a burn-in. The
    second says how many steps make a round of about `round_s`. A contended round is made
    again, until there are enough quiet ones or twice as many rounds. The least contended are kept.

    Args:
        steps: batch size -> what makes one whole step of it: batch, forward, backward, update.
        stopwatch: paused, and of the device that the steps run on.
        rounds: of each size, 6 or more.
        round_s: seconds. A step that takes longer is a round by itself.
        watch: says what a round missed of the processor. default: a new one.

    Raises:
        ValueError: nothing to time, or too few rounds.

    Example:
        >>> from fusetune.tuner.measure.stopwatch import Stopwatch
        >>> found = measure_step_times({8: lambda: sum(range(80)), 64: lambda: sum(range(640))},
        ...                            stopwatch=Stopwatch("cpu"), rounds=6, round_s=1e-4)
        >>> [(size, len(times)) for size, times in found.seconds.items()]
        [(8, 6), (64, 6)]
    """
    if not steps:
        raise InvalidValueError("steps", "there is no batch size to time", to_do="Give at least one")
    if rounds < LEAST_ROUNDS:
        raise InvalidValueError(
            "rounds", f"{rounds} are too few for an interval", to_do=f"Take {LEAST_ROUNDS} or more"
        )
    watch = watch or ProcessorWatch()
    counts = {size: _burn_in(steps[size], stopwatch, round_s) for size in sorted(steps)}
    earlier = len(stopwatch.laps_s())
    contentions: list[Contention] = []
    while sum(not found.contended for found in contentions) < rounds and len(contentions) < 2 * rounds:
        watch.start()
        for size, count in counts.items():
            stopwatch.resume()
            for _ in range(count):
                steps[size]()
            stopwatch.lap()
            stopwatch.pause()
        contentions.append(watch.stop())
    laps = stopwatch.laps_s()[earlier:]
    kept = sorted(range(len(contentions)), key=lambda index: contentions[index].missing or 0.0)[:rounds]
    kept.sort()
    seconds = {
        size: [laps[index * len(counts) + place] / count for index in kept]
        for place, (size, count) in enumerate(counts.items())
    }
    return StepTimes(seconds, total(contentions[index] for index in kept))


def _burn_in(step: Callable[[], object], stopwatch: Stopwatch, round_s: float) -> int:
    """Make a first and a second step, and return how many fill a round."""
    step()
    start_s = stopwatch.now_s()
    step()
    step_s = stopwatch.now_s() - start_s
    return _MOST_STEPS if step_s <= 0 else min(_MOST_STEPS, max(1, math.ceil(round_s / step_s)))


def throughput(batch_size: int, step_times_s: Sequence[float], *, accumulation_steps: int = 1) -> Throughput:
    """Sum up the rounds of one batch size: the median, and its 95 % interval from order statistics.

    Args:
        batch_size: samples in a forward.
        step_times_s: seconds of a step in each round, above 0.
        accumulation_steps: forwards in a step.

    Raises:
        ValueError: no rounds.

    Example:
        >>> found = throughput(10, [1.0, 2.0, 2.0, 2.0, 4.0, 5.0])
        >>> found.step_time_s, found.samples_per_s, found.low, found.high
        (2.0, 5.0, 2.0, 10.0)
    """
    if not step_times_s:
        raise InvalidValueError(
            "step_times_s", f"batch size {batch_size} has no rounds", to_do="Measure some"
        )
    samples = batch_size * accumulation_steps
    shortest, longest = median_interval(step_times_s)
    step_time_s = median(step_times_s)
    rate = samples / step_time_s
    return Throughput(
        batch_size, tuple(step_times_s), step_time_s, rate, samples / longest, samples / shortest
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a median, whatever the distribution.

    Of n values in their order, the k-th from below and from above hold the true median between them with probability
    1 - 2 P(Binomial(n, 1/2) < k). This k is the largest that keeps 95 %. With fewer than 6 values no k does, and the
    interval is their whole range.

    Example:
        >>> median_interval([5, 1, 9, 3, 7, 2, 8, 4, 6])
        (2, 8)
    """
    ordered = sorted(values)
    outside, skipped = 0.0, 0
    while True:
        outside += 2 * math.comb(len(ordered), skipped) / 2 ** len(ordered)
        if 1 - outside < CONFIDENCE:
            break
        skipped += 1
    skipped = max(0, skipped - 1)
    return ordered[skipped], ordered[-1 - skipped]


def smoothed_step_times(points: Sequence[Throughput]) -> dict[int, float]:
    """Return step times that do not fall with the batch size: the closest such to the medians' logarithms.

    A larger batch takes no less time, so a size that seems to was disturbed, or its smaller neighbours were. What falls
    is pooled, each median weighing as much as its interval is narrow (isotonic regression). One size that was lucky in
    most of its rounds so does not become the best.

    Args:
        points: of different sizes.

    Returns:
        batch size -> seconds of a step, by size.

    Example:
        >>> points = [throughput(size, [time] * 6) for size, time in ((8, 2.0), (16, 1.0), (32, 4.0))]
        >>> {size: round(time, 3) for size, time in smoothed_step_times(points).items()}
        {8: 1.414, 16: 1.414, 32: 4.0}
    """
    ordered = sorted(points, key=lambda point: point.batch_size)
    logarithms = [math.log(point.step_time_s) for point in ordered]
    weights = [max(_LEAST_WIDTH, math.log(point.high / point.low)) ** -2 for point in ordered]
    smoothed = isotonic_regression(logarithms, weights=weights).x
    return {point.batch_size: math.exp(log) for point, log in zip(ordered, smoothed, strict=True)}


def find_plateau(points: Sequence[Throughput], *, tolerance: float = TOLERANCE) -> Plateau:
    """Find the smallest batch size that is not slower than the best by more than `tolerance`, see `near_best`.

    Args:
        points: at least one, of different sizes, measured in the same rounds.
        tolerance: share of the best throughput, in [0, 1).

    Raises:
        ValueError: no points, rounds that do not match, or a tolerance out of range.

    Example:
        >>> rates = {16: 500, 32: 800, 64: 970, 128: 1000, 256: 990}
        >>> find_plateau([throughput(size, [size / rate] * 6) for size, rate in rates.items()])
        Plateau(start=64, best=128, reached=True)
    """
    near = near_best(points, lambda size: 1.0, tolerance)
    return Plateau(near.size, near.best, near.size < max(point.batch_size for point in points))


@dataclass(frozen=True)
class NearBest:
    """The smallest batch size that takes about the least time.

    Args:
        size: the smallest of them.
        best: the one whose estimate is the least.
        doubtful: smaller sizes that the rounds cannot rule out, though their estimates are clearly worse.
    """

    size: int
    best: int
    doubtful: tuple[int, ...]


def near_best(points: Sequence[Throughput], samples: Callable[[int], float], tolerance: float) -> NearBest:
    """Return the smallest size that takes about the least time.

        t_B  = samples(B) * smoothed step time of B / B                   best = argmin t_B
        r_B  = median over the rounds of (time at B / time at the best, same round)
        size = min { B : t_B / t_best <= 1 / (1 - tolerance), or
                         t_B / t_best <= 1.15 and the lower end of the 95 % interval of r_B <= 1 / (1 - tolerance) }

    Rounds are compared with each other, for what slowed the machine down in one slowed all its sizes. An interval alone
    is no reason: the wider it is, the more it holds.

    Args:
        points: at least one, of different sizes, measured in the same rounds.
        samples: batch size -> samples that are to be seen, up to a factor.
        tolerance: in [0, 1).

    Raises:
        ValueError: as `find_plateau`.
    """
    if not points:
        raise InvalidValueError("points", "there are none", to_do="Measure at least one batch size")
    if not 0 <= tolerance < 1:
        raise InvalidValueError("tolerance", f"{tolerance} must be in [0, 1)")
    if len({len(point.step_times_s) for point in points}) > 1:
        raise InvalidValueError("points", "have different numbers of rounds", to_do="Measure them together")
    smoothed = smoothed_step_times(points)
    rounds = {point.batch_size: point.step_times_s for point in points}
    weights = {size: samples(size) / size for size in smoothed}
    best = min(smoothed, key=lambda size: weights[size] * smoothed[size])
    most = 1 / (1 - tolerance)

    def estimate(size: int) -> float:
        return weights[size] * smoothed[size] / (weights[best] * smoothed[best])

    def least(size: int) -> float:
        ratios = [own / other for own, other in zip(rounds[size], rounds[best], strict=True)]
        return weights[size] / weights[best] * median_interval(ratios)[0]

    possible = [size for size in smoothed if estimate(size) <= most or least(size) <= most]
    size = min(size for size in possible if estimate(size) <= max(most, CLEARLY_WORSE))
    return NearBest(size, best, tuple(other for other in possible if other < size))
