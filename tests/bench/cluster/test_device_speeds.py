"""Which device is slower than its kind: found where it is, and not where there is only noise."""

from __future__ import annotations

import random
import statistics

import pytest

from fusetune.bench.cluster import device_speeds
from fusetune.bench.cluster.device_speeds import DeviceSpeeds


def measured(count: int, noise: float, draw: random.Random, slow: float = 1.0) -> DeviceSpeeds:
    """Twenty rounds of each device, whose own speed and rounds vary. The first is slower by a factor."""
    speeds = DeviceSpeeds()
    for number in range(count):
        own = draw.gauss(1.0, noise) * (slow if number == 0 else 1.0)
        speeds.add(f"d{number}", [own * abs(draw.gauss(1.0, 2 * noise)) for _ in range(20)])
    return speeds


@pytest.mark.parametrize("count", [3, 4, 8, 64])
def test_noise_makes_few_devices_slow(count: int) -> None:
    draw = random.Random(count)
    alarms = sum(len(measured(count, 0.01, draw).slow()) for _ in range(2000 // count))
    assert alarms <= 0.03 * 2000


@pytest.mark.parametrize("count", [4, 8, 64])
def test_a_device_that_takes_a_fifth_longer_is_found(count: int) -> None:
    draw = random.Random(count)
    found = [measured(count, 0.01, draw, slow=1.2).slow() for _ in range(100)]
    assert sum("d0" in each for each in found) >= 90
    speed = measured(count, 0.0, draw, slow=1.25).of("d0")
    assert speed is not None
    assert speed.ratio == pytest.approx(0.8)


def test_of_two_devices_nobody_knows_which_is_slow() -> None:
    assert measured(2, 0.0, random.Random(0), slow=2.0).slow() == []
    assert DeviceSpeeds().of("d0") is None


def test_a_device_that_is_gone_or_well_again_is_judged_no_more() -> None:
    speeds = measured(4, 0.0, random.Random(0), slow=1.5)
    assert speeds.slow() == ["d0"]
    speeds.add("d0", [1.0] * 20)
    assert speeds.slow() == []
    speeds.remove("d0")
    assert speeds.of("d0") is None


def test_many_records_of_many_devices_cost_one_look_at_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = measured(64, 0.01, random.Random(0))
    looks = []

    def counted(values: list[float]) -> float:
        looks.append(values)
        return statistics.median(values)

    monkeypatch.setattr(device_speeds, "median", counted)
    for number in range(1000):
        assert speeds.of(f"d{number % 64}") is not None
    assert len(looks) == 3  # the kind's median, and two for the spread
