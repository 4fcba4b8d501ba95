"""Runs of version 1 of the records' format: their reports have the figures that that version printed.

old_runs/ holds small runs of commit 1e96ede, the last with version 1, and the report that this commit printed of each.
Figures are as printed then, and sentences as the reports have them now. The names of the machine's processor and of its
system are replaced.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.outcomes import (
    AutoRate,
    EarlierRangeTests,
    EarlierTrainings,
    MemoryPrediction,
    TrainingOutcome,
)
from fusetune.bench.results.records import SCHEMA_VERSION, Record
from fusetune.bench.results.run_info import RunInfo

HERE = Path(__file__).parent
RUNS = sorted(path.relative_to(HERE) for path in (HERE / "old_runs").glob("*/*"))
# Their log was an Optuna study, which is no longer read.
SEARCHES = [path for path in RUNS if path.parent.name == "searched"]
# A record's mark in version 1 -> the kind of its outcome.
KINDS = {"runs": "earlier_trainings", "rates": "earlier_range_tests", "noise": "gradient_noise"}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records as they lie on disk."""
    return [json.loads(line) for line in (HERE / path / "records.jsonl").read_text().splitlines()]


def records_of(path: Path) -> list[Record]:
    records, notes = RunDirectory.open(HERE / path).records()
    assert not notes
    return records


def kind_of(line: dict[str, Any], run: dict[str, Any]) -> str:
    """The kind of work that a record of version 1 is of, by its marks."""
    measurement = line["provenance"].get("measurement")
    if measurement:
        return KINDS.get(measurement, measurement)
    if run["kind"] == "batch-size":
        return "memory_prediction" if "prediction" in line["provenance"] else "memory_probe"
    return "range_test" if run["kind"] == "lr-range" else "training"


def test_there_is_a_run_of_each_kind() -> None:
    kinds = {json.loads((HERE / path / "run.json").read_text())["kind"] for path in RUNS}
    assert kinds == {"run", "lr-range", "batch-size", "search"}


@pytest.mark.parametrize("path", [path for path in RUNS if path not in SEARCHES], ids=str)
def test_the_report_has_the_figures_that_the_old_version_printed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(HERE)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(path)])
    assert stop.value.code == 0
    assert capsys.readouterr().out == (path / "report.txt").read_text(encoding="utf-8")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize("path", SEARCHES, ids=str)
def test_the_report_of_a_search_names_the_same_winner(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(HERE)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(path)])
    assert stop.value.code == 0
    panel = (path / "report.txt").read_text(encoding="utf-8").partition("Winner")[2]
    assert panel
    assert panel.partition("╰")[0] in capsys.readouterr().out


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_every_record_is_read_and_nothing_of_it_is_lost(path: Path) -> None:
    lines, records = lines_of(path), records_of(path)
    run = json.loads((HERE / path / "run.json").read_text())
    assert Counter(record.outcome.kind if record.outcome else "" for record in records) == Counter(
        kind_of(line, run) for line in lines
    )
    for line, record in zip(lines, records, strict=True):
        content = record.as_dict()
        now = {**content["provenance"], **content["outcome"]}
        for name in (
            "trial",
            "factors",
            "seed",
            "status",
            "reason",
            "values",
            "samples",
            "curve",
            "findings",
        ):
            assert content[name] == line[name]
        for name, value in line["provenance"].items():
            if name in ("prediction", "runs", "rates"):
                assert value.items() <= json.loads(json.dumps(content["outcome"])).items()
            elif name == "from_study":
                assert content["outcome"]["from_log"] is value
            elif name not in ("measurement", "base_lr_auto", "contention"):
                assert json.loads(json.dumps(now[name])) == value
        # What is written now is read back to the same.
        assert Record.from_dict(json.loads(json.dumps(content))) == record


def test_outcomes_have_what_the_old_records_said() -> None:
    (trainings,) = [path for path in RUNS if path.parent.name == "trainings"]
    found = {record.trial: record.outcome for record in records_of(trainings)}
    auto = found["batch_size=128,base_lr=auto,seed=0"]
    assert isinstance(auto, TrainingOutcome)
    assert isinstance(auto.base_lr_auto, AutoRate)
    assert auto.base_lr_auto.base_lr == 0.1474566552842851
    assert auto.base_lr_auto.interval == (0.09918280358922231, 0.2192261601888337)
    assert auto.contention is not None
    assert (auto.contention.epochs, auto.contention.timed_again) == ((1,), ())
    fixed = found["batch_size=128,base_lr=0.01,seed=0"]
    assert isinstance(fixed, TrainingOutcome)
    assert fixed.base_lr_auto is None

    (search,) = SEARCHES
    assert sum(isinstance(r.outcome, TrainingOutcome) and r.outcome.from_log for r in records_of(search)) == 3

    outcomes = [record.outcome for path in RUNS for record in records_of(path)]
    predictions = [each for each in outcomes if isinstance(each, MemoryPrediction)]
    assert {each.simulated is not None for each in predictions} == {True, False}
    for earlier in (each for each in outcomes if isinstance(each, EarlierTrainings)):
        assert [row.batch_size for row in earlier.rows] == [32, 64, 128]
    (rates,) = [each for each in outcomes if isinstance(each, EarlierRangeTests)]
    assert [(row.batch_size, row.lr) for row in rates.rows] == [
        (32, 0.03773399108981463),
        (64, 0.04204576139863906),
        (128, 0.05582792479247422),
    ]


def test_an_old_run_is_continued_in_the_new_format(tmp_path: Path) -> None:
    (old,) = [path for path in RUNS if path.parent.name == "trainings"]
    path = tmp_path / old.name
    shutil.copytree(HERE / old, path)
    before = (path / "records.jsonl").read_text()
    new = Record(
        "new", {"batch_size": 32, "base_lr": 0.5}, 0, "ok", outcome=TrainingOutcome(epochs_made_again=2)
    )
    with RunDirectory.resume(path) as directory:
        directory.append(new)
        records, notes = directory.records()
    assert not notes
    assert records == [*records_of(old), new]
    text = (path / "records.jsonl").read_text()
    assert text.startswith(before)
    assert json.loads(text.splitlines()[-1])["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize("place", ["run.json", "records.jsonl"])
def test_a_file_of_a_later_version_is_refused_in_one_sentence(place: str, tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, "demo", RunInfo()) as directory:
        directory.append(Record("a", {}, 0, "ok"))
    path = directory.path / place
    path.write_text(path.read_text().replace(f'"schema_version":{SCHEMA_VERSION}', '"schema_version":99', 1))
    path.write_text(
        path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99', 1)
    )
    where = f"{path}:1" if place == "records.jsonl" else f"{path}"
    with pytest.raises(RunDirectoryError) as refusal:
        RunDirectory.open(directory.path).records()
    assert str(refusal.value) == (
        f"{where}: schema_version 99 is newer than this program; known: up to {SCHEMA_VERSION}. Update fusetune."
    )
