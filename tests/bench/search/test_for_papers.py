"""A search as a table: its trainings, the winner on fresh seeds, and nothing in bold."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.paper import as_csv, as_markdown
from fusetune.bench.results import RunInfo, WrittenSpec
from fusetune.bench.search import SearchStudy, search_table
from fusetune.bench.search.plan import SearchPlan
from fusetune.bench.search.study import FreshRuns
from fusetune.tuner.search import SearchTrial

RUN = RunInfo(kind="search", spec=WrittenSpec({"name": "demo"}), run_id="20260101-000000-abcd", stand_in=None)


def study_of(trials: list[SearchTrial], fresh: FreshRuns, **fields: Any) -> SearchStudy:
    plan = SearchPlan(
        {"width": [8, 16]}, 4, 0, "val_accuracy", budget_epochs=8, prior=False, fresh_seeds=(1, 2)
    )
    return SearchStudy(
        run=RUN,
        path=Path("results"),
        plan=plan,
        prior="without a prior",
        winner=trials[0].config if trials else None,
        value=None,
        epoch=None,
        fresh=fresh,
        epochs_used=7,
        trials=trials,
        importances={},
        predicted=None,
        **fields,
    )


TRIALS = [
    SearchTrial(0, {"width": 8}, [0.5, 0.9, 0.8], "finished"),
    SearchTrial(1, {"width": 16}, [0.6], "dropped", "worse"),
    SearchTrial(2, {"width": 32}, [], "failed"),
]


def test_the_best_epoch_of_each_training_and_the_fresh_mean_of_the_winner() -> None:
    table = search_table(study_of(TRIALS, FreshRuns((0.8, 0.9), 0.85, 0.75, 0.95)))
    first, second = csv.DictReader(io.StringIO(as_csv(table)))
    assert (first["rank"], first["factor.width"], first["epochs"], first["status"]) == (
        "1",
        "8",
        "3",
        "finished",
    )
    assert (float(first["best_val_accuracy"]), float(second["best_val_accuracy"])) == (0.9, 0.6)
    fresh = [first[f"fresh_val_accuracy{end}"] for end in ("", "_low", "_high", "_n")]
    assert fresh == ["0.85", "0.75", "0.95", "2"]
    assert second["fresh_val_accuracy"] == ""
    text = as_markdown(table)
    assert "| 1 | 8 | 3 | 90.0 | 85 [75, 95] |" in text
    assert "**" not in text
    assert "mean of the best epochs of n = 2 trainings, with its 95 % interval by Student's t." in text


@pytest.mark.parametrize(
    ("trials", "fresh", "note"),
    [
        (TRIALS, FreshRuns((0.8,), 0.8, None, None), "the best epoch of one training, without an interval."),
        (TRIALS, FreshRuns((), None, None, None), "The winner has not been trained on fresh seeds."),
        ([], FreshRuns((), None, None, None), "No training reported a value."),
    ],
)
def test_what_is_missing_is_said(trials: list[SearchTrial], fresh: FreshRuns, note: str) -> None:
    assert any(note in each for each in search_table(study_of(trials, fresh)).notes)


def test_people_see_ten_and_csv_all() -> None:
    many = [SearchTrial(n, {"width": n}, [1 - n / 100], "finished") for n in range(12)]
    table = search_table(study_of(many, FreshRuns((), None, None, None)))
    assert "The best 10 of 12." in table.notes
    assert (
        sum(line.startswith("| ") for line in as_markdown(table).splitlines()) == 12
    )  # head, rule, ten rows
    assert len(as_csv(table).splitlines()) == 13
