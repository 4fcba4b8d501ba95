"""The default against its challenger: how often it loses to its equal, and what is seen of a gain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusetune.bench.autotune import confirm, run_race
from fusetune.bench.autotune.confirmation import LOOKS, RISK, interval
from tests.bench.autotune.noise import noisy

SEARCHES = 1000


def _replaced(seed: int, *, scale: float, outliers: float, drift: float, correlation: float) -> bool:
    """A whole search among identical candidates, the default being one of them."""
    sample = noisy([1.0] * 4, seed, scale=scale, outliers=outliers, drift=drift, correlation=correlation)
    found = run_race(4, sample, seed=seed, most_samples=60)
    if found.winner == 0:
        return False
    fresh = 1000
    sides = {"default": 0, "challenger": found.winner}
    return confirm(lambda side, turn: sample(sides[side], fresh + turn), seed=seed).replaces


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "outliers", "drift", "correlation"),
    [(0.2, 0.2, 0.02, 0.0), (0.02, 0.05, 0.01, 0.8)],
)
def test_the_default_stays_in_99_of_100_searches_among_its_equals(
    scale: float, outliers: float, drift: float, correlation: float
) -> None:
    replaced = sum(
        _replaced(seed, scale=scale, outliers=outliers, drift=drift, correlation=correlation)
        for seed in range(SEARCHES)
    )
    assert replaced <= SEARCHES / 100


def test_the_default_stays_against_its_equal_by_the_law_of_the_test() -> None:
    """The noise alternates in time and has no variance of its own: only the random order protects the default."""
    replaced = 0
    for seed in range(SEARCHES):
        calls = [0]

        def sample(side: str, turn: int, calls: list[int] = calls) -> float:
            calls[0] += 1
            return 1.0 + 0.01 * (calls[0] % 2) + 1e-6 * turn

        replaced += confirm(sample, seed=seed).replaces
    assert replaced <= SEARCHES * RISK * 1.5


def test_a_gain_above_the_noise_replaces_the_default() -> None:
    for seed in range(30):
        sample = noisy([1.0, 0.95], seed)
        found = confirm(lambda side, turn: sample(int(side == "challenger"), turn), seed=seed)  # noqa: B023
        assert found.replaces
        assert found.low <= 1 / 0.95 * 1.03
        assert found.low > 1.0
        assert found.gain == pytest.approx(1 / 0.95, rel=0.04)


def test_what_is_slower_ends_at_the_first_look() -> None:
    found = confirm(lambda side, turn: 1.0 + 0.2 * (side == "challenger") + 1e-4 * turn)
    assert not found.replaces
    assert len(found.defaults_s) == LOOKS[0]
    assert found.complete


def test_a_budget_that_ends_keeps_the_default() -> None:
    left = [15]

    def may_go_on() -> bool:
        left[0] -= 1
        return left[0] >= 0

    found = confirm(lambda side, turn: 1.0 + (side == "default"), may_go_on=may_go_on)
    assert not found.replaces
    assert not found.complete
    assert len(found.defaults_s) == 7


@pytest.mark.parametrize(("failing", "replaces"), [("challenger", False), ("default", True)])
def test_a_side_that_fails_loses(failing: str, replaces: bool) -> None:
    found = confirm(lambda side, turn: math.inf if side == failing else 1.0)
    assert found.replaces is replaces
    assert math.isnan(found.gain)


def test_the_interval_holds_the_gain_in_95_of_100_cases() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        low, high = interval(np.log(1.1) + 0.05 * generator.standard_t(3, 12))
        held += low <= 1.1 <= high
    assert 930 <= held <= 985
