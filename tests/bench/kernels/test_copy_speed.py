from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from fusetune.bench.kernels.copies import MOVES, WAYS
from fusetune.bench.kernels.copy_speed import CopyMeter, limit_of, working_set
from fusetune.bench.kernels.lane import LaneError, Prepared, TimedRound
from fusetune.bench.kernels.row import Policy
from fusetune.kernels.launch import compiles_for_cpu
from tests.bench.kernels.scripted_lanes import case

OWN_S = 2e-6


class Memory:
    """A lane whose ways move bytes at given rates, after a time of the call's own."""

    side = "ours"

    def __init__(self, rates: Mapping[str, float], *, own_s: float = OWN_S, slow: int = 0) -> None:
        self.rates, self.own_s = rates, own_s
        self.slow = slow  # rounds that a neighbour slows by a factor of two
        self.prepared: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self.closed = 0

    def prepare(self, case: Any, config: Mapping[str, int]) -> Prepared:
        self.way, self.size = WAYS[config["way"]], 4 * case.shape
        self.prepared.append((self.way, self.size))
        self.threads.add(case.threads)
        if self.way not in self.rates:
            raise LaneError("does not build", "no backend")
        caches = (("L1", 32 << 10), ("L2", 512 << 10), ("L3", 32 << 20))
        return Prepared(self.size, 0.0, (), 1e-6, caches=caches)

    def time_round(self, inputs: Sequence[Any], policies: Sequence[Policy], *, keep: bool) -> TimedRound:
        assert sum(each.elements for each in (inputs[0].tree["x"], inputs[0].tree["y"])) * 4 == self.size
        seconds = self.own_s + self.size / self.rates[self.way]
        if self.slow:
            self.slow -= 1
            seconds *= 2
        return TimedRound({policies[0].name: seconds}, 0.0, seconds)

    def close(self) -> None:
        self.closed += 1


RATES = {"copy": 10e9, "copy by Triton": 11e9, "scale in place": 14e9, "read": 16e9, "write": 9e9}


def meter(lane: Any) -> CopyMeter:
    found: Callable[[], Any] = lambda: lane  # noqa: E731
    return CopyMeter(found)


def test_the_best_copy_is_shown_and_the_fastest_way_is_the_limit() -> None:
    speed = meter(Memory(RATES)).speed(8 << 20, case(), Policy())
    assert speed is not None
    assert speed.bytes_per_s == pytest.approx(11e9, rel=0.01)
    assert speed.limit_bytes_per_s == pytest.approx(1.25 * 16e9, rel=0.01)
    assert (speed.level, speed.working_set_bytes) == ("DRAM", 8 << 20)


def test_a_warm_copy_names_the_level_that_holds_it() -> None:
    for size, level in ((16 << 10, "L1"), (200 << 10, "L2"), (8 << 20, "L3"), (64 << 20, "DRAM")):
        speed = meter(Memory(RATES)).speed(size, case(), Policy(cache="warm"))
        assert speed is not None
        assert speed.level == level


def test_honest_kernels_that_only_read_or_work_in_place_are_within_the_limit() -> None:
    """Each moves its bytes at the rate of its kind, and its call takes less than that of a copy."""
    speed = meter(Memory(RATES)).speed(8 << 20, case(), Policy())
    assert speed is not None
    assert speed.limit_bytes_per_s is not None
    for rate in RATES.values():
        assert (8 << 20) / (0.5 * OWN_S + (8 << 20) / rate) < speed.limit_bytes_per_s


def test_where_the_call_itself_takes_longest_there_is_no_limit() -> None:
    speed = meter(Memory(RATES, own_s=1e-3)).speed(8 << 20, case(), Policy())
    assert speed is not None
    assert speed.limit_bytes_per_s is None
    assert limit_of(100, 2.0, 2.5) is None


def test_a_copy_that_does_not_build_is_left_out() -> None:
    rates = {name: rate for name, rate in RATES.items() if name != "copy by Triton"}
    speed = meter(Memory(rates)).speed(8 << 20, case(), Policy())
    assert speed is not None
    assert speed.bytes_per_s == pytest.approx(10e9, rel=0.01)


def test_a_lane_that_dies_leaves_rows_without_a_copy_and_is_closed() -> None:
    lane = Memory({})
    assert meter(lane).speed(8 << 20, case(), Policy()) is None
    assert lane.closed == 1


def test_rows_of_about_as_many_bytes_share_a_copy() -> None:
    lane = Memory(RATES)
    found = meter(lane)
    for moved in (8_000_000, 8_388_608, 8_500_000):
        found.speed(moved, case(), Policy())
    assert lane.prepared.count(("copy", 8 << 20)) == 1
    found.speed(12_000_000, case(), Policy(calls=4))
    assert len({size for _, size in lane.prepared}) == 3  # with that of next to nothing


def test_measured_anew_the_laxer_limit_counts() -> None:
    lane = Memory(RATES, slow=10**6)
    found = meter(lane)
    slow = found.speed(8 << 20, case(), Policy())
    lane.slow = 0
    again = found.speed(8 << 20, case(), Policy(), anew=True)
    assert slow is not None
    assert again is not None
    assert again.limit_bytes_per_s > 1.5 * slow.limit_bytes_per_s
    lane.slow = 10**6
    assert found.speed(8 << 20, case(), Policy(), anew=True) == again


@pytest.mark.parametrize("moved", [1, 5000, 10**6, 12_582_912, 10**8, 10**12])
def test_a_working_set_is_near_what_is_moved(moved: int) -> None:
    size = working_set(moved)
    assert size % 8 == 0
    assert 4096 <= size <= 256 << 20
    if 4096 <= moved <= 256 << 20:
        assert abs(size / moved - 1) <= 0.13


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_the_ways_do_what_they_are_called(way: int) -> None:
    if WAYS[way] == "copy by Triton" and not compiles_for_cpu():
        pytest.skip("Triton does not compile for the CPU here")
    inputs = MOVES.make_inputs(9000, torch.float32, torch.device("cpu"), 0)
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    MOVES.fused(**inputs, config=MOVES.configs[way])
    assert MOVES.bytes_moved(before) == 9000 * 4
    y = {"copy": before["x"], "copy by Triton": before["x"], "write": torch.ones(4500)}
    assert torch.equal(inputs["y"], y.get(WAYS[way], before["y"]))
    assert torch.equal(inputs["x"], torch.ones(4500) if WAYS[way] == "write" else before["x"])
