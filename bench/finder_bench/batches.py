"""Batch finders against the largest batch that there is, found by bisection with a fresh process for each size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from fusetune.bench.finder_bench.jobs import Answer, Job

# Bisection ends when the largest that trains and the smallest that does not differ by less than this.
CLOSE = 0.005
_FIRST = 16
# A found size is trained so many times, each in a fresh process.
TRIES = 3

_CASES = "fusetune.bench.finder_bench.batch_cases"
_FIND = "fusetune.bench.finder_bench.batch_finders:find"
Ask = Callable[[Job], Answer]


@dataclass(frozen=True)
class FoundBatch:
    """What a finder came to on one case.

    Args:
        finder: its name.
        case: its name.
        true: the largest batch that trains, by bisection.
        size: what the finder said. None: nothing.
        failure: why it said nothing: its error, or how its process ended. Else empty.
        trained: in so many of `TRIES` fresh processes the size trains.
    """

    finder: str
    case: str
    true: int
    size: int | None
    failure: str = ""
    trained: int = 0

    @property
    def share(self) -> float:
        """Found over true. 0 where nothing was found.

        Example:
            >>> FoundBatch("a", "b", true=200, size=150).share
            0.75
        """
        return (self.size or 0) / self.true

    @property
    def usable_share(self) -> float:
        """The share, but 0 for a size that does not train in each of the fresh processes.

        Example:
            >>> FoundBatch("a", "b", true=200, size=150, trained=TRIES - 1).usable_share
            0.0
        """
        return self.share if self.trained == TRIES else 0.0

    @property
    def survived(self) -> bool:
        """Whether the finder ended with a size."""
        return self.size is not None


def largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest size that fits, within 0.5 %, by doubling and bisection. 0 where not even 1 fits.

    Args:
        fits: runs a size.
        most: the largest size that counts, 1 or more.

    Example:
        >>> largest(lambda size: size <= 147, 1000), largest(lambda size: True, 100), largest(lambda size: False, 9)
        (147, 100, 0)
    """
    low, high = 0, min(_FIRST, most)
    while fits(high):
        low = high
        if low == most:
            return most
        high = min(2 * high, most)
    while high - low > max(1, int(CLOSE * low)):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def compare_batches(
    cases: Mapping[str, int], finders: Sequence[str], *, ask: Ask, lanes: int = 1
) -> list[FoundBatch]:
    """Find the true largest batch of each case, ask every finder, and train what it found.

    Args:
        cases: name -> number of samples, which bounds the size.
        finders: names.
        ask: runs a job in a fresh process.
        lanes: jobs at work at the same time.
    """

    def trains(case: str, size: int) -> bool:
        return ask(Job(f"{_CASES}:trains", {"case": case, "batch_size": size}, group="trains")).value is True

    def judge(finder: str, case: str, true: int) -> FoundBatch:
        answer = ask(Job(_FIND, {"finder": finder, "case": case}, timeout_s=600.0))
        size = answer.value or None
        failure = "" if size else answer.failure or "found no size"
        trained = sum(trains(case, size) for _ in range(TRIES)) if size else 0
        return FoundBatch(finder, case, true, size, failure, trained)

    with ThreadPoolExecutor(lanes) as pool:
        bounds = {
            case: pool.submit(largest, partial(trains, case), samples) for case, samples in cases.items()
        }
        true = {case: bound.result() for case, bound in bounds.items()}
        found = [
            pool.submit(judge, finder, case, true[case]) for case in cases if true[case] for finder in finders
        ]
        return [each.result() for each in found]
