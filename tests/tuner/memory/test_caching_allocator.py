"""The simulated allocator against the rules in PyTorch's source."""

from __future__ import annotations

import pytest

from fusetune.tuner.memory.caching_allocator import MIB, replay


@pytest.mark.parametrize(
    ("request_bytes", "allocated_bytes", "reserved_bytes"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        # What is left over of a large segment is cut off only where it is more than 1 MiB.
        (33 * MIB, 34 * MIB, 34 * MIB),
    ],
)
def test_one_request_takes_the_segment_of_its_size(
    request_bytes: int, allocated_bytes: int, reserved_bytes: int
) -> None:
    found = replay([(0, request_bytes)])
    assert (found.allocated_bytes, found.reserved_bytes) == (allocated_bytes, reserved_bytes)


def test_small_requests_share_a_segment() -> None:
    assert replay([(index, 512) for index in range(4096)]).reserved_bytes == 2 * MIB
    assert replay([(index, 512) for index in range(4097)]).reserved_bytes == 4 * MIB


def test_what_was_freed_is_used_again() -> None:
    events = [(0, 30 * MIB), (0, -30 * MIB), (1, 30 * MIB), (1, -30 * MIB)]
    assert replay(events).reserved_bytes == 30 * MIB


def test_free_neighbours_merge() -> None:
    parts = [(index, 5 * MIB) for index in range(4)]
    frees = [(index, -5 * MIB) for index in (0, 2, 1, 3)]
    # All four lie in one segment of 20 MiB, which a larger request can then have whole.
    assert replay([*parts, *frees, (9, 20 * MIB)]).reserved_bytes == 20 * MIB


def test_a_hole_that_is_too_small_is_not_used() -> None:
    events = [(0, 9 * MIB), (1, 9 * MIB), (0, -9 * MIB), (2, 12 * MIB)]
    assert replay(events).reserved_bytes == 32 * MIB


def test_the_best_fitting_block_is_taken() -> None:
    events = [(0, 40 * MIB), (1, 20 * MIB), (0, -40 * MIB), (1, -20 * MIB), (2, 20 * MIB), (3, 40 * MIB)]
    assert replay(events).reserved_bytes == 60 * MIB


def test_at_the_limit_free_segments_are_given_back_first() -> None:
    events = [(0, 30 * MIB), (0, -30 * MIB), (1, 40 * MIB)]
    assert replay(events).reserved_bytes == 70 * MIB
    found = replay(events, limit_bytes=50 * MIB)
    assert found.fits
    assert found.reserved_bytes == 40 * MIB


def test_a_request_that_does_not_fit_ends_it() -> None:
    found = replay([(0, 30 * MIB), (1, 40 * MIB), (2, 500 * MIB)], limit_bytes=60 * MIB)
    assert not found.fits
    assert found.allocated_bytes == 30 * MIB
