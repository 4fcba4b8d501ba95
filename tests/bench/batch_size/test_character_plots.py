"""Plots of characters of batch sizes have the numbers of the study."""

from __future__ import annotations

from pathlib import Path

from fusetune.bench.batch_size.character_plots import memory_plot, throughput_plot
from fusetune.bench.results import RunDirectory, study_run

OLD_RUN = next((Path(__file__).parents[1] / "old_runs" / "sizes").iterdir())


def test_sizes_memory_and_limit_are_those_of_the_study() -> None:
    directory = RunDirectory.open(OLD_RUN)
    found = study_run(directory, directory.records()[0])
    configuration, measured = found.study.configurations[0], found.measurements[0]
    memory = memory_plot(configuration, measured)
    assert memory is not None
    assert list(memory.series[-1].x) == [row.batch_size for row in configuration.rows]
    ran = {row.batch_size: row.needed_bytes for row in configuration.rows if row.needed_bytes}
    drawn = {size: value for each in memory.series[:-1] for size, value in zip(each.x, each.y, strict=True)}
    assert drawn == ran
    assert [mark.value for mark in memory.marks if mark.axis == "y"] == [configuration.limit_bytes]
    throughput = throughput_plot(measured)
    rates = measured.throughputs
    assert (throughput is None) == (len(rates) < 2)
    if throughput is not None:
        assert list(throughput.series[0].y) == [rate.samples_per_s for rate in rates]
        assert list(throughput.series[1].y) == [
            *(rate.low for rate in rates),
            *(rate.high for rate in rates),
        ]
