"""A run.json or a record that was edited to something else is refused by the name of the field, with exit code 2."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.outcomes import AutoRate, TrainingOutcome
from fusetune.bench.results.records import SCHEMA_VERSION
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.schema import as_written
from tests.bench.learning_rate import test_study as lr_range_case
from tests.bench.report import test_comparison as run_case

FACTORS: dict[str, list[Any]] = {"batch_size": [64, 256], "schedule": ["constant", "one-cycle"]}
GONE = object()
WRONG = [GONE, None, True, -1, 0, 1.5, "x", "", [], [1], {}, {"a": 1}, [None], [[]], 10**30, float("nan")]


def trainings(results: Path) -> Path:
    """A run of trainings."""
    records = run_case.grid_records(FACTORS, 2)
    records[0].provenance.update(
        jobs=1,
        dirty=False,
        threads_choice={"threads": 1, "asked": "auto", "reason": "more do not help"},
    )
    records[0] = dataclasses.replace(records[0], outcome=TrainingOutcome(AutoRate(0.1, (0.05, 0.2))))
    finding = {
        "name": "a",
        "title": "b",
        "sentence": "c",
        "try_next": "d",
        "evidence": {},
        "confidence": "sure",
    }
    records[0].findings.append(finding)
    return written(results, run_case.run_json(FACTORS, trials=len(records)), records)


def range_tests(results: Path) -> Path:
    """A run of LR range tests."""
    records = [lr_range_case.swept_record({"batch_size": size}, 0.001 * size) for size in (16, 64, 256)]
    return written(results, lr_range_case.run_json({"batch_size": [16, 64, 256]}), records)


def written(results: Path, run: dict[str, Any], records: list[Any]) -> Path:
    """Write a run. Its run.json has what is given and no more, as that of an earlier version may."""
    with RunDirectory.create(results, "demo", RunInfo.from_dict(run)) as directory:
        for record in records:
            directory.append(record)
    content = {"schema_version": SCHEMA_VERSION, "run_id": directory.path.name, **run}
    (directory.path / "run.json").write_text(json.dumps(content))
    return directory.path


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of plain data. Of lists, the first two entries."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 2)):
            yield from places(value[index], (*path, index))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return plain data with one part replaced, or taken away."""
    if not path:
        return None if value is GONE else value
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


class Edited:
    """A run's directory, and what a report says when a part of it is another one."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.capsys = directory, capsys
        self.run = json.loads((directory / "run.json").read_text())
        lines = (directory / "records.jsonl").read_text().splitlines()
        self.records = [json.loads(line) for line in lines]

    def report(self, which: str, path: tuple[Any, ...], value: Any) -> tuple[int, str]:
        """Edit, report, and put the file back. `which` is `run`, `first` or `last`."""
        run, records = self.run, list(self.records)
        if which == "run":
            run = changed(run, path, value)
        else:
            number = 0 if which == "first" else len(records) - 1
            records[number] = changed(records[number], path, value)
        self._write(run, records)
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", str(self.directory)])
        err = self.capsys.readouterr().err
        self._write(self.run, self.records)
        assert isinstance(stop.value.code, int)
        return stop.value.code, err

    def _write(self, run: Any, records: list[Any]) -> None:
        (self.directory / "run.json").write_text(json.dumps(run))
        lines = [json.dumps(record) + "\n" for record in records]
        (self.directory / "records.jsonl").write_text("".join(lines))


# What was found, each with what is said.
FOUND: list[tuple[str, tuple[Any, ...], Any, str]] = [
    ("run", (), [], "run.json: is broken; it has no schema_version"),
    ("run", ("schema_version",), "1", "it has no schema_version"),
    (
        "run",
        ("schema_version",),
        True,
        "run.json: is broken; schema_version: input should be a valid integer",
    ),
    ("run", ("kind",), 7, "kind: input should be a valid string, is 7"),
    ("run", ("kind",), "dance", "a run of the kind 'dance' is newer than this program"),
    ("run", ("spec",), "x", "spec: "),
    ("run", ("spec",), GONE, "spec is missing"),
    ("run", ("spec", "factors"), [1], "spec.factors: "),
    ("run", ("spec", "factors", "batch_size"), 64, "spec.factors.batch_size"),
    ("run", ("spec", "seeds"), "all", "spec.seeds"),
    ("run", ("spec", "target"), "val_accuracy", "spec.target: "),
    ("run", ("spec", "target", "metric"), 1, "spec.target.metric: "),
    (
        "run",
        ("spec", "target", "at_least"),
        None,
        "spec.target: target: val_accuracy takes at_least, and only that",
    ),
    ("run", ("spec", "target", "at_least"), 10**30, "must be above 0 and at most 1"),
    ("run", ("spec", "configurations"), {"a": 1}, "spec.configurations: "),
    ("run", ("spec", "design"), ["grid"], "spec.design"),
    ("run", ("baseline",), [], "baseline: "),
    ("run", ("trials",), "many", "trials: input should be a valid integer, is 'many'"),
    ("run", ("trials",), -1, "trials: "),
    ("run", ("jobs",), "2", "jobs: "),
    ("run", ("jobs",), 0, "jobs: "),
    ("run", ("data",), "digits", "data: "),
    ("run", ("machine",), "a fast one", "machine: "),
    ("run", ("machine", "memory_bytes"), "24 GiB", "machine.memory_bytes: "),
    ("run", ("versions",), ["3.11"], "versions: "),
    ("run", ("versions", "torch"), 2.13, "versions.torch: "),
    ("run", ("commit",), 12, "commit: "),
    ("run", ("started",), 2026, "started: "),
    ("run", ("stand_in",), ["x"], "stand_in: "),
    ("run", ("classes",), ["cat"], "classes[0]: "),
    ("run", ("same",), "a = b", "same: "),
    ("run", ("overrides",), [1], "overrides[0]: "),
    ("run", ("options",), [], "options: "),
    ("run", ("fingerprint",), {"a": 1}, "fingerprint.a: "),
    ("first", (), [], "records.jsonl:1: not a record; "),
    ("first", ("trial",), 7, "records.jsonl:1: not a record; trial: input should be a valid string, is 7"),
    ("last", ("factors",), [], "records.jsonl:8: not a record; factors: "),
    ("last", ("factors", "schedule"), GONE, "lacks the factor schedule"),
    ("first", ("seed",), "0", "seed: "),
    ("first", ("seed",), True, "seed: "),
    ("first", ("status",), "fine", "status: "),
    ("first", ("reason",), None, "reason: "),
    ("first", ("values",), [1], "values: "),
    ("first", ("values", "step_time_s"), "fast", "values.step_time_s: "),
    ("first", ("values", "step_time_s"), float("nan"), "values.step_time_s: "),
    ("first", ("values", "step_time_s"), -1, "step_time_s is -1.0, which is not a possible measurement"),
    ("first", ("values", "step_time_s"), 0, "step_time_s is 0.0, which is not a possible measurement"),
    ("first", ("samples",), {"step_time_s": 1}, "samples.step_time_s: "),
    ("first", ("curve",), {}, "curve: "),
    ("first", ("curve",), [1], "curve[0]: "),
    ("first", ("provenance",), [], "provenance: "),
    ("first", ("provenance", "jobs"), None, "provenance.jobs: "),
    ("first", ("outcome", "base_lr_auto"), 0.1, "outcome.base_lr_auto: "),
    ("first", ("outcome", "base_lr_auto", "interval"), [1.0], "outcome.base_lr_auto.interval[1] is missing"),
    ("first", ("outcome",), [], "outcome: must be an object, is []"),
    ("first", ("outcome", "kind"), "dance", "outcome.kind: unknown 'dance'; known: training, "),
    ("first", ("worker",), {"put_back": "all"}, "worker.put_back: "),
    ("first", ("schema_version",), "2", "schema_version: "),
    (
        "first",
        ("schema_version",),
        3,
        "schema_version 3 is newer than this program; known: up to 2. Update fusetune.",
    ),
    ("first", ("provenance", "threads_choice"), "auto", "provenance.threads_choice: "),
    ("first", ("findings",), [1], "findings[0]: "),
    ("first", ("findings", 0, "title"), GONE, "findings[0].title is missing"),
    ("first", ("more",), 1, "more: "),
    ("run", ("trials",), GONE, "trials is missing"),
    ("first", ("outcome", "base_lr_auto", "interval"), GONE, "base_lr_auto.interval is missing"),
    ("run", ("trials",), None, "trials: "),
    ("first", ("provenance", "threads_choice", "asked"), GONE, "provenance.threads_choice.asked is missing"),
    (
        "first",
        ("values", "time_to_target_s"),
        GONE,
        "steps_to_target and time_to_target_s must both be there",
    ),
    ("first", ("factors", "batch_size"), None, "batch_size must be a whole number above 0"),
]
FOUND_IN_RANGE_TESTS: list[tuple[str, tuple[Any, ...], Any, str]] = [
    ("run", ("options", "steps"), "100", "options.steps: "),
    ("run", ("options", "lr_min"), GONE, "options.lr_min is missing"),
    ("run", ("spec", "name"), GONE, "spec.name is missing"),
    ("run", ("kind",), GONE, "trials is missing"),
    ("first", ("values", "lr_high"), GONE, "lr_low and lr_high must both be there"),
    ("first", ("curve", 1, "lr"), 0, "has a curve whose entry 1 has no rate above the one before"),
    ("first", ("curve", 1, "lr"), 10**30, "entry 2 has no rate above the one before"),
    ("first", ("curve", 1, "lr"), GONE, "entry 1 has no rate above the one before"),
    ("first", ("curve", 1, "loss_1"), GONE, "entry 1 has other losses than the first"),
    ("first", ("outcome", "warnings"), None, "outcome.warnings: "),
    ("first", ("outcome", "confirm_lrs"), [None], "outcome.confirm_lrs[0]: "),
    ("first", ("values", "range_lr"), 0, "range_lr is 0.0, which is not a possible measurement"),
]


@pytest.mark.parametrize(("make", "cases"), [(trainings, FOUND), (range_tests, FOUND_IN_RANGE_TESTS)])
def test_a_field_of_another_type_is_named(
    make: Any, cases: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = Edited(make(tmp_path), capsys)
    assert edited.report("run", ("more",), {"later": "versions"}) == (0, "")
    for which, path, value, said in cases:
        code, err = edited.report(which, path, value)
        assert (code, said in err) == (2, True), (which, path, value, err)
        assert err.startswith(f"error: {edited.directory}")


@pytest.mark.parametrize("make", [trainings, range_tests])
@pytest.mark.parametrize(
    "tries",
    [60, pytest.param(400, marks=pytest.mark.slow), pytest.param(1500, marks=pytest.mark.exhaustive)],
)
def test_no_edit_ends_in_a_traceback(
    make: Any, tries: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = Edited(make(tmp_path), capsys)
    edits = [
        (which, path, value)
        for which, data in (("run", edited.run), ("first", edited.records[0]), ("last", edited.records[-1]))
        for path in places(data)
        for value in WRONG
    ]
    for edit in random.Random(tries).sample(edits, tries):
        code, _ = edited.report(*edit)
        assert code in (0, 2), edit


def test_a_run_json_without_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = Edited(trainings(tmp_path), capsys)
    for depth in (100, 100_000):
        (edited.directory / "run.json").write_text(
            '{"schema_version": 1, "spec": ' + "[" * depth + "]" * depth + "}"
        )
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", str(edited.directory)])
        assert stop.value.code == 2
        assert "run.json: is broken; " in capsys.readouterr().err


PREDICTION = {"memory": {}, "samples": 9, "limit_bytes": 1, "limit_source": "--memory", "loading_bytes": 0}


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        ({}, "outcome.memory is missing"),
        ([], "provenance.prediction: "),
        ({**PREDICTION, "memory": {"moments": True}}, "records hold what no run writes; "),
        ({**PREDICTION, "samples": "all"}, "outcome.samples: input should be a valid integer, is 'all'"),
    ],
)
def test_a_prediction_of_version_1_in_another_form_is_refused(
    prediction: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {
        "kind": "batch-size",
        "device": "cpu",
        "spec": {"name": "demo"},
        "options": {"train_batch_size": 8},
    }
    directory = written(tmp_path, run, [])
    line = {"trial": "a", "factors": {}, "seed": 0, "status": "ok", "provenance": {"prediction": prediction}}
    (directory / "records.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(directory)])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_put_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), as_written(tmp_path, by_this_process=True):
        raise KeyError("a")
    with pytest.raises(RunDirectoryError, match="KeyError"), as_written(tmp_path, by_this_process=False):
        raise KeyError("a")
