from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest

from fusetune.bench.kernels.rounds import Rounds, StopRule, calls_in_sample, half_width, order_of
from fusetune.errors import InvalidValueError


def rounds(rule: StopRule, *sides: str, draw: float = 0.9) -> Rounds:
    return Rounds(sides or ("ours", "eager"), rule, lambda: draw)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_side_is_in_each_place_as_often(count: int) -> None:
    sides = "abcdefg"[:count]
    orders = [order_of(sides, number) for number in range(2 * count)]
    for place in range(count):
        assert Counter(order[place] for order in orders) == dict.fromkeys(sides, 2)


def test_each_side_follows_each_other_side() -> None:
    follows = {
        (order[i], order[i + 1])
        for number in range(6)
        for order in [order_of("abc", number)]
        for i in range(2)
    }
    assert follows == {(x, y) for x in "abc" for y in "abc" if x != y}


def test_the_interval_of_a_median_covers_it() -> None:
    """Of 1000 samples of 15 from an exponential distribution, about 96.5 % cover ln 2 (binomial, ranks 4 and 12)."""
    random = Random(1)
    covered = 0
    for _ in range(1000):
        values = sorted(random.expovariate(1.0) for _ in range(15))
        width = half_width(values) * values[7]
        assert width == pytest.approx((values[11] - values[3]) / 2)
        covered += values[3] <= math.log(2) <= values[11]
    assert 940 <= covered <= 985


def test_steady_times_end_at_the_least_and_noisy_ones_at_the_budget() -> None:
    rule = StopRule(least_rounds=6, most_rounds=100, budget_s=5.0)
    random = Random(3)
    steady, noisy = rounds(rule), rounds(rule)
    elapsed = {}
    for found, noise in ((steady, 1e-4), (noisy, 0.5)):
        now = 0.0
        while found.go_on(now):
            found.add({side: 1e-3 * (1 + noise * random.random()) for side in found.sides})
            now += 0.25
        elapsed[found.done] = now
    assert steady.done == 6
    assert noisy.done == 20
    assert steady.is_narrow
    assert not noisy.is_narrow


def test_a_ratio_that_is_not_narrow_goes_on() -> None:
    found = rounds(StopRule(least_rounds=6, most_rounds=100, budget_s=1e9))
    for i in range(8):
        found.add({"ours": 1e-3, "eager": 2e-3 * (1 + 0.1 * (i % 3))})
    assert half_width(found.latencies_s["ours"]) == 0
    assert found.go_on(0.0)
    found.lose("eager")
    assert not found.go_on(0.0)


def test_a_fifth_of_a_microsecond_is_narrow_for_short_calls() -> None:
    found = rounds(StopRule(), "ours")
    for i in range(8):
        found.add({"ours": 5e-6 + 1e-7 * (i % 3)})  # half width 2 %, 0.1 us
    assert found.is_narrow


def test_slow_rounds_end_after_twenty_seconds_though_they_are_few() -> None:
    found = rounds(StopRule(least_rounds=6, budget_s=2.0))
    now = 0.0
    while found.go_on(now):
        found.add({"ours": 3.0, "eager": 3.0})
        now += 6.0
    assert found.done == 4


def test_void_rounds_end_it_too() -> None:
    found = rounds(StopRule(least_rounds=6, most_rounds=20))
    while found.go_on(0.0):
        found.add_void()
    assert (found.done, found.void) == (0, 20)


def test_about_a_quarter_is_checked_by_chance() -> None:
    random = Random(5)
    counts = []
    for _ in range(200):
        found = Rounds(("ours",), StopRule(), random.random)
        counts.append(sum(found.is_checked() for _ in range(12)))
    assert 2.2 < sum(counts) / 200 < 3.6
    assert max(counts) <= 6
    assert len(set(counts)) > 3


@pytest.mark.parametrize(
    ("call_s", "calls"), [(0.0, 16), (1e-7, 16), (5e-6, 4), (19e-6, 2), (2e-5, 1), (1.0, 1)]
)
def test_short_calls_make_a_sample_together(call_s: float, calls: int) -> None:
    assert calls_in_sample(call_s) == calls


def test_a_rule_that_never_times_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="above 0 and in order"):
        StopRule(least_rounds=7, most_rounds=6)
    with pytest.raises(InvalidValueError, match="the budget is above 0"):
        StopRule(budget_s=0)
