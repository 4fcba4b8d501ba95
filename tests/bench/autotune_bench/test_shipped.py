"""The landscapes that are shipped: the race replayed on them, and the default among its equals in recorded noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fusetune.bench.autotune import LARGE_SPACE, confirm, run_race
from fusetune.bench.autotune_bench.landscape import Landscape, load_all
from fusetune.bench.autotune_bench.problems import PROBLEMS
from fusetune.bench.autotune_bench.replay import RULES, score, searching

SEARCHES = 1000


@cache
def shipped() -> list[Landscape]:
    return load_all()


def test_every_problem_is_shipped_with_its_whole_space_and_raw_samples() -> None:
    assert len(shipped()) >= 30
    assert {each.name for each in shipped()} == set(PROBLEMS)
    for each in shipped():
        assert list(each.configs) == list(PROBLEMS[each.name].configs)
        assert len(each.code_of) == len(each.configs)
        assert set(each.code_of) == set(range(each.codes))
        assert len(each.samples_s) >= 80
        assert (each.samples_s[:40] > 0).all()


@pytest.mark.slow
def test_the_race_has_less_regret_than_tritons_rule_by_half_the_samples() -> None:
    ours = score(shipped(), RULES["race"], starts=2)
    assert ours.share <= 0.5
    # A fixed number of rounds by twice the samples has more than twice the regret, too.
    assert ours.regrets.mean() < score(shipped(), RULES["fixed, median"], starts=2).regrets.mean() / 2
    for name in ("triton, median", "triton, mean"):
        assert ours.regrets.mean() < score(shipped(), RULES[name], starts=2).regrets.mean()


@pytest.mark.slow
def test_the_search_of_a_large_space_is_within_3_percent_of_the_best_by_a_quarter_of_it() -> None:
    large = [each for each in shipped() if each.codes > LARGE_SPACE]
    assert len(large) >= 3
    for each in large:  # that a quarter is tried at most, `searching` asserts
        assert np.quantile(score([each], searching, starts=5).regrets, 0.95) <= 0.03


def _is_replaced(landscape: Landscape, seed: int) -> bool:
    """A search among four equal configs. Each time is a recorded one of the same config, in the recorded order."""
    generator = np.random.default_rng(seed)
    times_s = landscape.samples_s[:, generator.choice(landscape.whole)]
    start = int(generator.integers(len(times_s)))
    turning = iter(range(start, 10**9))

    def sample(*_which: object) -> float:
        return float(times_s[next(turning) % len(times_s)])

    found = run_race(4, sample, seed=seed, most_samples=60)
    return found.winner != 0 and confirm(sample, seed=seed).replaces


@pytest.mark.slow
def test_the_default_stays_in_99_of_100_searches_among_its_equals_in_recorded_noise() -> None:
    some = shipped()
    replaced = sum(_is_replaced(some[seed % len(some)], seed) for seed in range(SEARCHES))
    assert replaced <= SEARCHES / 100
