"""The ranking for a paper: medians, ranges and n by hand, and bold only where the tests can tell."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest

from fusetune.bench.paper import Figure, PaperTable, as_csv, as_latex, as_markdown
from fusetune.bench.report import training_table
from fusetune.bench.results import Machine, Record, RunInfo, WrittenSpec
from fusetune.bench.stats import summarize

TARGET = {"metric": "val_accuracy", "at_least": 0.9}


def run_of(target: dict[str, Any] | None = TARGET, **fields: Any) -> RunInfo:
    content = {"name": "demo", "data": "digits", "model": "cnn", "factors": {"optimizer": ["adam", "sgd"]}}
    content["target"] = target
    return RunInfo(
        spec=WrittenSpec(content),
        run_id="20260101-000000-abcd",
        baseline={"optimizer": "sgd"},
        machine=Machine(device_name="a CPU"),
        data=("digits",),
        **fields,
    )


def trial(optimizer: str, seed: int, time_s: float | None, **values: float) -> Record:
    reached = {} if time_s is None else {"time_to_target_s": time_s, "steps_to_target": 10 * (seed + 1)}
    return Record(
        f"{optimizer},{seed}",
        {"optimizer": optimizer},
        seed,
        "missed_target" if time_s is None else "ok",
        values={"best_val_accuracy": 0.9 + seed / 100, "step_time_s": 0.001, **reached, **values},
    )


def table_of(times: dict[str, list[float | None]], **fields: Any) -> PaperTable:
    records = [trial(name, seed, time) for name, each in times.items() for seed, time in enumerate(each)]
    return training_table(summarize(run_of(trials=len(records), **fields), records))


def cells(table: PaperTable, name: str) -> list[Any]:
    place = [column.name for column in table.columns].index(name)
    return [row[place] for row in table.rows]


APART = {"sgd": [9.0, 8.0, 10.0, 7.0], "adam": [1.0, 2.0, 3.0, 4.0]}
TIED = {"sgd": [9.0, 2.5, 10.0, 7.0], "adam": [1.0, 2.0, 3.0, 4.0]}


def test_medians_ranges_and_n_are_those_of_the_records() -> None:
    table = table_of(APART)
    assert cells(table, "factor.optimizer") == ["adam", "sgd"]
    first, second = cells(table, "time_to_target_s")
    assert (first.value, first.low, first.high, first.n) == (2.5, 1.0, 4.0, 4)
    assert (second.value, second.low, second.high, second.n) == (8.5, 7.0, 10.0, 4)
    assert [figure.value for figure in cells(table, "n")] == [4, 4]
    assert [figure.value for figure in cells(table, "reached")] == [4, 4]
    assert table.label == "tab:demo-20260101-000000-abcd"
    for part in (
        "demo",
        "2 configurations",
        "val_accuracy ≥ 0.9",
        "cnn on digits",
        "20260101-000000-abcd",
        "a CPU",
    ):
        assert part in table.caption


def bold(table: PaperTable) -> list[tuple[int, str]]:
    return [
        (place, column.name)
        for place, row in enumerate(table.rows)
        for column, cell in zip(table.columns, row, strict=True)
        if isinstance(cell, Figure) and cell.is_best
    ]


def test_the_first_place_is_bold_where_the_test_can_tell_and_only_in_what_was_tested() -> None:
    """Four seeds a side that do not overlap: p = 2 / C(8, 4) = 0.029."""
    table = table_of(APART)
    assert bold(table) == [(0, "time_to_target_s")]
    assert [figure.marks for figure in cells(table, "rank")] == [(), ("behind", "baseline")]
    assert cells(table, "p_adjusted")[1].value == pytest.approx(2 / 70)
    assert cells(table, "told_from_first") == ["", "true"]
    assert any(note.startswith("Bold: ") for note in table.notes)
    assert as_latex(table).count("\\textbf") == 1
    assert as_markdown(table).count("**") == 2


@pytest.mark.parametrize(
    "times", [TIED, {"sgd": [9.0], "adam": [1.0]}, {"sgd": [9.0] * 3, "adam": [1.0] * 3}]
)
def test_nothing_is_bold_where_the_data_cannot_tell(times: dict[str, list[float | None]]) -> None:
    table = table_of(times)
    assert bold(table) == []
    assert [figure.marks for figure in cells(table, "rank")] == [(), ("tie", "baseline")]
    assert cells(table, "told_from_first") == ["", "false"]
    assert "\\textbf" not in as_latex(table)
    assert not any(note.startswith("Bold: ") for note in table.notes)
    notes = " ".join(table.notes)
    assert "~ not told from it" in notes
    assert "†" not in notes
    if len(times["sgd"]) < 4:
        assert (
            f"With n = {len(times['sgd'])}, no first place can be told from the others. That needs n = 4."
            in notes
        )


def test_one_configuration_is_best_of_nothing() -> None:
    table = table_of({"adam": [1.0, 2.0, 3.0, 4.0]})
    assert bold(table) == []
    assert not any("Mann-Whitney" in note for note in table.notes)


def test_a_missed_target_is_no_number() -> None:
    table = table_of({"adam": [1.0, None, 3.0], "sgd": [5.0, None, None], "momentum": [None] * 3})
    times = cells(table, "time_to_target_s")
    assert (times[0].value, times[0].high) == (3.0, math.inf)
    assert (times[1].value, times[1].low) == (math.inf, 5.0)
    assert times[2].value is None
    assert "A seed that missed the target counts as ∞." in table.notes
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [row["time_to_target_s"] for row in rows] == ["3.0", "inf", ""]
    assert [row["reached"] for row in rows] == ["2", "1", "0"]
    assert "optimizer=momentum: 3 missed." in table.notes


def test_without_a_target_the_score_is_compared() -> None:
    records = [
        Record(
            f"{name}{seed}", {"optimizer": name}, seed, "ok", values={"best_val_accuracy": base + seed / 1000}
        )
        for name, base in (("adam", 0.9), ("sgd", 0.5))
        for seed in range(4)
    ]
    table = training_table(summarize(run_of(None, trials=8), records))
    assert bold(table) == [(0, "best_val_accuracy")]
    assert "reached" not in [column.name for column in table.columns]
    assert "by best val acc" in table.caption


def test_a_stand_in_and_contention_are_said_first() -> None:
    records = [trial("adam", 0, 1.0, processor_missing=0.5), trial("sgd", 0, 2.0)]
    table = training_table(summarize(run_of(trials=2, stand_in="noise is used for digits"), records))
    assert table.notes[0] == "STAND-IN DATA: noise is used for digits"
    assert any(note.startswith("Contended: 1 of 1 timings") for note in table.notes)
    assert cells(table, "step_time_s")[0].marks == ("contended",)
    assert "‡ contended" in " ".join(table.notes)
    assert cells(table, "stand_in") == ["noise is used for digits"] * 2


def test_csv_has_every_metric_and_reads_back() -> None:
    (row, _) = csv.DictReader(io.StringIO(as_csv(table_of(APART))))
    assert float(row["time_to_target_s"]) == 2.5
    assert (float(row["best_val_accuracy_min"]), float(row["best_val_accuracy_max"])) == (0.9, 0.93)
    assert (row["is_baseline"], row["statuses"], row["run"]) == ("false", "ok=4", "20260101-000000-abcd")


def test_a_run_without_records_has_a_table_that_says_so() -> None:
    table = table_of({})
    assert table.rows == ()
    assert table.notes == ("No trial has finished.",)
    assert "No trial has finished." in as_latex(table)
