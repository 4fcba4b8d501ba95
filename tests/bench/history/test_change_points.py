"""Change points against exhaustive search, against noise of a known size, and against outliers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusetune.bench.history.change_points import (
    LEAST_RUNS,
    NOISE_FLOOR,
    PENALTY,
    find_change_points,
    find_steps,
    noise_of,
    quietest,
)


def cost(levels: np.ndarray) -> float:
    """Summed absolute deviations from the median."""
    return float(np.abs(levels - np.median(levels)).sum())


def best_split(levels: np.ndarray) -> tuple[int, float]:
    """Try every split: the best one, and what it saves."""
    saved = {
        at: cost(levels) - cost(levels[:at]) - cost(levels[at:])
        for at in range(LEAST_RUNS, len(levels) - LEAST_RUNS + 1)
    }
    at = max(saved, key=lambda each: saved[each])
    return at, saved[at]


@pytest.mark.parametrize("seed", range(30))
def test_a_jump_is_where_exhaustive_search_finds_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 0.01, 40)
    levels[int(rng.integers(10, 30)) :] += 0.08
    at, _ = best_split(levels)
    assert [point.index for point in find_change_points(list(levels))] == [at]
    (point,) = find_change_points(list(levels))
    assert point.before == pytest.approx(np.median(levels[:at]))
    assert point.after == pytest.approx(np.median(levels[at:]))


@pytest.mark.parametrize("seed", range(60))
def test_a_jump_is_named_if_it_saves_more_than_the_penalty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 0.01, 24)
    levels[12:] += rng.uniform(0.02, 0.05)
    _, saved = best_split(levels)
    found = find_change_points(list(levels), noise=0.01, threshold=0.0)
    # Of two splits that together save enough, the tree may keep both: then one alone is no measure.
    if len(found) < 2:
        assert bool(found) == (saved / 0.01 > PENALTY)


def test_several_jumps_up_and_down_are_found() -> None:
    rng = np.random.default_rng(0)
    levels = np.concatenate([rng.normal(mean, 0.01, 15) for mean in (0.0, 0.1, 0.03, 0.03)])
    found = find_change_points(list(levels))
    assert [point.index for point in found] == [15, 30]
    assert found[0].jump > 0 > found[1].jump


def test_what_is_only_moved_or_turned_over_has_the_same_change_points() -> None:
    rng = np.random.default_rng(5)
    levels = np.concatenate([rng.normal(0, 0.01, 20), rng.normal(0.06, 0.01, 20)])
    places = [point.index for point in find_change_points(list(levels))]
    assert places == [20]
    assert [point.index for point in find_change_points(list(levels + 7))] == places
    assert [point.index for point in find_change_points(list(-levels))] == places


@pytest.mark.parametrize("outliers", [1, 2])
@pytest.mark.parametrize("at", [0, 7, 20, 28])
def test_one_or_two_outliers_are_no_change(at: int, outliers: int) -> None:
    levels = np.random.default_rng(1).normal(0, 0.01, 30)
    levels[at : at + outliers] += 0.7
    assert find_change_points(list(levels)) == ()


def test_normal_noise_hardly_ever_has_a_change_point() -> None:
    rng = np.random.default_rng(2)
    found = [bool(find_change_points(list(rng.normal(0, 0.02, 30)))) for _ in range(300)]
    assert sum(found) <= 3


def test_a_jump_below_the_threshold_or_the_noise_is_not_named() -> None:
    rng = np.random.default_rng(3)
    small = np.concatenate([rng.normal(0, 0.003, 60), rng.normal(0.015, 0.003, 60)])
    assert find_change_points(list(small)) == ()
    assert [point.index for point in find_change_points(list(small), threshold=0.01)] == [60]
    within = np.concatenate([rng.normal(0, 0.05, 200), rng.normal(0.04, 0.05, 200)])
    assert find_change_points(list(within)) == ()


def test_a_series_of_equal_numbers_has_the_least_noise_that_is_assumed() -> None:
    step = 10 * NOISE_FLOOR
    assert find_change_points([0.0] * 20) == ()
    assert [point.index for point in find_change_points([0.0] * 10 + [step] * 10, threshold=0.01)] == [10]


def test_nothing_is_said_of_few_runs() -> None:
    assert find_change_points([0.0] * 4 + [1.0] * 3) == ()
    assert len(find_change_points([0.0] * 4 + [1.0] * 4)) == 1


def test_the_noise_is_the_standard_deviation_and_a_jump_is_none() -> None:
    levels = np.random.default_rng(4).normal(0, 0.02, 20_000)
    assert noise_of(list(levels)) == pytest.approx(0.02, rel=0.03)
    levels[10_000:] += 5
    assert noise_of(list(levels)) == pytest.approx(0.02, rel=0.03)
    assert noise_of([1.0]) == noise_of([]) == 0.0


def test_rare_disturbances_count_as_noise() -> None:
    levels = np.zeros(100)
    levels[::6] = 0.3
    assert noise_of(list(levels)) == pytest.approx(0.3 / 1.645 / math.sqrt(2))


def test_the_quietest_measure_is_taken() -> None:
    rng = np.random.default_rng(6)
    candidates = {
        name: list(rng.normal(0, noise, 30)) for name, noise in (("a", 0.02), ("b", 0.01), ("c", 0.04))
    }
    assert quietest(candidates) == "b"


def test_steps_of_a_series_without_noise() -> None:
    assert [point.index for point in find_steps([1.0, 1.0, 2.0, 2.0, 2.0, 1.0])] == [2, 5]
    assert [point.index for point in find_steps([1.0, 2.0, 2.0, 1.0, 1.0])] == []
    assert [point.index for point in find_steps([1.0, 2.0, 3.0])] == [1, 2]
    assert find_steps([]) == find_steps([5.0]) == ()
