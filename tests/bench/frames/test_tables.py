"""The tables: against values that are written by hand, and against what lies on disk, read by `json` alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas
import pytest

import fusetune
from fusetune.bench.autotune import Candidate, Confirmation, Tuning, record_of_tuning
from fusetune.bench.frames import Results, Run, dataframes
from fusetune.bench.kernels import Case, KernelSource, Policy, Row, SideResult
from fusetune.bench.kernels.records import record_of_row
from fusetune.bench.results import Machine, Record, RunInfo, WrittenSpec
from fusetune.bench.units import METRICS
from fusetune.errors import InvalidValueError, StateError

OLD = Path(__file__).parents[1] / "old_runs"
INFO = RunInfo(
    spec=WrittenSpec({"name": "demo"}), run_id="id", stand_in=None, machine=Machine(device_name="a CPU")
)


def results_of(*records: Record, info: RunInfo = INFO) -> Results:
    return Results((Run(Path("demo"), info, records),))


TWO = results_of(
    Record(
        "a",
        {"optimizer": "adam", "batch_size": 32},
        0,
        "ok",
        values={"time_to_target_s": 1.5, "steps_to_target": 80, "peak_bytes": 1024.0},
        samples={"step_time_s": [0.5, 0.25]},
        curve=[
            {"epoch": 1, "train_loss": 2.0, "val_accuracy": 0.5, "lr": 0.1},
            {"epoch": 2, "train_loss": None, "val_accuracy": 0.75, "lr": 0.2},
        ],
    ),
    Record("b", {"optimizer": "sgd"}, 7, "missed_target", "too slow", values={"peak_bytes": 2048}),
)


def listed(frame: pandas.DataFrame) -> dict[str, list[Any]]:
    """The columns as lists, with None for what is missing."""
    return {name: [None if pandas.isna(value) else value for value in frame[name].tolist()] for name in frame}


def test_trials_have_a_row_for_each_record() -> None:
    frame = TWO.to_frame("trials", "pandas")
    assert listed(frame) == {
        "run": ["id", "id"],
        "spec": ["demo", "demo"],
        "kind": ["run", "run"],
        "trial": ["a", "b"],
        "seed": [0, 7],
        "status": ["ok", "missed_target"],
        "reason": ["", "too slow"],
        "device_name": ["a CPU", "a CPU"],
        "stand_in": [False, False],
        "factor.optimizer": ["adam", "sgd"],
        "factor.batch_size": [32, None],
        "time_to_target_s": [1.5, None],
        "steps_to_target": [80, None],
        "peak_bytes": [1024.0, 2048.0],
    }
    assert frame.dtypes.astype(str).to_dict() == {
        **dict.fromkeys(
            ("run", "spec", "kind", "trial", "status", "device_name", "factor.optimizer"), "category"
        ),
        "seed": "int64",
        "reason": "string",
        "stand_in": "boolean",
        "factor.batch_size": "Int64",
        "time_to_target_s": "float64",
        "steps_to_target": "Int64",
        "peak_bytes": "float64",
    }


def test_curves_have_a_row_for_each_epoch() -> None:
    frame = TWO.to_frame("curves", "pandas")
    assert listed(frame[["trial", "seed", "factor.optimizer", "factor.batch_size"]]) == {
        "trial": ["a", "a"],
        "seed": [0, 0],
        "factor.optimizer": ["adam", "adam"],
        "factor.batch_size": [32, 32],
    }
    assert listed(frame[["epoch", "train_loss", "val_accuracy", "lr"]]) == {
        "epoch": [1, 2],
        "train_loss": [2.0, None],
        "val_accuracy": [0.5, 0.75],
        "lr": [0.1, 0.2],
    }
    assert math.isnan(frame["train_loss"][1])
    assert str(frame["epoch"].dtype) == "Int64"


def test_samples_have_a_row_for_each_measurement() -> None:
    frame = TWO.to_frame("samples", "pandas")
    assert listed(frame) == {
        "run": ["id", "id"],
        "spec": ["demo", "demo"],
        "kind": ["run", "run"],
        "trial": ["a", "a"],
        "seed": [0, 0],
        "metric": ["step_time_s", "step_time_s"],
        "side": [None, None],
        "policy": [None, None],
        "index": [0, 1],
        "value": [0.5, 0.25],
        "unit": ["s", "s"],
    }


def test_the_units_are_those_of_the_metrics() -> None:
    units = TWO.units("trials")
    assert units == {"time_to_target_s": "s", "steps_to_target": "count", "peak_bytes": "bytes"}
    assert TWO.to_frame("trials", "pandas").attrs["units"] == units
    assert TWO.units("curves") == {
        "epoch": "count",
        "train_loss": "nats",
        "val_accuracy": "fraction",
        "lr": "none",
    }
    assert results_of(Record("a", {}, 0, "ok", values=dict.fromkeys(METRICS, 1.0))).units() == {
        name: metric.unit for name, metric in METRICS.items()
    }


def test_names_of_others_take_no_columns_place() -> None:
    names = ("status", "seed", "run", "steps", "factor.seed", "value.seed", "a\nb", "")
    record = Record(
        "t", dict.fromkeys(names, 5), 3, "ok", values={"seed": 9.0, "steps": 1, "factor.seed": 2.0}
    )
    frame = results_of(record).to_frame(library="pandas")
    assert len(set(frame.columns)) == len(frame.columns)
    row = frame.iloc[0]
    assert (row["seed"], row["status"], row["run"], row["steps"]) == (3, "ok", "id", 1)
    assert [row[f"factor.{name}"] for name in names] == [5] * len(names)
    assert (row["value.seed"], row["value.factor.seed"]) == (9.0, 2.0)
    assert not any("." in name for name in METRICS)


@pytest.mark.parametrize(
    ("levels", "dtype", "expected"),
    [
        ([32, 64], "Int64", [32, 64]),
        ([1, 0.5], "float64", [1.0, 0.5]),
        ([True, False], "boolean", [True, False]),
        (["1", "adam"], "category", ["1", "adam"]),
        ([None, 32], "category", ["null", "32"]),
        ([True, 1], "category", ["true", "1"]),
        (["1", 1], "category", ['"1"', "1"]),
        (["auto", 0.1], "category", ["auto", "0.1"]),
        (
            [{"name": "one-cycle", "pct_start": 0.3}, "constant"],
            "category",
            ["one-cycle(pct_start=0.3)", "constant"],
        ),
        ([[0.9, 0.99], [0.8, 0.9]], "category", ["[0.9, 0.99]", "[0.8, 0.9]"]),
        ([2**70, 1], "category", [str(2**70), "1"]),
        ([2**53 + 1, 0.5], "category", [str(2**53 + 1), "0.5"]),
        (["\ud800", "b"], "category", ["\\ud800", "b"]),
    ],
)
def test_a_factors_column_keeps_different_values_different(
    levels: list[Any], dtype: str, expected: list[Any]
) -> None:
    records = [Record(str(place), {"x": level}, 0, "ok") for place, level in enumerate(levels)]
    column = results_of(*records, Record("without", {}, 0, "ok")).to_frame(library="pandas")["factor.x"]
    assert str(column.dtype) == dtype
    assert column.tolist()[:-1] == expected
    assert pandas.isna(column.iloc[-1])


def test_a_count_that_is_not_whole_stays_as_it_is() -> None:
    frame = results_of(Record("a", {}, 0, "ok", values={"launches": 1.5})).to_frame(library="pandas")
    assert frame["launches"].tolist() == [1.5]


def test_tables_without_rows_have_their_columns() -> None:
    for table in ("trials", "curves", "samples"):
        frame = Results(()).to_frame(table, "pandas")
        assert len(frame) == 0
        assert list(frame)[:5] == ["run", "spec", "kind", "trial", "seed"]
        assert str(frame["seed"].dtype) == "int64"


@pytest.mark.parametrize("name", ["trainings", "fused", "sizes", "searched"])
def test_the_tables_hold_what_is_on_disk(name: str) -> None:
    """Read again by `json`, without a line of ours. The marks of version 1 are not in these fields."""
    found = fusetune.load(OLD / name)
    lines = [
        json.loads(line)
        for run in sorted((OLD / name).iterdir())
        for line in (run / "records.jsonl").read_text().splitlines()
    ]
    trials = found.to_frame(library="pandas")
    assert trials["seed"].tolist() == [line["seed"] for line in lines]
    for metric in METRICS:
        values = [line["values"].get(metric) for line in lines]
        if metric in trials:
            assert [None if pandas.isna(v) else float(v) for v in trials[metric]] == values
        else:
            assert values == [None] * len(lines)
    curves = found.to_frame("curves", "pandas")
    entries = [entry for line in lines for entry in line["curve"]]
    assert len(curves) == len(entries)
    for column in curves.columns[5:]:
        if not column.startswith("factor."):
            values = [entry.get(column) for entry in entries]
            assert [None if pandas.isna(v) else float(v) for v in curves[column]] == values
    samples = found.to_frame("samples", "pandas")
    raw = [value for line in lines for values in line["samples"].values() for value in values]
    assert samples["value"].tolist() == raw


def test_kernels_have_the_rounds_of_every_side() -> None:
    sides = (
        SideResult("ours", latencies_s={"wall, cold": [0.25, 0.5]}, contention=[0.0, 0.125]),
        SideResult("eager", latencies_s={"wall, cold": [1.0, 2.0]}),
        SideResult("liger", "skipped", "not installed"),
    )
    row = Row(Case(KernelSource("gelu"), "gelu", 8, "float32"), sides, (Policy(),), bytes_moved=64)
    found = results_of(record_of_row(row))
    samples = found.to_frame("samples", "pandas")
    assert samples[["metric", "side", "policy", "index", "value", "unit"]].astype(object).values.tolist()[
        :2
    ] == [
        ["latency_s", "ours", "wall, cold", 0, 0.25, "s"],
        ["latency_s", "ours", "wall, cold", 1, 0.5, "s"],
    ]
    assert samples.loc[samples["side"] == "eager", "value"].tolist() == [1.0, 2.0]
    assert samples.loc[samples["metric"] == "processor_missing", "value"].tolist() == [0.0, 0.125]
    assert "liger" not in set(samples["side"])
    trials = found.to_frame(library="pandas")
    assert trials[["factor.kernel", "factor.shape", "latency_s", "moved_bytes"]].values.tolist() == [
        ["gelu", 8, 0.375, 64.0]
    ]


def test_tunings_have_their_configs_and_what_they_came_to() -> None:
    case = Case(KernelSource("gelu"), "gelu", 8, "float32")
    tuning = Tuning(
        case,
        default={"B": 1},
        winner={"B": 2},
        candidates=(
            Candidate({"B": 1}, "slower", samples_s=(0.5, 0.5)),
            Candidate({"B": 2}, "fastest", samples_s=(0.25,)),
            Candidate({"B": 3}, "dropped"),
        ),
        confirmation=Confirmation(True, 0.001, 2.0, math.nan, math.nan, (0.5,), (0.25,)),
        policy="wall, warm",
    )
    none = Tuning(case, default={"B": 1}, winner={"B": 1})
    found = results_of(record_of_tuning(tuning), record_of_tuning(none))
    trials = listed(found.to_frame(library="pandas"))
    assert {name: trials[name] for name in ("default", "winner", "gain", "gain_low", "gain_high")} == {
        "default": ["B=1", "B=1"],
        "winner": ["B=2", "B=1"],
        "gain": [2.0, None],
        "gain_low": [None, None],
        "gain_high": [None, None],
    }
    samples = found.to_frame("samples", "pandas")[["metric", "side", "index", "value", "unit"]]
    assert samples.astype(object).values.tolist() == [
        ["latency_s", "B=1", 0, 0.5, "s"],
        ["latency_s", "B=1", 1, 0.5, "s"],
        ["latency_s", "B=2", 0, 0.25, "s"],
        ["confirmation_s", "B=1", 0, 0.5, "s"],
        ["confirmation_s", "B=2", 0, 0.25, "s"],
    ]


def test_polars_has_the_same_cells() -> None:
    polars = pytest.importorskip("polars")
    for found in (TWO, fusetune.load(OLD), Results(())):
        for table in ("trials", "curves", "samples"):
            theirs = found.to_frame(table, "polars")
            assert isinstance(theirs, polars.DataFrame)
            assert theirs.to_dict(as_series=False) == listed(found.to_frame(table, "pandas"))
    frame = TWO.to_frame(library="polars")
    assert frame.schema["seed"] == polars.Int64
    assert frame.schema["steps_to_target"] == polars.Int64
    assert frame.schema["peak_bytes"] == polars.Float64
    assert frame.schema["status"] == polars.Categorical


@pytest.mark.parametrize(
    ("installed", "asked", "message"),
    [
        (
            (),
            None,
            "pandas and polars are not installed; a table needs pandas or polars. Run pip install pandas.",
        ),
        ((), "polars", "polars is not installed; a table needs pandas or polars. Run pip install polars."),
        (
            ("polars",),
            "pandas",
            "pandas is not installed; a table needs pandas or polars. Run pip install pandas.",
        ),
    ],
)
def test_a_library_that_is_missing_is_said_with_its_command(
    installed: tuple[str, ...], asked: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataframes, "find_spec", lambda name: name in installed or None)
    with pytest.raises(StateError) as caught:
        TWO.to_frame(library=asked)
    assert str(caught.value) == f"to_frame: {message}"


def test_the_first_library_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataframes, "find_spec", lambda name: name == "polars" or None)
    monkeypatch.setitem(dataframes._BUILDERS, "polars", lambda columns: "a table of polars")
    assert TWO.to_frame() == "a table of polars"


def test_an_unknown_table_or_library_lists_the_known_ones() -> None:
    with pytest.raises(
        InvalidValueError, match=r"table: unknown 'trial'; known: trials, curves, samples\. Did you mean"
    ):
        TWO.to_frame("trial")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="library: unknown 'excel'; known: pandas, polars"):
        TWO.to_frame(library="excel")  # type: ignore[arg-type]


def test_the_page_names_every_fixed_column() -> None:
    page = (Path(__file__).parents[3] / "docs" / "records.md").read_text(encoding="utf-8")
    section = page.partition("## As data")[2].partition("\n## ")[0]
    for table in ("trials", "curves", "samples"):
        for column in Results(()).to_frame(table, "pandas"):
            assert f"`{column}`" in section, column
    for column in (
        "default",
        "winner",
        "gain",
        "gain_low",
        "gain_high",
        "smoothed",
        "grad_norm",
        "confirmation_s",
    ):
        assert f"`{column}`" in section, column
