"""What a page says of batch sizes, against the studies of the golden reports and an old run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fusetune.bench.batch_size.measurements import MeasuredStudy, study_measured, study_measurements
from fusetune.bench.batch_size.page_sections import batch_size_part
from fusetune.bench.batch_size.study import SizeRow
from fusetune.bench.page import Part, Plot
from fusetune.bench.results.directory import RunDirectory
from tests.bench.batch_size.test_report import CASES, MIB, RATES, configuration, measured, study_of
from tests.bench.compiled_plots import check, compiled, rows_of, table_in, words_in

OLD = Path(__file__).parents[1] / "old_runs"
HOSTILE = "</script><b>x[0].y"


def part_of(case: str) -> Part:
    _, records = CASES[case]()
    study, measurements = measured(case)
    return batch_size_part(MeasuredStudy(study, tuple(measurements)), records)


def across(plot: Plot, axis: str) -> dict[str, float]:
    """Label of each line across a plot -> where it is."""
    rows = [
        row
        for layer in plot.spec["layer"]
        if layer["encoding"].get(axis, {}).get("field") == "at"
        for row in layer.get("data", {}).get("values", [])
    ]
    return {row["label"]: row["at"] for row in rows if "at" in row}


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        ("plateau_binds", "Use batch_size 128: the throughput plateau binds."),
        ("memory_alone", "Use batch_size 1200, by memory alone: the number of samples binds."),
        ("nothing_fits", "the `train` configuration: no largest batch was found. All probes died."),
    ],
)
def test_the_answer_names_the_size_and_what_binds(case: str, answer: str) -> None:
    _, (found,) = measured(case)
    part = part_of(case)
    if found.recommendation is not None:
        answer = answer.replace("128", str(found.recommendation.batch_size))
        assert f"{found.recommendation.reason[1:]}." in part.more
    assert part.answer == answer
    check(part)


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_plots_that_compile_and_the_terminals_sentences(case: str) -> None:
    part = part_of(case)
    check(part)
    assert part.answer


def test_memory_is_drawn_in_the_unit_of_the_axis_with_its_limit() -> None:
    study = study_of(configuration())
    plot = check(part_of("plateau_binds"))["Memory"]
    (rows,) = [each.rows for each in study.configurations]
    assert rows_of(plot.data["measured"]) == [
        {
            "size": 300,
            "memory": pytest.approx((rows_at(300).needed_bytes or 0) / MIB),
            "ended": "fits",
            "fits": True,
        },
        {
            "size": 330,
            "memory": pytest.approx((rows_at(330).needed_bytes or 0) / MIB),
            "ended": "does not fit",
            "fits": False,
        },
    ]
    assert plot.data["expected"]["size"] == [row.batch_size for row in rows]
    assert across(plot, "y") == {"limit 256 MiB": 256.0}
    assert "Crosses" in plot.caption
    assert "memory (MiB)" in {axis.get("title") for axis in compiled(plot)["axes"]}


def rows_at(size: int) -> SizeRow:
    (row,) = [row for row in configuration().rows if row.batch_size == size]
    return row


def test_throughput_has_the_intervals_and_the_plateau_of_the_study() -> None:
    _, (found,) = measured("plateau_binds")
    plot = check(part_of("plateau_binds"))["Throughput"]
    assert rows_of(plot.data["rates"]) == [
        {
            "size": rate.batch_size,
            "rate": rate.samples_per_s,
            "low": rate.low,
            "high": rate.high,
            "step": pytest.approx(1e3 * rate.step_time_s),
        }
        for rate in found.throughputs
    ]
    assert plot.data["rates"]["size"] == list(RATES)
    assert found.recommendation is not None
    assert across(plot, "x") == {f"use {found.recommendation.batch_size}": found.recommendation.batch_size}
    bands = [layer for layer in plot.spec["layer"] if layer["mark"].get("style") == "band"]
    best = max(rate.samples_per_s for rate in found.throughputs)
    assert bands[0]["data"]["values"][0]["to"] == best
    assert bands[0]["data"]["values"][0]["from"] == pytest.approx(0.95 * best)


def test_the_noise_scale_has_its_interval_and_what_is_beyond_measure_is_said() -> None:
    _, (found,) = measured("noise_binds")
    plot = check(part_of("noise_binds"))["Gradient noise"]
    assert plot.data["noise"]["when"] == ["before training", "after 4 epochs"]
    assert plot.data["noise"]["value"] == [point.scale.value for point in found.noise]
    assert plot.data["noise"]["high"] == [point.scale.high for point in found.noise]
    beyond = part_of("noise_beyond_measure")
    assert check(beyond)["Gradient noise"].data["noise"]["when"] == ["before training"]
    _, (unknown,) = measured("noise_beyond_measure")
    assert f"Noise scale after 4 epochs: {unknown.noise[1].scale.reason}." in words_in(beyond)


def test_expected_time_and_steps_follow_from_the_critical_batch_size() -> None:
    _, (found,) = measured("runs_and_rates")
    plots = check(part_of("runs_and_rates"))
    critical = found.critical
    assert critical is not None
    assert critical.value is not None
    assert critical.min_steps is not None
    fit = plots["Steps to the target"].data["fit"]
    assert fit["steps"][0] == pytest.approx(critical.min_steps * (1 + critical.value / 16))
    assert fit["size"][0] == pytest.approx(16)
    trainings = rows_of(plots["Steps to the target"].data["trainings"])
    assert len(trainings) == 3 * 3 + 1
    assert trainings[0] == {"size": 16, "steps": pytest.approx(95 * 26)}
    assert "Missed the target: 2 of 3 at 256." in plots["Steps to the target"].caption
    expected = rows_of(plots["Expected time to the target"].data["expected"])
    raw = {
        rate.batch_size: (1 + rate.batch_size / critical.value) / rate.samples_per_s
        for rate in found.throughputs
    }
    assert min(row["time"] for row in expected) == 1.0
    for row in expected:
        assert row["time"] == pytest.approx(raw[row["size"]] / min(raw.values()), rel=0.1)


def test_a_missed_target_has_no_number() -> None:
    directory = RunDirectory.open(OLD / "sizes" / "20261129-115158-9517")
    records, _ = directory.records()
    part = batch_size_part(study_measured(directory.run, records, "d"), records)
    check(part)
    cells = [[cell.text for cell in row] for row in table_in(part, "Earlier trainings").rows]
    assert cells == [
        ["32", "1", "1", "36", "157 ms"],
        ["64", "1", "0", "missed", "missed"],
        ["128", "1", "0", "missed", "missed"],
    ]
    assert "Steps to the target" not in check(part)
    assert check(part)["Expected time to the target"].data["trained"]["size"] == []
    assert part.answer == "Use batch_size 16: the throughput plateau binds."
    assert "rests on contended timings" in part.more


def test_sizes_that_were_killed_are_rows_with_their_reasons() -> None:
    table = table_in(part_of("plateau_binds"), "Sizes that were run")
    killed = table.rows[-1]
    assert killed[1].text == "330"
    assert killed[-1].text == "does not fit"
    assert killed[-1].small == "wanted at least 300 MiB, the limit is 256 MiB"
    assert killed[4].text.startswith(">= ")
    failures = table_in(part_of("measurements_failed"), "Trials that did not end well")
    assert [row[2].text for row in failures.rows] == ["the worker was killed by the system"] * 2


def test_a_prediction_for_a_device_that_is_not_there_says_so() -> None:
    part = part_of("device_not_there")
    assert "is predicted to be the largest batch" in part.answer
    assert "Nothing was run" in check(part)["Memory"].alt


def test_names_of_others_are_data() -> None:
    study = study_of(configuration())
    (own,) = study.configurations
    twice = dataclasses.replace(
        study,
        configurations=(own, dataclasses.replace(own, factors={"optimizer": HOSTILE})),
    )
    _, records = CASES["plateau_binds"]()
    part = batch_size_part(MeasuredStudy(twice, tuple(study_measurements(twice, records))), records)
    check(part)
    assert HOSTILE in words_in(part)


@pytest.mark.parametrize("path", ["sizes/20261129-113314-991a", "fused/20261129-112348-ad6c"])
def test_old_runs_have_their_page(path: str) -> None:
    directory = RunDirectory.open(OLD / path)
    records, _ = directory.records()
    part = batch_size_part(study_measured(directory.run, records, "d"), records)
    plot = check(part)["Memory"]
    predicted = path.startswith("fused")
    assert (plot.data["measured"]["size"] == []) == predicted
    assert ("Dots" in plot.caption) != predicted
