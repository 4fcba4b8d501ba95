"""The critical batch size from steps to a target, on trades that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusetune.tuner.batch_size.critical import fit_critical_batch

SIZES = [16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("critical", [3.0, 40.0, 5000.0])
def test_an_exact_trade_is_found_again(critical: float) -> None:
    found = fit_critical_batch(SIZES, [70 * (1 + critical / size) for size in SIZES])
    assert found.value == pytest.approx(critical, rel=1e-4)
    assert found.min_steps == pytest.approx(70, rel=1e-4)
    assert found.min_samples == pytest.approx(70 * critical, rel=1e-4)
    for size in SIZES:
        steps = 70 * (1 + critical / size)
        excess = (steps / found.min_steps - 1) * (size * steps / found.min_samples - 1)
        assert excess == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    sizes = [size for size in SIZES for _ in range(2)]
    runs, covered = 200, 0
    for _ in range(runs):
        noise = np.exp(0.1 * generator.standard_normal(len(sizes)))
        found = fit_critical_batch(
            sizes, [70 * (1 + 100 / size) * e for size, e in zip(sizes, noise, strict=True)]
        )
        covered += found.low <= 100 <= found.high
    assert 0.85 <= covered / runs <= 0.95


def test_steps_that_halve_with_every_doubling_give_only_a_lower_end() -> None:
    found = fit_critical_batch(
        SIZES, [9e5 / size * e for size, e in zip(SIZES, [1, 1.02, 1, 0.98, 1, 1.02], strict=True)]
    )
    assert found.value is None
    assert found.low > max(SIZES)
    assert math.isinf(found.high)
    assert "in proportion up to batch size 512" in found.reason


def test_steps_that_stay_the_same_give_only_an_upper_end() -> None:
    found = fit_critical_batch(SIZES, [500, 503, 498, 502, 499, 500])
    assert found.value is None
    assert found.low == 0
    assert found.high < min(SIZES)
    assert "larger batches save no steps" in found.reason


def test_steps_without_any_order_tell_nothing() -> None:
    found = fit_critical_batch([16, 64, 256], [100, 400, 90])
    assert found.value is None
    assert (found.low, found.high) == (0, math.inf)


@pytest.mark.parametrize(
    ("sizes", "steps", "message"),
    [
        ([16, 32], [100, 80], "2 different ones are too few"),
        ([16, 32, 64], [100, 80], "one of each a training"),
        ([16, 32, 64], [100, 80, math.inf], "finite and above 0"),
        ([0, 32, 64], [100, 80, 70], "finite and above 0"),
    ],
)
def test_bad_input_is_refused(sizes: list[float], steps: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_critical_batch(sizes, steps)
