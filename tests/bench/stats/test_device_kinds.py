"""Trials on several kinds of device: steps are pooled, and no time is compared across kinds."""

from __future__ import annotations

import dataclasses
import random
from statistics import median

import pytest

from fusetune.bench.results import Record, RunInfo, WrittenSpec
from fusetune.bench.stats.device_kinds import on_one_kind
from fusetune.bench.stats.summary import Summary, summarize

SPEC = WrittenSpec(
    {
        "train": {"base_lr": 0.1, "batch_size": 32, "epochs": 3},
        "factors": {"batch_size": [32, 64]},
        "target": {"metric": "val_accuracy", "at_least": 0.9},
    }
)
STEP_S = {("H100", 32): 0.01, ("H100", 64): 0.012, ("A100", 32): 0.05, ("A100", 64): 0.02}


def trial(batch_size: int, seed: int, kind: str, noise: float = 1.0) -> Record:
    """A training whose steps depend on the seed, and whose step time depends on device and batch."""
    steps, step_s = 100 + 10 * seed + batch_size, STEP_S[kind, batch_size] * noise
    curve = [{"epoch": 1, "step": steps, "time_s": steps * step_s, "val_accuracy": 0.9}]
    values = {
        "steps_to_target": steps,
        "step_time_s": step_s,
        "step_time_median_s": step_s,
        "time_to_target_s": steps * step_s,
        "best_val_accuracy": 0.9,
    }
    factors = {"batch_size": batch_size}
    provenance = {"device_name": kind}
    return Record(
        f"{batch_size},{seed}", factors, seed, "ok", values=values, curve=curve, provenance=provenance
    )


def summary(records: list[Record]) -> Summary:
    return summarize(RunInfo(spec=SPEC, baseline={"batch_size": 32}, trials=len(records)), records)


def test_records_of_one_kind_stay_as_they_are() -> None:
    records = [trial(32, seed, "H100") for seed in range(3)]
    assert on_one_kind(records) == (records, None)
    assert on_one_kind([dataclasses.replace(each, provenance={}) for each in records])[1] is None


def test_the_summary_is_that_of_the_same_steps_on_one_kind() -> None:
    alone = summary([trial(size, seed, "H100") for size in (32, 64) for seed in range(6)])
    mixed = summary(
        [trial(size, seed, "A100" if seed > 3 else "H100") for size in (32, 64) for seed in range(6)]
    )
    assert [each.factors for each in mixed.configurations] == [each.factors for each in alone.configurations]
    for ours, theirs in zip(mixed.configurations, alone.configurations, strict=True):
        assert ours.metrics["steps_to_target"] == theirs.metrics["steps_to_target"]
        assert ours.metrics["step_time_s"].median == pytest.approx(theirs.metrics["step_time_s"].median)
        assert ours.metrics["time_to_target_s"].median == pytest.approx(
            theirs.metrics["time_to_target_s"].median
        )
        assert ours.curve == pytest.approx(theirs.curve) or ours.curve[0].time_s == pytest.approx(
            theirs.curve[0].time_s
        )
    (caveat,) = [each for each in mixed.caveats if each.name == "mixed_device_name"]
    assert "H100 (8 of 12 trials), A100 (4 of 12 trials)" in caveat.sentence
    assert "Steps to the target are pooled. Times are those of H100" in caveat.sentence


def test_a_slower_kind_never_changes_who_is_first() -> None:
    # 64 is faster on A100 by far, and 32 on H100. Each has half of its trials on each.
    draw = random.Random(0)
    for _ in range(20):
        records = [
            trial(size, seed, kind, draw.uniform(0.99, 1.01))
            for size in (32, 64)
            for seed in range(5)
            for kind in [draw.choice(("A100", "H100")) if seed else "H100"]
        ] + [trial(size, 9, "H100") for size in (32, 64) for _ in range(1)]
        moved, kinds = on_one_kind(records)
        assert kinds is not None
        best = {
            size: median(
                STEP_S[kinds.main, size] * each.values["steps_to_target"]
                for each in moved
                if each.factors["batch_size"] == size
            )
            for size in (32, 64)
        }
        assert summary(records).configurations[0].factors["batch_size"] == min(best, key=best.__getitem__)


def test_a_configuration_that_was_never_timed_on_the_kind_has_no_time_and_is_told() -> None:
    records = [trial(32, seed, "H100") for seed in range(3)] + [trial(64, seed, "A100") for seed in range(2)]
    moved, kinds = on_one_kind(records)
    assert kinds is not None
    assert kinds.untimed == 2
    assert all("time_to_target_s" not in each.values for each in moved[3:])
    assert [each.values["steps_to_target"] for each in moved[3:]] == [164, 174]
    found = summary(records)
    assert found.configurations[0].factors == {"batch_size": 32}
    assert any("Without a time of its configuration there: 2." in each.sentence for each in found.caveats)
