"""The first of many against each: equal to a test of every pair, with few tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fusetune.bench.stats import all_pairs, holm, mann_whitney, significance
from fusetune.bench.stats.all_pairs import first_against_each

INF = math.inf
Samples = list[list[float]]


def each_pair(samples: Samples) -> list[float]:
    """Test every pair, correct over all, and return those of the first sample."""
    return holm([mann_whitney(a, b) for a, b in combinations(samples, 2)])[: len(samples) - 1]


@pytest.fixture
def distributions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The ranks whose distribution was asked for."""
    asked = []

    def counted(ranks: tuple[int, ...], first: int, observed: Any) -> Any:
        asked.append(ranks)
        return significance.tails(ranks, first, observed)

    monkeypatch.setattr(all_pairs, "tails", counted)
    return asked


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([1.0, 2.0, 2.5, 3.0, 4.0, 7.0, INF]), min_size=1, max_size=7),
        min_size=2,
        max_size=5,
    )
)
def test_samples_with_ties_of_all_sizes_equal_a_test_of_each_pair(samples: Samples) -> None:
    assert first_against_each(samples) == each_pair(samples)


@pytest.mark.parametrize("missed", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [[9] * 6, [4, 9, 6, 12, 7], [35, 80, 31, 70]])
def test_censored_samples_equal_a_test_of_each_pair(sizes: Sequence[int], missed: float) -> None:
    random = np.random.default_rng(len(sizes))
    drawn = [random.normal(size=size) + 0.4 * at for at, size in enumerate(sizes)]
    samples = [np.where(random.random(len(each)) < missed, INF, each).tolist() for each in drawn]
    assert first_against_each(samples) == pytest.approx(each_pair(samples), rel=1e-12)


def test_samples_without_ties_have_scipys_exact_p_values() -> None:
    random = np.random.default_rng(3)
    samples = [(random.normal(size=8) + 0.7 * at).tolist() for at in range(6)]
    exact = [
        float(scipy.stats.mannwhitneyu(a, b, method="exact").pvalue) for a, b in combinations(samples, 2)
    ]
    found = first_against_each(samples)
    assert found == pytest.approx(holm(exact)[:5])
    assert min(found) < 0.01 < 0.3 < max(found)


def test_more_configurations_than_the_seeds_can_tell_apart_need_no_test(distributions: list) -> None:
    samples = [[place, place + 0.2, place + 0.4] for place in map(float, range(20))]
    assert first_against_each(samples) == each_pair(samples) == [1.0] * 19
    assert not distributions
    assert first_against_each(samples[:3]) == each_pair(samples[:3]) == pytest.approx([0.3, 0.3])
    assert len(distributions) == 1


def test_many_pairs_share_few_distributions(distributions: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "_MOST_KEPT", 1000)
    random = np.random.default_rng(0)
    values = random.normal(size=(100, 11)) + np.linspace(0, 4, 100)[:, None]
    samples = np.where(random.random(values.shape) < np.linspace(0, 0.6, 100)[:, None], INF, values).tolist()
    found = first_against_each(samples)
    assert len(distributions) <= 2 * 11
    assert min(found) < 0.05
    assert found == each_pair(samples)


def test_ties_of_finite_values_need_a_distribution_for_each_pattern(distributions: list) -> None:
    random = np.random.default_rng(1)
    samples = np.round(2 * random.random((8, 9)), 1).tolist()
    assert first_against_each(samples) == each_pair(samples)
    assert len(distributions) <= math.comb(8, 2)
