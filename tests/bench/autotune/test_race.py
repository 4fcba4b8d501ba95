"""Races between scripted candidates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from fusetune.bench.autotune import Rules, pseudomedian, run_race
from tests.bench.autotune.noise import noisy


def test_the_fastest_of_clearly_different_candidates_wins_by_few_samples() -> None:
    seconds = [1.0 + 0.2 * i for i in range(30)]
    for seed in range(20):
        found = run_race(30, noisy(seconds, seed), seed=seed)
        assert found.winner == 0
        assert found.timings < 30 * 6


def test_the_regret_stays_small_where_candidates_are_close() -> None:
    generator = np.random.default_rng(0)
    regrets, timings = [], []
    for seed in range(60):
        seconds = (1.0 + np.sort(generator.exponential(0.03, 20))).tolist()
        found = run_race(20, noisy(seconds, seed), seed=seed)
        regrets.append(seconds[found.winner] / seconds[0] - 1)
        timings.append(found.timings)
    assert np.mean(regrets) < 0.004
    assert np.quantile(regrets, 0.95) < 0.015
    assert np.mean(timings) < 20 * 40


def test_equal_candidates_end_early() -> None:
    timings = [run_race(10, noisy([1.0] * 10, seed), seed=seed).timings for seed in range(20)]
    assert np.mean(timings) < 10 * Rules().most_rounds / 2


def test_a_drift_of_the_machine_changes_nothing() -> None:
    """Here the machine becomes twice as slow within ten rounds, by much more than the candidates differ."""
    for seed in range(20):
        steady = noisy([1.0, 1.05], seed, drift=0.0)

        def sample(candidate: int, turn: int, steady: Callable[[int, int], float] = steady) -> float:
            return steady(candidate, turn) * min(2.0, 1 + turn / 10)

        found = run_race(2, sample, seed=seed)
        assert found.winner == 0


def test_an_outlier_takes_nobody_out() -> None:
    """The best is disturbed in one of the first three rounds, when all are still there."""
    times = {0: [1.0], 1: [1.2]}
    for disturbed in range(3):
        found = run_race(2, lambda i, turn: times[i][0] * (50 if (i, turn) == (0, disturbed) else 1))  # noqa: B023
        assert found.winner == 0


def test_each_round_times_each_candidate_that_is_left_once_in_random_order() -> None:
    asked: list[tuple[int, int]] = []

    def sample(candidate: int, turn: int) -> float:
        asked.append((turn, candidate))
        return 1.0 + candidate

    found = run_race(5, sample, seed=3)
    rounds = Counter(turn for turn, _ in asked)
    assert all(len({c for t, c in asked if t == turn}) == count for turn, count in rounds.items())
    assert tuple(candidate for turn, candidate in asked if turn == 0) == found.order[0]
    assert len({found.order[turn] for turn in range(3)}) > 1


def test_a_candidate_that_fails_leaves_and_the_others_go_on() -> None:
    found = run_race(3, lambda i, turn: math.inf if i == 0 and turn == 1 else 1.0 + i)
    assert found.winner == 1
    assert found.left[0].why == "failed"
    assert run_race(2, lambda i, turn: math.nan).winner is None
    assert run_race(2, lambda i, turn: math.nan).end == "all failed"


def test_the_budget_is_asked_for_before_each_sample() -> None:
    taken = []

    def sample(candidate: int, turn: int) -> float:
        taken.append(candidate)
        return 1.0 + candidate / 100

    found = run_race(10, sample, may_go_on=lambda: len(taken) < 25)
    assert len(taken) == 25
    assert found.end == "budget"
    assert len(found.samples_s) == 2  # the round that was begun does not count
    assert run_race(10, sample, may_go_on=lambda: False).winner == 0


def test_one_candidate_is_timed_for_a_few_rounds_only() -> None:
    assert run_race(1, lambda i, turn: 1.0).timings == Rules().least_rounds


def test_samples_are_never_above_what_is_asked() -> None:
    found = run_race(10, noisy([1.0] * 10, 0), most_samples=95)
    assert found.timings <= 95


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_pseudomedian_is_the_median_of_the_means_of_all_pairs(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    means = [(values[i] + values[j]) / 2 for i in range(n) for j in range(i, n)]
    assert float(pseudomedian(values)) == pytest.approx(float(np.median(means)))
