"""A tracker in a process of its own: it may hang, exit, print or die, and the run goes on and ends in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusetune.bench.results import RunDirectory
from fusetune.bench.tracking import Destination, Reporting, send_run
from tests.bench.tracking.sample_run import make_run, record

# A wandb of few lines: it writes what it gets, and does what FAKE says when a run is opened.
WANDB = """
import json, os, sys, time
def note(**what):
    with open(os.environ["FAKE_OUT"], "a") as file:
        file.write(json.dumps(what) + "\\n")
note(started=os.getpid(), nice=os.nice(0))
exec(os.environ.get("FAKE_IMPORT", ""))
__version__ = "fake"
class Settings:
    model_fields = {name: None for name in os.environ["FAKE_SETTINGS"].split(",")}
    def __init__(self, **given): pass
class Run:
    def __init__(self): self.summary = {}
    def log(self, values, step): pass
    def finish(self, exit_code): note(status=self.summary["status"], code=exit_code)
def init(**given):
    exec(os.environ.get("FAKE", ""))
    note(name=given["name"])
    return Run()
def teardown(): note(closed=True)
"""
SETTINGS = (
    "console,disable_code,disable_git,disable_job_creation,host,program,save_code,silent,x_disable_machine_info,"
    "x_disable_meta,x_disable_stats,x_save_requirements"
)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the fake in wandb's place, and return the file that it writes to."""
    (tmp_path / "fake" / "wandb").mkdir(parents=True)
    (tmp_path / "fake" / "wandb" / "__init__.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path / "fake")
    monkeypatch.setenv("FAKE_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("FAKE_SETTINGS", SETTINGS)
    return tmp_path / "out"


def notes(out: Path, key: str) -> list[object]:
    """Return what the fake noted under a key."""
    lines = out.read_text().splitlines() if out.exists() else []
    return [content[key] for line in lines if key in (content := json.loads(line))]


def is_alive(number: object) -> bool:
    """Tell whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def run(directory: RunDirectory, *trials: str, flush_s: float = 60) -> tuple[list[str], list[str]]:
    """Let a run append records while it is sent. Return what was said before its end and at it."""
    said: list[str] = []
    with (
        RunDirectory.resume(directory.path) as going_on,
        Reporting([Destination("wandb")], going_on, said.append, flush_s=flush_s),
    ):
        for trial in trials:
            going_on.append(record(trial))
        before = len(said)
    return said[:before], [line for line in said[before:] if not line.startswith("waiting for")]


def test_a_run_is_sent_while_it_goes_on_at_the_lowest_priority(tmp_path: Path, out: Path) -> None:
    directory = make_run(tmp_path, ())
    start, end = run(directory, "a", "b")
    assert start[0].startswith("--report-to: sent are each trial's factors, seed, curve, results")
    assert start[0].endswith("no code, no data")
    assert start[1].startswith("  wandb: project demo, ")
    assert len(end) == 1
    assert end[0].startswith("wandb: 2 trials, project demo")
    assert notes(out, "name") == ["a", "b"]
    assert notes(out, "code") == [0, 0]
    assert notes(out, "closed") == [True]
    assert notes(out, "nice") == [19]
    assert not list(directory.path.glob("*.log"))
    assert run(directory, "c")[1][0].startswith("wandb: 3 trials, 2 of them sent before")
    assert notes(out, "name") == ["a", "b", "c"]


def test_one_that_hangs_ends_with_its_time(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_IMPORT", "time.sleep(3600)")
    directory = make_run(tmp_path, ())
    start, end = run(directory, "a", flush_s=0.5)
    assert len(start) == 2
    again = f"report {directory.path} --report-to wandb"
    assert len(end) == 1
    assert end[0].startswith(
        "note: wandb: not everything was sent; it was not finished in time. Send it with:"
    )
    assert end[0].endswith(again)
    assert [trial.trial for trial in RunDirectory.open(directory.path).records()[0]] == ["a"]
    assert not any(map(is_alive, notes(out, "started")))


def test_errors_are_one_note_and_the_rest_is_sent_later(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", "print('noise' * 100_000); assert given['name'] != 'b', 'b is refused'")
    directory = make_run(tmp_path, tuple(map(record, "abc")))
    said: list[str] = []
    assert not send_run([Destination("wandb")], directory, said.append)
    assert [line for line in said if line.startswith("note")] == said[2:]
    assert "wandb: not everything was sent; b is refused." in said[2]
    assert capfd.readouterr() == ("", "")
    assert notes(out, "name") == ["a", "c"]
    monkeypatch.delenv("FAKE")
    assert send_run([Destination("wandb")], directory, said.append)
    assert notes(out, "name") == ["a", "c", "b"]


@pytest.mark.slow
def test_one_that_ends_its_process_is_a_note(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "os._exit(7)")
    directory = make_run(tmp_path, ())
    _, end = run(directory, "a")
    log = directory.path / "tracker-wandb.log"
    assert f"not everything was sent; its process ended with 7, see {log}." in end[0]
    assert log.exists()


@pytest.mark.slow
def test_a_wandb_that_would_send_more_is_refused(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SETTINGS", SETTINGS.replace("x_disable_meta", "other"))
    _, end = run(make_run(tmp_path, ()), "a")
    assert "wandb fake: has no setting x_disable_meta; it would send more than it is given" in end[0]
    assert notes(out, "name") == []


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_what_it_had_sent_and_no_process(tmp_path: Path, out: Path) -> None:
    directory = make_run(tmp_path, ())
    program = """
import os, sys
from pathlib import Path
from fusetune.bench.results import RunDirectory
from fusetune.bench.tracking import Destination, Reporting
from tests.bench.tracking.sample_run import record
with RunDirectory.resume(Path(sys.argv[1])) as going_on, Reporting([Destination("wandb")], going_on, str):
    going_on.append(record("a"))
    os.kill(os.getpid(), 9)
"""
    path = os.pathsep.join(filter(None, [*sys.path, os.getcwd()]))
    words = [sys.executable, "-c", program, str(directory.path)]
    assert subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False).returncode == -9
    while not notes(out, "closed"):
        time.sleep(0.05)
    assert notes(out, "name") == ["a"]
    while any(map(is_alive, notes(out, "started"))):
        time.sleep(0.05)


def test_without_trackers_nothing_is_said_or_started(tmp_path: Path) -> None:
    directory = make_run(tmp_path, ())
    said: list[str] = []
    with RunDirectory.resume(directory.path) as going_on, Reporting((), going_on, said.append):
        going_on.append(record("a"))
    assert said == []
    assert {path.name for path in directory.path.iterdir()} == {"run.json", "records.jsonl", "lock"}


@pytest.mark.slow
def test_a_run_that_was_removed_is_no_problem(tmp_path: Path, out: Path) -> None:
    directory = make_run(tmp_path, ())
    said: list[str] = []
    with (
        RunDirectory.resume(directory.path) as going_on,
        Reporting([Destination("wandb")], going_on, said.append),
    ):
        going_on.remove()
    assert len(said) == 2
