"""Searches in large spaces with scripted times."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fusetune.bench.autotune import Plan, run_search
from tests.bench.autotune.noise import noisy

SPACE = [
    {"M": m, "N": n, "K": k, "num_warps": w}
    for m, n, k, w in itertools.product(
        (8, 16, 32, 64, 128), (8, 16, 32, 64, 128), (8, 16, 32, 64), (1, 2, 4)
    )
]


def _seconds(seed: int) -> list[float]:
    """Times as tiles have them: a best size of each side, a cliff where tiles outgrow the cache, and roughness."""
    generator = np.random.default_rng(seed)
    best = generator.uniform((3, 3, 3, 0), (7, 7, 6, 2))
    found = []
    for config in SPACE:
        logs = np.log2(list(config.values()))
        cliff = 0.8 * (config["M"] * config["N"] > 4096)
        found.append(float(np.exp(0.08 * ((logs - best) ** 2).sum() + cliff + 0.02 * generator.random())))
    return found


def test_a_quarter_of_the_space_leads_within_3_percent_of_the_best() -> None:
    for seed in range(8):
        seconds = _seconds(seed)
        found = run_search(SPACE, noisy(seconds, seed), seed=seed)
        assert len(found.tried) <= len(SPACE) / 4
        assert found.winner is not None
        assert seconds[found.winner] <= 1.03 * min(seconds)


def test_what_is_asked_for_is_timed_first() -> None:
    found = run_search(SPACE, lambda i, turn: 1.0 + i, first=[77])
    assert found.tried[0] == 77


def test_configs_that_fail_are_left_out_and_the_search_goes_on() -> None:
    found = run_search(SPACE, lambda i, turn: math.inf if i % 3 else 1.0 + i / 300)
    assert found.winner is not None
    assert found.winner % 3 == 0
    assert all(math.isinf(behind) for i, behind in zip(found.tried, found.behind, strict=True) if i % 3)
    assert run_search(SPACE, lambda i, turn: math.nan).winner is None


def test_the_budget_is_asked_for_before_each_sample() -> None:
    taken: list[int] = []

    def sample(index: int, turn: int) -> float:
        taken.append(index)
        return 1.0 + index / 300

    found = run_search(SPACE, sample, may_go_on=lambda: len(taken) < 50)
    assert len(taken) == 50
    assert found.winner == min(found.tried, key=lambda i: i)


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_batches_compare_although_the_machine_changes_between_them(drift: float) -> None:
    seconds = _seconds(1)
    found = run_search(SPACE, noisy(seconds, 1, drift=drift), plan=Plan(finalists=1))
    assert seconds[found.winner] <= 1.1 * min(seconds)
