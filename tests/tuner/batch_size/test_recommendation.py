"""Which batch size is recommended, and which limit is said to bind, on plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fusetune.tuner.batch_size.recommendation import Accumulation, recommend
from fusetune.tuner.batch_size.throughput_curve import Throughput, smoothed_step_times, throughput


def points(rates: Mapping[int, float]) -> list[Throughput]:
    return [throughput(size, [size / rate] * 6) for size, rate in rates.items()]


# The best is 1000; 256 is the first within 5 %.
SATURATING = {16: 200, 32: 380, 64: 600, 128: 850, 256: 960, 512: 1000}
RISING = {16: 100, 32: 200, 64: 400}

CASES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "the plateau": (
        {},
        256,
        "throughput plateau",
        "the throughput plateau binds: from batch size 256 on, samples/s is within 5 % of the best",
    ),
    "the plateau, noise allowing more": (
        {"critical": 20_000.0},
        256,
        "throughput plateau",
        "the throughput plateau binds: from batch size 256 on, samples/s is within 5 % of the best; the noise scale, "
        "about 20,000 samples, does not call for less",
    ),
    "noise below the plateau": (
        {"critical": 50.0},
        64,
        "noise scale",
        "the noise scale, about 50 samples, binds: samples/s rises up to batch size 256, but beyond 64 a larger batch "
        "needs more samples to the target, and is not known to be there more than 5 % sooner",
    ),
    "memory, throughput still rising": (
        {"points": points(RISING), "largest": 64},
        64,
        "memory",
        "memory binds: samples/s still rises up to 64, the largest batch there is room for",
    ),
    "all samples, throughput still rising": (
        {"points": points(RISING), "largest": 64, "memory_binds": False},
        64,
        "samples",
        "the number of samples binds: samples/s still rises up to 64, the largest batch there is room for",
    ),
    "memory inside the curve": (
        {"largest": 64},
        64,
        "memory",
        "memory binds: samples/s still rises up to 64, the largest batch there is room for",
    ),
    "nothing but memory is known": (
        {"points": [], "largest": 300},
        300,
        "memory",
        "memory binds: 300 is the largest batch there is room for. Throughput was not measured",
    ),
    "memory and noise are known": (
        {"points": [], "largest": 300, "critical": 70.4, "critical_source": "the critical batch size"},
        70,
        "noise scale",
        "the critical batch size, about 70 samples, binds: beyond it a larger batch saves few steps. Throughput was "
        "not measured",
    ),
    "noise allows more than memory": (
        {"points": [], "largest": 300, "critical": 700.0},
        300,
        "memory",
        "memory binds: 300 is the largest batch there is room for. Throughput was not measured; the noise scale, "
        "about 700 samples, does not call for less",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_limit_that_binds_is_named(case: str) -> None:
    changes, batch_size, binds, reason = CASES[case]
    arguments = {"points": points(SATURATING), "largest": 512, "memory_binds": True, **changes}
    found = recommend(arguments.pop("points"), **arguments)
    assert (found.batch_size, found.binds, found.reason) == (batch_size, binds, reason)
    assert found.accumulation is None


def test_the_recommended_size_comes_near_the_least_time_to_the_target() -> None:
    for critical in (5.0, 20.0, 80.0, 320.0, 1e9):
        found = recommend(points(SATURATING), largest=512, memory_binds=True, critical=critical)
        times = {size: (1 + size / critical) / rate for size, rate in SATURATING.items()}
        assert times[found.batch_size] <= min(times.values()) / 0.95
        assert all(times[size] > min(times.values()) / 0.95 for size in times if size < found.batch_size)


def test_more_noise_never_asks_for_less() -> None:
    sizes = [
        recommend(points(SATURATING), largest=512, memory_binds=True, critical=critical).batch_size
        for critical in (1.0, 10.0, 30.0, 100.0, 1000.0, 1e6)
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 256


def test_accumulated_batches_reach_the_noise_scale_sooner() -> None:
    one = recommend(points(SATURATING), largest=512, memory_binds=True, critical=300.0)
    four = recommend(
        points(SATURATING),
        largest=512,
        memory_binds=True,
        critical=300.0,
        accumulation_steps=4,
    )
    assert four.batch_size < one.batch_size


def test_a_size_that_may_be_as_fast_is_given_the_benefit_of_the_doubt() -> None:
    ratios = [1.03, 1.12, 1.04, 1.13, 1.02, 1.11, 1.14, 1.05, 1.12, 1.15, 1.11, 1.13]
    sizes = [throughput(64, [64e-3 * ratio for ratio in ratios]), throughput(128, [128e-3] * 12)]
    assert sizes[0].samples_per_s < 0.95 * sizes[1].samples_per_s
    assert recommend(sizes, largest=128, memory_binds=True).batch_size == 64
    slower = [throughput(64, [70e-3 * ratio for ratio in ratios]), sizes[1]]
    assert recommend(slower, largest=128, memory_binds=True).batch_size == 128


# Milliseconds of steps on a machine that other work kept busy, by batch size: twelve rounds each. The median of 4 is a
# tenth of its neighbours'; the rounds of 2 span a factor of 48.
BUSY = {
    2: [9.69, 64.18, 1.34, 11.34, 10.71, 9.11, 38.47, 19.89, 10.28, 10.6, 1.96, 10.07],
    4: [1.96, 63.93, 0.95, 11.01, 1.73, 25.86, 78.91, 1.9, 1.42, 1.91, 12.63, 1.4],
    8: [15.8, 112.11, 11.76, 21.77, 21.31, 22.88, 16.81, 19.85, 18.74, 14.21, 12.63, 18.56],
    16: [56.78, 97.09, 25.9, 36.68, 24.66, 22.0, 19.82, 12.97, 18.33, 17.25, 14.15, 11.31],
    32: [113.94, 13.49, 12.24, 12.94, 17.11, 5.57, 15.58, 5.52, 5.77, 40.41, 21.07, 4.91],
    64: [112.71, 67.82, 20.8, 25.08, 55.05, 14.91, 59.17, 16.04, 25.03, 35.76, 4.3, 10.67],
    128: [137.98, 10.68, 58.36, 29.1, 25.43, 24.04, 3.27, 16.48, 30.25, 16.31, 26.62, 9.06],
    256: [136.19, 10.12, 26.19, 10.91, 10.77, 33.41, 61.86, 54.06, 49.76, 2.17, 1.68, 10.37],
    512: [151.86, 23.61, 225.48, 88.59, 24.9, 26.49, 2.11, 81.43, 10.62, 11.03, 10.36, 2.21],
    1024: [205.6, 47.35, 32.91, 87.65, 20.85, 30.13, 82.37, 18.66, 23.47, 64.69, 30.96, 25.05],
    2000: [201.25, 52.39, 82.77, 64.26, 51.47, 73.5, 42.09, 74.52, 46.83, 44.92, 66.35, 30.44],
}


def test_noise_does_not_recommend_a_size_whose_own_time_is_ten_times_the_least() -> None:
    measured = [throughput(size, [time / 1e3 for time in times]) for size, times in BUSY.items()]
    found = recommend(measured, largest=2000, memory_binds=False, critical=29.0)
    times = {size: (1 + size / 29) * time / size for size, time in smoothed_step_times(measured).items()}
    assert times[found.batch_size] <= 1.15 * min(times.values())
    assert "The timings scatter too much to rule out batch size 4, 16" in found.reason
    quiet = recommend(points(SATURATING), largest=512, memory_binds=True)
    assert "scatter" not in quiet.reason


@pytest.mark.parametrize(
    ("wanted", "largest", "expected"),
    [
        (4096, 1500, Accumulation(4096, 1024, 4)),
        (4096, 4096, None),
        (64, 512, None),
        (1000, 999, Accumulation(1000, 500, 2)),
        (1009, 500, Accumulation(1009, 337, 3)),  # a prime number of samples: three nearly equal parts
    ],
)
def test_a_step_that_does_not_fit_is_split_into_equal_batches(
    wanted: int, largest: int, expected: Accumulation | None
) -> None:
    found = recommend(points(SATURATING), largest=largest, memory_binds=True, wanted=wanted)
    assert found.accumulation == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"largest": 0}, "largest: 0 must be 1 or more"),
        ({"wanted": 0}, "wanted: 0 must be 1 or more"),
        ({"accumulation_steps": 0}, "accumulation_steps: 0 must be 1 or more"),
        ({"critical": 0.0}, "critical: 0.0 must be above 0"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recommend(points(SATURATING), **{"largest": 512, "memory_binds": True, **changes})
