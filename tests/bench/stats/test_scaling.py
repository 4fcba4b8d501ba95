"""Several devices are compared with one on the same configuration, and reports show it."""

from __future__ import annotations

from typing import Any

from fusetune.bench.report.devices_section import devices
from fusetune.bench.report.training_texts import scaling_cells
from fusetune.bench.results import Record, RunInfo, Sharing, TrainingOutcome, WrittenSpec
from fusetune.bench.stats.scaling import scaling_of
from fusetune.bench.stats.summary import summarize


def record(devices: int, speed: float, seed: int = 0, **factors: Any) -> Record:
    sharing = None
    if devices > 1:
        sharing = Sharing(devices, "ddp", 1, communication_share=0.25, overlap=0.5)
    values = {"samples_per_s": speed, "best_val_accuracy": 0.9, "step_time_s": 1.0, "steps": 1.0}
    labels = {"devices": devices, **factors}
    outcome = TrainingOutcome(sharing=sharing)
    return Record(f"{labels},{seed}", labels, seed, "ok", values=values, outcome=outcome)


def test_efficiency_is_of_medians_of_the_same_configuration() -> None:
    records = [
        *(record(1, speed, seed, width=8) for seed, speed in enumerate((90.0, 100.0, 500.0))),
        *(record(4, speed, seed, width=8) for seed, speed in enumerate((300.0, 310.0, 20.0))),
        record(2, 50.0, width=16),
    ]
    four, two = scaling_of(records)
    assert (four.devices, four.samples_per_s, four.efficiency) == (4, 300.0, 0.75)
    assert (two.devices, two.efficiency) == (2, None)
    assert scaling_cells(four) == ("4", "300", "75 %", "25 %", "50 %")
    assert scaling_cells(two) == ("2", "50", "-", "25 %", "50 %")


def test_the_way_to_share_is_compared_with_the_same_single_device() -> None:
    records = [record(1, 100.0, parallel="ddp"), record(2, 150.0, parallel="fsdp")]
    assert [each.efficiency for each in scaling_of(records)] == [0.75]


def test_a_page_has_a_section_on_several_devices_where_there_are_some() -> None:
    run = RunInfo(spec=WrittenSpec({"factors": {"devices": [1, 2]}}), trials=2)
    [table] = devices(summarize(run, [record(1, 100.0), record(2, 150.0)])).blocks
    assert "75 %" in repr(table)
    assert devices(summarize(run, [record(1, 100.0)])).blocks == ()
