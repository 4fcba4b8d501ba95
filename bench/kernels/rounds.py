"""The order of a benchmark's rounds, and when there are enough (pure: neither clock nor random numbers of its own).

In a round every side is timed once, on the same fresh values. Round r of k sides takes them in this order:

    rotated by r, and backwards in every second turn of k rounds

So each side is first as often as last, and follows each of the others. Rounds go on until the interval is narrow of
the kernel's median latency, and of the median of each ratio of a competitor's latency to it in the same round:

    half width <= max(1 %, 0.2 us / latency)

The intervals are between order statistics, at 95 %. They hold whatever the distribution is (`stats.median_ratio`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from fusetune.bench.stats import median_ratio
from fusetune.errors import InvalidValueError

# A sample of short calls lasts about so long, so that what the clock itself takes is a small part.
_SAMPLE_S = 20e-6
_MOST_CALLS = 16
# Of the rounds so many are checked, by chance, and at least so many in all.
_CHECKED_SHARE = 0.25
LEAST_CHECKED = 2
_MOST_CHECKED = 6
# The least rounds may take so long, whatever the budget.
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class StopRule:
    """When there are enough rounds.

    Args:
        relative: half width of an interval, as a part of the value.
        absolute_s: half width of a latency's interval that is narrow whatever the latency.
        least_rounds: are always made, unless they take four times the budget and 20 seconds.
        most_rounds: the end.
        budget_s: no round begins later.
    """

    relative: float = 0.01
    absolute_s: float = 0.2e-6
    least_rounds: int = 6
    most_rounds: int = 60
    budget_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse rules that never time, or never end."""
        if not (0 < self.least_rounds <= self.most_rounds and self.budget_s > 0):
            raise InvalidValueError(
                "rounds",
                f"at least {self.least_rounds}, at most {self.most_rounds} within {self.budget_s} s",
                "both counts are above 0 and in order, and the budget is above 0",
            )


@dataclass
class Rounds:
    """The rounds of one row: what is next, and what was found.

    Args:
        sides: names, the kernel's own first.
        rule: when there are enough.
        draw: a secret random number in [0, 1), for which rounds are checked.

    Attributes:
        latencies_s: side -> seconds of a call, one value a round that counts.
        void: rounds that were void, whatever the side.

    Example:
        >>> rounds = Rounds(("ours", "eager"), StopRule(least_rounds=2, most_rounds=2), draw=lambda: 0.9)
        >>> while rounds.go_on(elapsed_s=0.0):
        ...     order = rounds.order()
        ...     rounds.add({"ours": 1.0, "eager": 2.0})
        >>> order, rounds.latencies_s
        (['eager', 'ours'], {'ours': [1.0, 1.0], 'eager': [2.0, 2.0]})
    """

    sides: Sequence[str]
    rule: StopRule
    draw: Callable[[], float]
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    void: int = 0
    checked: int = 0
    _begun: int = 0

    def __post_init__(self) -> None:
        """Begin with no round."""
        self.latencies_s = {side: [] for side in self.sides}

    @property
    def done(self) -> int:
        """Rounds that count."""
        return len(self.latencies_s[self.sides[0]])

    def order(self) -> list[str]:
        """Return the sides in the order of the next round."""
        found = order_of([side for side in self.sides if side in self.latencies_s], self._begun)
        self._begun += 1
        return found

    def is_checked(self) -> bool:
        """Draw whether the results of the next round's timed calls are checked. Nobody can know it beforehand."""
        if self.checked >= _MOST_CHECKED or self.draw() >= _CHECKED_SHARE:
            return False
        self.checked += 1
        return True

    def add(self, latencies_s: Mapping[str, float]) -> None:
        """Add a round.

        Args:
            latencies_s: of every side that is not lost.
        """
        for side in self.latencies_s:
            self.latencies_s[side].append(latencies_s[side])

    def add_void(self) -> None:
        """Count a round that says nothing of any side, because the device was throttled."""
        self.void += 1

    def lose(self, side: str) -> None:
        """Leave a side out from now on."""
        self.latencies_s.pop(side, None)

    def go_on(self, elapsed_s: float) -> bool:
        """Whether another round is to be made.

        Args:
            elapsed_s: seconds since the first round began.
        """
        rule, begun = self.rule, self.done + self.void
        if begun >= rule.most_rounds:
            return False
        if self.done < rule.least_rounds:
            return elapsed_s < max(4 * rule.budget_s, _PATIENCE_S) or self.done == 0
        return elapsed_s < rule.budget_s and not self.is_narrow

    @property
    def is_narrow(self) -> bool:
        """Whether all intervals are narrow enough."""
        return all(width <= max(self.rule.relative, floor) for width, floor in self._half_widths())

    @property
    def half_width(self) -> float:
        """That of the kernel's own median, as a part of it. Infinite with fewer than six rounds."""
        return half_width(self.latencies_s[self.sides[0]])

    def _half_widths(self) -> list[tuple[float, float]]:
        """Half widths of the median and of the ratios, each with what is narrow whatever the latency."""
        ours, *others = self.latencies_s.values()
        floor = self.rule.absolute_s / median(ours) if ours else 0.0
        ratios = ([a / b for a, b in zip(other, ours, strict=True)] for other in others)
        return [(half_width(values), floor) for values in (ours, *ratios)]


def order_of(sides: Sequence[str], round_: int) -> list[str]:
    """Return the order of a round, by its number.

    Example:
        >>> [" ".join(order_of("abc", number)) for number in range(6)]
        ['a b c', 'b c a', 'c a b', 'c b a', 'b a c', 'a c b']
    """
    count = len(sides)
    turn, shift = divmod(round_, count)
    if turn % 2:
        backwards = list(reversed(sides))
        return backwards[shift:] + backwards[:shift]
    return [*sides[shift:], *sides[:shift]]


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a median, as a part of the median.

    Example:
        >>> half_width([1.0, 1.0, 1.02, 1.0, 1.01, 0.98]), half_width([1.0])
        (0.02..., inf)
    """
    found = median_ratio([(value, 1.0) for value in values])
    if found is None or found.low is None or found.high is None:
        return math.inf
    return (found.high - found.low) / 2 / found.value


def calls_in_sample(call_s: float) -> int:
    """Return how many calls make a sample that is long enough.

    Args:
        call_s: about the seconds of a call.

    Example:
        >>> calls_in_sample(5e-6), calls_in_sample(1e-3)
        (4, 1)
    """
    return max(1, min(_MOST_CALLS, math.ceil(_SAMPLE_S / call_s))) if call_s > 0 else _MOST_CALLS
