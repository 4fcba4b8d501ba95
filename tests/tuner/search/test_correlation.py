"""Correlations that a decision keeps, and the pairs of points that it compares."""

from __future__ import annotations

import numpy as np
import pytest

from fusetune.tuner.search.correlation import KeptCorrelations, near_pairs
from fusetune.tuner.search.model import configuration_correlation


@pytest.mark.parametrize("seed", range(8))
def test_the_near_pairs_are_those_near_in_every_factor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = rng.choice([0.0, 1.0, 2.0, np.inf], size=1 + seed % 4)
    left, right = (rng.integers(0, 6, (count, len(widths))).astype(float) for count in (20, 30))
    everything = (np.abs(left[:, None] - right) <= widths).all(axis=2)
    found = list(zip(*near_pairs(left, right, widths), strict=True))
    assert sorted(found) == sorted(zip(*np.nonzero(everything), strict=True))


def test_kept_correlations_are_those_computed_anew_and_each_is_computed_once() -> None:
    rng = np.random.default_rng(0)
    is_name, reach = np.array([False, True]), np.array([0.8, 0.6])
    trainings = np.stack([rng.random(700), rng.integers(0, 3, 700)], axis=1)
    computed = 0

    def correlate(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        nonlocal computed
        computed += len(left) * len(right)
        return configuration_correlation(reach, is_name, left, right)

    kept = KeptCorrelations(correlate)
    asked = [([3, 5], 10), ([5, 3, 4], 10), ([4, 5], 12), ([3, 6], 13), ([], 13)]
    for numbers, points in asked:
        found = kept.of(numbers, trainings[numbers], trainings[:points], np.arange(points))
        np.testing.assert_array_equal(found, correlate(trainings[numbers], trainings[:points]))
        computed -= len(numbers) * points
    assert computed == 3 * 10 + 2 * 2 + 3 + 13
    # More than are kept at once, and then under another reach.
    everyone = list(range(700))
    for lengths in (reach.copy(), np.array([0.3, 0.2])):
        reach[:] = lengths
        kept.forget()
        for numbers in (everyone[:400], everyone[300:], everyone):
            found = kept.of(numbers, trainings[numbers], trainings[:20], np.arange(20)[::-3])
            np.testing.assert_array_equal(found, correlate(trainings[numbers], trainings[:20][::-3]))
