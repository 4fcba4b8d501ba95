"""Standard streams that are closed, full or without a reader: no traceback, no record lost, a sensible exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.faulty_disk import snapshot
from tests.end_to_end.conftest import environment

NO_READER = "a pipe that nobody reads"
# Redirections of a shell -> whether standard output is lost.
STREAMS = {
    ">&-": True,
    ">/dev/full": True,
    NO_READER: True,
    "2>&-": False,
    "2>/dev/full": False,
    "<&-": False,
    ">&- 2>&- <&-": True,
    ">/dev/full 2>&1": True,
}
TINY = """\
name: tiny
data: {name: spirals, limit: 120, validation: 40}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: adam, base_lr: 0.01, batch_size: 32, epochs: 1}
factors: {batch_size: [16, 32]}
seeds: 1
threads: 1
"""
SEARCH = (
    TINY.replace("name: tiny", "name: searched")
    .replace("batch_size: [16, 32]", "base_lr: {low: 0.001, high: 0.1, log: true}")
    .replace("epochs: 1", "epochs: 2")
    .replace("seeds: 1", "design: {search: {budget_epochs: 4, fresh_seeds: 1, prior: false}}")
)
RUNS = {
    "run": ["run", "tiny.yaml"],
    "search": ["run", "searched.yaml"],
    "lr-range": ["lr-range", "tiny.yaml", "--steps", "10", "--repeats", "1", "--no-confirm"],
    "batch-size": ["batch-size", "tiny.yaml", "--memory", "200MiB", "--max", "8", "--memory-only"],
}


def shell(directory: Path, streams: str, *arguments: str) -> tuple[int, str]:
    """Run a command with redirections. Return its exit code and what reached a stream that was left alone."""
    reader, writer = os.pipe()
    os.close(reader)
    redirections = "" if streams == NO_READER else streams
    try:
        done = subprocess.run(
            [
                "sh",
                "-c",
                f'exec "$@" {redirections}',
                "sh",
                sys.executable,
                "-m",
                "fusetune.bench",
                *arguments,
            ],
            cwd=directory,
            env=environment(directory),
            stdout=writer if streams == NO_READER else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
        )
    finally:
        os.close(writer)
    return done.returncode, (done.stdout or "") + done.stderr


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run in it."""
    directory = tmp_path_factory.mktemp("ran")
    (directory / "tiny.yaml").write_text(TINY)
    code, text = shell(directory, "", "run", "tiny.yaml")
    assert code == 0, text
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize(
    "command",
    [["report", "results/tiny"], ["list"], ["schema"], ["--help"], ["run", "--help"], ["doctor"]],
    ids=" ".join,
)
def test_a_command_that_only_prints_says_that_it_could_not(
    ran: Path, command: list[str], streams: str
) -> None:
    before = snapshot(ran / "results")
    code, text = shell(ran, streams, *command)
    assert snapshot(ran / "results") == before
    assert code == int(STREAMS[streams])
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    said = "error: standard output: cannot be written; " in text
    assert said == (STREAMS[streams] and "2>" not in streams)


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full"])
def test_bad_input_is_bad_input_where_nobody_can_be_told(ran: Path, streams: str) -> None:
    assert shell(ran, streams, "report", "nowhere") == (2, "")
    assert shell(ran, streams, "run", "--no-such-option") == (2, "")


# Each kind of run with one way to lose the streams, and each way with one kind: the streams are the same code's.
NOWHERE = [
    ("run", ">&- 2>&- <&-"),
    ("search", ">/dev/full 2>/dev/full"),
    ("lr-range", NO_READER),
    ("batch-size", ">/dev/full 2>/dev/full"),
]
OTHERS = [
    pytest.param(kind, streams, marks=pytest.mark.exhaustive)
    for kind in RUNS
    for streams in (">&- 2>&- <&-", ">/dev/full 2>/dev/full", NO_READER)
    if (kind, streams) not in NOWHERE
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "streams"), [*NOWHERE, *OTHERS])
def test_a_run_trains_on_and_keeps_its_records(tmp_path: Path, kind: str, streams: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "searched.yaml").write_text(SEARCH)
    code, text = shell(tmp_path, streams, *RUNS[kind])
    assert code == 1
    assert "Traceback" not in text
    (path,) = (file.parent for file in tmp_path.glob("results/*/*/run.json"))
    assert json.loads((path / "run.json").read_text())["kind"] == kind
    records = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    assert len(records) >= 2
    assert {record["status"] for record in records} <= {"ok", "diverged", "missed_target", "stopped_early"}
    for log in path.glob("worker*.log"):
        assert "Traceback" not in log.read_text()
    code, text = shell(tmp_path, "", "report", str(path))
    assert code == 0, text


PRINTING = """\
import os
from torch import nn


def build(input_shape, num_classes):
    # What a disk does that has no room for the log.
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)
    os.close(full)
    for _ in range(10_000):
        print("a line for the log")
    return nn.Linear(input_shape[0], num_classes)
"""


@pytest.mark.slow
def test_no_trial_fails_for_what_its_log_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "printing.py").write_text(PRINTING)
    (tmp_path / "tiny.yaml").write_text(
        TINY.replace("{name: mlp, width: 8, depth: 1}", "{factory: 'printing:build'}")
    )
    code, text = shell(tmp_path, "", "run", "tiny.yaml")
    assert code == 0, text
    (path,) = tmp_path.glob("results/*/*/records.jsonl")
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == ["ok", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_a_report_changes_nothing_where_nothing_may_be_written(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "searched.yaml").write_text(SEARCH)
    code, text = shell(tmp_path, "", *RUNS[kind])
    assert code == 0, text
    (path,) = (file.parent for file in tmp_path.glob("results/*/*/run.json"))
    before = snapshot(path)
    read_only: list[Any] = [path, *path.iterdir()]
    for each in read_only:
        each.chmod(0o555 if each.is_dir() else 0o444)
    try:
        code, again = shell(tmp_path, "", "report", str(path))
    finally:
        os.chmod(path, 0o755)
    assert code == 0, again
    assert snapshot(path) == before
    pictures = sorted(path.glob("*.png"))
    assert all(picture.name in "".join(again.split()) for picture in pictures[:1])

    (path / "search.jsonl").unlink(missing_ok=True)
    for picture in pictures:
        picture.unlink()
    before = snapshot(path)
    assert shell(tmp_path, "", "report", str(path))[0] == 0
    assert snapshot(path) == before
