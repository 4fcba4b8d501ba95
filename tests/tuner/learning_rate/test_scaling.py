"""The power law of learning rate and batch size."""

from __future__ import annotations

import numpy as np
import pytest

from fusetune.tuner.learning_rate.scaling import fit_lr_scaling


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_an_exact_power_law_is_found(exponent: float) -> None:
    sizes = [8, 32, 128, 512]
    scaling = fit_lr_scaling(sizes, [0.003 * size**exponent for size in sizes])
    assert scaling.exponent == pytest.approx(exponent, abs=1e-9)
    assert scaling.low == pytest.approx(exponent, abs=1e-9)
    assert scaling.high == pytest.approx(exponent, abs=1e-9)
    assert scaling.lr_at(64) == pytest.approx(0.003 * 64**exponent)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    sizes = np.repeat([16, 32, 64, 128, 256], 6)
    covered = 0
    for trial in range(100):
        lrs = 0.01 * sizes**0.7 * np.exp(random.normal(0, 0.3, len(sizes)))
        scaling = fit_lr_scaling(sizes.tolist(), lrs.tolist(), seed=trial)
        covered += scaling.low <= 0.7 <= scaling.high
    assert 84 <= covered <= 100


def test_one_measurement_a_size_still_has_an_interval() -> None:
    scaling = fit_lr_scaling([16, 64, 256, 1024], [0.01, 0.025, 0.035, 0.09])
    assert scaling.low < scaling.exponent < scaling.high
    assert scaling.batch_sizes == (16, 64, 256, 1024)


@pytest.mark.parametrize(
    ("sizes", "lrs", "sentence"),
    [
        ([16, 64], [0.1, 0.2], "2 distinct; an exponent with an interval needs 3"),
        ([16, 16, 64], [0.1, 0.2, 0.3], "2 distinct"),
        ([16, 64, 256], [0.1, 0.2], "3 and 2 values"),
        ([0, 64, 256], [0.1, 0.2, 0.3], "0 must be 1 or more"),
        ([16, 64, 256], [0.1, -0.2, 0.3], "above 0"),
    ],
)
def test_what_no_line_fits_is_refused(sizes: list[int], lrs: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit_lr_scaling(sizes, lrs)
