"""What a history says of its runs: changes, environments, gaps, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.gate.measured import Measured, Metric
from fusetune.bench.history.entries import Entry
from fusetune.bench.history.log import History
from fusetune.bench.history.study import (
    HistoryStudy,
    Series,
    newest_worsening,
    study_history,
)
from tests.bench.history.made_runs import DAY, FIRST, MACHINE, alternating, entry, process, timing

SLOWER = 1.1
# A line has six digits of a timing. A change is the quotient of two.
SIX_DIGITS = 1e-5


def count(first: str | None, last: str | None) -> int | None:
    """Commits between made runs, whose hashes are their numbers."""
    return None if first is None or last is None else int(last, 16) - int(first, 16)


def study(entries: Sequence[Entry], others: Any = (), **asked: Any) -> HistoryStudy:
    return study_history(
        History(Path("smoke.jsonl"), MACHINE, "smoke", tuple(entries), (), others), count, **asked
    )


def of(found: HistoryStudy, metric: str, benchmark: str = "smoke") -> Series:
    (series,) = [each for each in found.series if (each.benchmark, each.metric) == (benchmark, metric)]
    return series


def slowed(at: int = 12, runs: int = 24, **fields: Any) -> list[Entry]:
    """Runs whose steps take 10 % longer from one run on, which has other fields too."""
    times = [*alternating(at, 0.01), *alternating(runs - at, 0.01 * SLOWER)]
    return [
        entry(number, {"smoke": [process(time)]}, **(fields if number >= at else {}))
        for number, time in enumerate(times)
    ]


def test_a_slowdown_is_named_with_its_size_its_commits_and_what_else_changed() -> None:
    found = study(
        slowed(
            versions={"torch": "2.9.1", "numpy": "2.4.0"},
            machine={"device": "cpu", "device_name": "Some CPU", "cores": 2, "threads": 4},
            dirty=True,
        )
    )
    series = of(found, "step_time_s")
    (change,) = series.changes
    assert (change.index, change.direction, change.commits, change.runs) == (12, "worse", 1, 12)
    assert change.effect == pytest.approx(SLOWER - 1, abs=SIX_DIGITS)
    assert (change.before, change.after) == (pytest.approx(0.01, rel=0.01), pytest.approx(0.011, rel=0.01))
    assert change.environment == (
        "numpy none -> 2.4.0",
        "torch 2.9.0 -> 2.9.1",
        "threads 2 -> 4",
        "uncommitted changes after it",
    )
    assert of(found, "peak_bytes").changes == of(found, "steps_to_target").changes == ()
    assert newest_worsening(found, "step_time_s") == (f"{11:040x}", f"{12:040x}")
    assert newest_worsening(found, "peak_bytes") is None


def test_the_kernel_and_the_memory_are_of_the_environment() -> None:
    before = {
        "device": "cpu",
        "device_name": "A",
        "cpu": "A",
        "os": "Linux 6.1 x86_64",
        "memory_bytes": 2**33,
    }
    after = {**before, "os": "Linux 6.2 x86_64", "memory_bytes": 2**33 - 4096}
    runs = [
        each.model_copy(update={"machine": before if number < 12 else after})
        for number, each in enumerate(slowed())
    ]
    (change,) = of(study(runs), "step_time_s").changes
    assert change.environment == ("kernel Linux 6.1 x86_64 -> Linux 6.2 x86_64",)


def test_a_faster_step_is_better_and_a_higher_rate_is_better() -> None:
    times = [*alternating(10, 0.01), *alternating(10, 0.008)]
    runs = [
        entry(
            number,
            {"smoke": [process(time, samples_per_s=Metric((1 / time,), "samples/s", "higher", "timing"))]},
        )
        for number, time in enumerate(times)
    ]
    found = study(runs)
    for metric, effect in (("step_time_s", -0.2), ("samples_per_s", 0.25)):
        (change,) = of(found, metric).changes
        assert change.direction == "better"
        assert change.effect == pytest.approx(effect, abs=SIX_DIGITS)


def test_a_machine_that_becomes_slower_is_no_change_of_the_code() -> None:
    """The reference loop beside each process is slowed as much as it."""
    pace = [1.0] * 12 + [1.3] * 12
    runs = [
        entry(
            number,
            {
                "smoke": [
                    Measured(
                        {"step_time_s": timing(*(time * factor for _ in range(3)))}, ref=(0.001 * factor,) * 3
                    )
                ]
            },
        )
        for number, (time, factor) in enumerate(zip(alternating(24, 0.01), pace, strict=True))
    ]
    series = of(study(runs), "step_time_s")
    assert series.changes == ()
    assert series.estimator.endswith("/ reference")
    assert [point.value for point in series.points[-2:]] == pytest.approx([0.013, 0.013], rel=0.02)


def test_a_count_of_bytes_has_changed_with_the_first_run_that_differs() -> None:
    runs = [entry(number, {"smoke": [process(peak=1024 if number < 4 else 1025)]}) for number in range(5)]
    (change,) = of(study(runs), "peak_bytes").changes
    assert (change.index, change.before, change.after, change.direction) == (4, 1024, 1025, "worse")
    assert change.effect == pytest.approx(1 / 1024)


def test_an_accuracy_has_to_be_repeatable_before_it_can_change() -> None:
    def scored(values: Sequence[float]) -> Series:
        runs = [
            entry(number, {"smoke": [Measured({"acc": Metric((value,), "fraction", "higher", "learning")})]})
            for number, value in enumerate(values)
        ]
        return of(study(runs), "acc")

    assert scored([0.9, 0.8]).changes == ()
    assert scored([0.9, 0.8, 0.85]).changes == ()
    (change,) = scored([0.9, 0.9, 0.9, 0.8]).changes
    assert (change.index, change.direction) == (3, "worse")


def test_an_exact_metric_that_varies_is_judged_by_its_noise() -> None:
    rng = np.random.default_rng(0)
    peaks = [int(1e6 * factor) for factor in rng.normal(1, 0.01, 30)]
    runs = [entry(number, {"smoke": [process(peak=peak)]}) for number, peak in enumerate(peaks)]
    assert of(study(runs), "peak_bytes").changes == ()


def test_a_target_that_is_missed_from_some_run_on_is_a_change_for_the_worse() -> None:
    runs = [
        entry(number, {"smoke": [process(steps=96 if number < 10 else math.inf) for _ in range(3)]})
        for number in range(16)
    ]
    found = study(runs)
    (change,) = of(found, "steps_to_target").changes
    assert (change.index, change.before, change.after, change.direction) == (10, 96, math.inf, "worse")
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["series"]


def test_one_seed_that_misses_of_three_is_none() -> None:
    runs = [
        entry(number, {"smoke": [process(steps=steps) for steps in (96, 96, math.inf if number > 9 else 96)]})
        for number in range(20)
    ]
    assert of(study(runs), "steps_to_target").changes == ()


def test_metrics_of_zero_and_below_have_changes_too() -> None:
    values = [0.0, -0.001] * 8 + [-1.0, -1.001] * 8
    runs = [
        entry(number, {"smoke": [Measured({"score": Metric((value,), "none", "higher", "learning")})]})
        for number, value in enumerate(values)
    ]
    (change,) = of(study(runs), "score").changes
    assert (change.index, change.direction) == (16, "worse")


def test_a_metric_without_a_better_direction_only_changes() -> None:
    values = [100.0] * 10 + [200.0] * 10
    runs = [
        entry(number, {"smoke": [Measured({"epochs": Metric((value,), "count", "neither", "exact")})]})
        for number, value in enumerate(values)
    ]
    (change,) = of(study(runs), "epochs").changes
    assert change.direction == "changed"
    assert newest_worsening(study(runs), "epochs") is None


def test_several_processes_of_a_run_are_one_point() -> None:
    runs = [entry(number, {"smoke": [process(0.01), process(0.03), process(0.02)]}) for number in range(3)]
    points = of(study(runs), "step_time_s").points
    assert [(point.value, point.processes) for point in points] == [(0.02, 3)] * 3


def test_a_pause_longer_than_usual_is_a_gap_and_a_change_there_says_so() -> None:
    runs = [
        each.model_copy(
            update={
                "commit_time": entry(0, at=FIRST + DAY * (number + (30 if number >= 12 else 0))).commit_time
            }
        )
        for number, each in enumerate(slowed())
    ]
    found = study(runs)
    (gap,) = found.gaps
    assert (gap.index, gap.seconds) == (12, 31 * DAY)
    series = of(found, "step_time_s")
    assert series.gap_at == (12,)
    assert series.changes[0].at_gap


def test_commits_without_runs_are_a_gap() -> None:
    numbers = [0, 1, 2, 3, 24, 25]
    runs = [entry(number, at=FIRST + place * 3600) for place, number in enumerate(numbers)]
    (gap,) = study(runs).gaps
    assert (gap.index, gap.commits) == (4, 20)


def test_a_usual_rhythm_has_no_gaps() -> None:
    monthly = [entry(number, at=FIRST + number * 30 * DAY) for number in range(8)]
    assert study(monthly).gaps == ()
    every_twentieth = [entry(20 * number, at=FIRST + number * DAY) for number in range(8)]
    assert study(every_twentieth).gaps == ()


def test_runs_on_another_kind_of_machine_are_announced_and_not_joined() -> None:
    runs = [entry(number, at=FIRST + DAY * (number + (30 if number > 4 else 0))) for number in range(9)]
    meanwhile = (("gpu", (FIRST + 10.0 * DAY, FIRST + 12.0 * DAY, FIRST + 90.0 * DAY)),)
    found = study(runs, others=meanwhile)
    assert found.runs == 9
    assert [gap.others for gap in found.gaps] == [{"gpu": 2}]
    assert "3 runs on gpu are not joined: --machine gpu shows them." in found.notes


def test_a_metric_that_newer_runs_lack_says_since_when() -> None:
    runs = [entry(0), entry(1), entry(2, {"other": [process()]}), entry(3, {"other": [process()]})]
    found = study(runs)
    assert of(found, "step_time_s").ended == 2
    assert of(found, "step_time_s", "other").ended == 0


def test_a_benchmark_that_begins_later_has_gaps_at_its_own_runs() -> None:
    runs = [entry(number, at=FIRST + DAY * (number + (30 if number > 4 else 0))) for number in range(9)]
    runs = [
        each if number > 2 else each.model_copy(update={"benchmarks": {"other": each.benchmarks["smoke"]}})
        for number, each in enumerate(runs)
    ]
    series = of(study(runs), "step_time_s")
    assert len(series.points) == 6
    assert series.gap_at == (2,)


def test_a_metric_whose_unit_has_changed_is_shown_in_the_new_one_alone() -> None:
    def scored(number: int, unit: str) -> Entry:
        return entry(number, {"smoke": [Measured({"score": Metric((1.0,), unit, "higher", "learning")})]})

    series = of(study([scored(0, "none"), scored(1, "fraction"), scored(2, "fraction")]), "score")
    assert [point.run_id for point in series.points] == ["run1", "run2"]


def test_notes_tell_what_a_reader_must_know() -> None:
    failed = {"smoke": [process(), Measured(failure="the training diverged")]}
    runs = [entry(0, dirty=True), entry(1, commit=None, commit_time=None), entry(2, failed)]
    notes = study(runs).notes
    assert notes == (
        "Changes of noisy metrics are looked for from 8 runs on, and here are 3 runs.",
        "1 of 3 runs had uncommitted changes, so their commit is not all that ran.",
        "The commit of 1 of 3 runs is not known.",
        "In the newest run 1 of smoke's processes failed: the training diverged.",
    )


def test_one_metric_can_be_asked_for() -> None:
    assert [series.metric for series in study(slowed(), metric="step_time_s").series] == ["step_time_s"]
    with pytest.raises(
        InputError, match=r"--metric: unknown 'step_time'; known: .* Did you mean 'step_time_s'"
    ):
        study(slowed(), metric="step_time")
