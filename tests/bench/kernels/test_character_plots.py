"""Plots of characters of size sweeps have the latencies, bandwidths and copies of the rows."""

from __future__ import annotations

import dataclasses

import pytest

from fusetune.bench.kernels.character_plots import sweep_plots
from fusetune.bench.kernels.study import sweeps_of
from tests.bench.kernels.made_rows import sweep_rows
from tests.bench.kernels.test_report import printed, studied


def test_latency_and_bandwidth_are_drawn_with_the_copy_as_their_roofline() -> None:
    (sweep,) = sweeps_of(studied(sweep_rows()).rows)
    latency, bandwidth = sweep_plots(sweep)
    moved = [8.0 * 2**power for power in (12, 14, 16, 18, 20, 22)]
    ours = [10e-6 + size / 10e9 for size in moved]
    eager = [8e-6 + size / 6e9 for size in moved]
    copy = [size / 11e9 for size in moved]
    for plot, values in (
        (latency, (ours, eager, copy)),
        (
            bandwidth,
            [[size / time for size, time in zip(moved, times, strict=True)] for times in (ours, eager, copy)],
        ),
    ):
        assert [series.name for series in plot.series] == ["ours", "eager", "copy of as many bytes"]
        assert len({series.marker for series in plot.series}) == 3
        for series, expected in zip(plot.series, values, strict=True):
            assert list(series.x) == moved
            assert list(series.y) == pytest.approx(expected)
        assert plot.x.log
        assert plot.y.log


def test_a_side_without_a_time_and_a_copy_that_was_not_measured_are_gaps() -> None:
    rows = sweep_rows()
    lost = dataclasses.replace(rows[1].sides[1], latencies_s={}, status="crashed", reason="gone")
    rows[1] = dataclasses.replace(
        rows[1], sides=(rows[1].sides[0], lost), copy=None, datasheet_bytes_per_s=3.35e12
    )
    (sweep,) = sweeps_of(studied(rows).rows)
    latency, bandwidth = sweep_plots(sweep)
    for plot in (latency, bandwidth):
        assert [
            [place for place, value in enumerate(series.y) if value is None] for series in plot.series
        ] == [
            [],
            [1],
            [1],
        ]
    assert "┈ data sheet" in "\n".join(bandwidth.lines())


def test_the_report_has_both_plots_for_three_sizes_and_none_for_two() -> None:
    three, two = (printed(studied(sweep_rows()[:count])) for count in (3, 2))
    (title,) = (line for line in three if "against bytes" in line)
    assert title.split("   ")[0] == "silu/float32: latency against bytes"
    assert title.endswith("silu/float32: bandwidth against bytes")
    assert max(map(len, three)) <= 100
    assert not any("against bytes" in line for line in two)
