"""The choice of devices, against times and room that are worked out by hand."""

from __future__ import annotations

import pytest

from fusetune.tuner.batch_size.devices import DeviceOption, recommend_devices
from fusetune.tuner.batch_size.throughput_curve import throughput


def option(devices: int, rates: dict[int, float]) -> DeviceOption:
    """Return devices with these samples/s by batch size."""
    points = tuple(throughput(size, [size / rate] * 5) for size, rate in rates.items())
    return DeviceOption(devices, max(rates) // devices, points)


def test_the_devices_with_the_earliest_target_are_taken_and_not_more_of_them() -> None:
    alone = option(1, {64: 1000.0, 128: 1100.0})
    two = option(2, {128: 2000.0, 256: 2200.0})
    eight = option(8, {256: 2250.0})
    found = recommend_devices([eight, two, alone], wanted=64)
    assert found is not None
    # 256 samples on eight devices take 2 % less time than on two.
    assert (found.devices, found.batch_size, found.binds) == (2, 256, "time")
    assert "0.50 of the best on 1 device" in found.reason
    # With few samples worth having in a step, (1 + 64 / 16) / 1000 is the least time of all.
    found = recommend_devices([alone, option(2, {256: 2200.0})], wanted=64, critical=16.0)
    assert found is not None
    assert (found.devices, found.batch_size) == (1, 64)


@pytest.mark.parametrize(
    ("wanted", "critical", "expected"),
    [
        (64, None, (1, 64, "the batch asked for")),
        (150, None, (2, 150, "the batch asked for")),
        (64, 301.0, (4, 300, "noise scale")),
        (64, 1e6, (8, 640, "memory")),
        (1000, None, (8, 640, "memory")),
    ],
)
def test_without_timings_the_fewest_devices_with_room_are_taken(
    wanted: int, critical: float | None, expected: tuple[int, int, str]
) -> None:
    options = [DeviceOption(devices, share) for devices, share in ((1, 100), (2, 95), (4, 90), (8, 80))]
    found = recommend_devices(options, wanted=wanted, critical=critical)
    assert found is not None
    assert (found.devices, found.batch_size, found.binds) == expected
    assert "not measured" in found.reason


def test_a_device_without_room_is_never_taken() -> None:
    assert recommend_devices([DeviceOption(1, 0), DeviceOption(2, 0)], wanted=8) is None
    found = recommend_devices([DeviceOption(1, 0), DeviceOption(4, 3)], wanted=2)
    assert found is not None
    assert (found.devices, found.batch_size) == (4, 4)
