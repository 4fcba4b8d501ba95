"""A tuning on disk: it reads back as it was, and `bench report` shows it again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fusetune.bench.autotune import (
    Tuning,
    describe_tunings,
    record_of_tuning,
    show_tuning,
    tuning_of_record,
)
from fusetune.bench.cli import program as cli
from fusetune.bench.cli.console import make_console
from fusetune.bench.results import Record, RecordKeeper, RunDirectory
from fusetune.errors import InvalidValueError
from tests.bench.autotune.test_run import CASE, Scripted, by_block, tuned


def tunings() -> list[Tuning]:
    """One that was replaced, one that ran out of time with no interval, and one that is wrong."""
    found = [
        tuned(Scripted(by_block, {("verify", 2): "wrong"})),
        tuned(Scripted(by_block), 3.0),
        tuned(Scripted(by_block, {("thorough", 0): "wrong"})),
    ]
    return [
        dataclasses.replace(tuning, case=dataclasses.replace(CASE, shape=shape))
        for shape, tuning in enumerate(found, start=1000)
    ]


def test_a_tuning_reads_back_as_it_was() -> None:
    for tuning in tunings():
        record = Record.from_dict(json.loads(json.dumps(record_of_tuning(tuning).as_dict(), allow_nan=False)))
        assert record.status == ("ok" if tuning.status == "ok" else "failed")
        # NaN is not equal to itself, but its text is.
        assert repr(tuning_of_record(record)) == repr(tuning)
        assert [c.samples_s for c in tuning_of_record(record).candidates] == [
            c.samples_s for c in tuning.candidates
        ]


def test_a_record_that_holds_none_is_refused() -> None:
    record = record_of_tuning(tunings()[0])
    with pytest.raises(InvalidValueError, match="holds no tuning"):
        tuning_of_record(dataclasses.replace(record, outcome=None))
    record.outcome.tuning["budget_s"] = "long"  # type: ignore[union-attr]
    with pytest.raises(InvalidValueError, match="budget_s"):
        tuning_of_record(record)


def test_the_report_shows_a_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = describe_tunings([CASE], ["bench", "autotune"])
    with RunDirectory.create(tmp_path, "autotune", run) as directory:
        keeper = RecordKeeper(directory.run, directory)
        for tuning in tunings():
            keeper.keep(record_of_tuning(tuning), None)
            show_tuning(tuning, make_console())
    first = capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(directory.path)])
    assert not stop.value.code
    again = capsys.readouterr().out
    assert again.startswith(first)
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", str(directory.path), str(directory.path)])
    assert stop.value.code == 2
    assert "nothing that can be compared" in capsys.readouterr().err
    assert "3 cases, 1 with a new launch config." in again


def test_a_report_needs_no_torch() -> None:
    code = "import sys, fusetune.bench.autotune.records as r; r._adapter(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
