"""A `@triton.autotune` kernel runs in its lane as it is, and what Triton chose is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.lane import Prepared
from fusetune.bench.kernels.measurement import Settings, _searches, measure
from fusetune.bench.kernels.process import ProcessLane
from fusetune.bench.kernels.sources import kernel_source
from fusetune.kernels import TritonSearch

OWN = Path(__file__).with_name("own_kernels")
WRONG = Path(__file__).with_name("wrong_kernels")


@pytest.mark.slow
def test_a_lane_tells_what_triton_searched_for() -> None:
    case = Case(kernel_source(str(OWN / "autotuned.py")), "negate", 1000, "float32")
    with ProcessLane("ours") as lane:
        prepared = lane.prepare(case)
    (row,) = prepared.searches
    search = TritonSearch.from_row(row)
    assert search.kernel == "negate"
    assert [config["BLOCK"] for config in search.configs] == [256, 2048]
    assert search.best in search.configs
    # x is read and out is written. What out held before is not read.
    assert (prepared.bytes_moved, prepared.mutates) == (8000, ("out_ptr",))
    assert _searches(prepared) == (row,)


@pytest.mark.slow
def test_an_update_in_place_that_triton_repeats_is_wrong_and_gets_the_advice() -> None:
    case = Case(kernel_source(str(WRONG / "autotuned_in_place.py")), "double", 1000, "float32")
    (row,) = measure([case], Settings(timed=False))
    assert row.status == "wrong"
    assert row.ours.reason.endswith('does @triton.autotune have restore_value=["x_ptr"]?')


def test_what_a_lane_makes_up_is_left_out() -> None:
    made_up: list[dict[str, object]] = [{}, {"kernel": 1}, {"kernel": "a", "key": 3}]
    assert _searches(Prepared(8, 0.0, (), 0.0, searches=tuple(made_up))) == ()
