"""`bench status`: what it says of a run that goes on, is over, or lost its driver."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fusetune.bench.cli import status as command
from fusetune.bench.cli.status import look
from fusetune.bench.results import Record, RunDirectory, RunInfo
from fusetune.bench.status import STATUS, Board, read_status
from fusetune.bench.status.run_status import write_status


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path, "demo", RunInfo(trials=300)) as directory:
        yield directory


def cluster(nodes: int) -> Board:
    """Two devices a node with a trial each, and a trial that was lost."""
    board = Board(executor="ray")
    board.start(300, 10, now_s=0.0, failed=1)
    for node in range(nodes):
        for device in "01":
            name, trial = f"raycluster-x7k2p-worker-gpus-{node:05}", f"learning_rate=0.{node},seed={device}"
            board.device_joined(name, device, "NVIDIA H100 80GB HBM3")
            board.trial_started(trial, 2 * node + int(device), now_s=0.0)
            board.trial_progress(
                trial,
                {
                    "node": name,
                    "device": device,
                    "phase": "training",
                    "epoch": 2,
                    "epochs": 9,
                    "samples_per_s": 1e4,
                    "step": 10,
                    "steps": 90,
                },
            )
    board.trial_lost(
        "learning_rate=0.1,seed=1", "raycluster-x7k2p-worker-gpus-00001", "the node is gone", 1, now_s=5
    )
    board.device_left("raycluster-x7k2p-worker-gpus-00001", "1", "the node is gone", now_s=5)
    board.trial_lost("learning_rate=0.2,seed=0", "node-1", "a reason of a library " * 9, 3, now_s=6)
    return board


def asked(*arguments: object) -> Result:
    return CliRunner().invoke(command.status, [*map(str, arguments)])


@pytest.mark.parametrize("nodes", [1, 2, 64])
def test_a_run_that_goes_on_fits_100_columns(run: RunDirectory, nodes: int) -> None:
    now = datetime.now(timezone.utc)
    write_status(run.path, cluster(nodes).status(60.0, now))
    said = asked(run.path)
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[1].startswith("state     running: process ")
    table = lines[lines.index("") + 1 :]
    assert max(map(len, table)) <= 100
    if nodes == 1:
        assert table[0].split() == ["device", "trial", "phase,", "epoch", "samples/s", "for"]
        assert table[1].split()[:5] == ["0", "learning_rate=0.0,seed=0", "training", "2/9", "10,000"]
    else:
        assert len([line for line in table if line.startswith("raycluster-")]) == nodes
        assert table[1].startswith("raycluster-x7…ker-gpus-00001")  # the one with a loss
        assert "10 of 300 done, 1 failed" in lines[2]
        # A device that left with its trial is one loss.
        first, second = (line.split("UTC  ")[1] for line in table[-2:])
        assert first.startswith("raycluste…ker-gpus-00001  trial learning_rate=0.1,seed=1, attempt 1: the")
        assert second.startswith("node-1  trial learning_rate=0.2,seed=0, attempt 3: a reason")
        assert "lost 2 times, ends at about" in lines[2]
    assert {path.name for path in run.path.iterdir()} == {"run.json", "lock", STATUS}  # nothing is written


def test_json_has_the_file(run: RunDirectory) -> None:
    write_status(run.path, cluster(2).status(60.0, datetime.now(timezone.utc)))
    found = json.loads(asked(run.path, "--json").output)
    assert (found["state"], found["total"], found["done"], found["failed"]) == ("running", 300, 10, 1)
    status = read_status(run.path)
    assert status is not None
    assert found["status"] == status.as_dict()


def test_a_search_counts_epochs(run: RunDirectory) -> None:
    board = Board("cpu", "a processor", unit="epoch")
    board.start(300, 10, now_s=0.0, failed=1)
    board.trial_started("base_lr=0.1,seed=0", 11, now_s=0.0)
    write_status(run.path, board.status(60.0, datetime.now(timezone.utc)))
    said = asked(run.path).output.splitlines()
    assert said[2] == "epochs    10 of 300 done, 1 training failed, 1 in flight, 289 waiting"
    board.trial_withdrawn("base_lr=0.1,seed=0")
    assert board.status(60.0, datetime.now(timezone.utc)).in_flight == 0
    board.start(300, 300, now_s=0.0)
    board.trial_started("base_lr=0.1,seed=1", 1, now_s=60.0)
    write_status(run.path, board.status(61.0, datetime.now(timezone.utc)))
    said = asked(run.path).output.splitlines()
    assert said[2] == "epochs    300 of 300 done, the winner on 1 fresh seed in flight"


def test_a_driver_that_was_killed_and_one_that_cannot_be_seen(run: RunDirectory) -> None:
    written = datetime.now(timezone.utc)
    write_status(run.path, cluster(2).status(60.0, written))
    run.close()
    seen = look(run.path, lambda: written + timedelta(minutes=5))
    assert (seen.state, seen.go_on) == ("gone", None if run.resume_command is None else run.resume_command)
    assert "last news 5m00s ago" in seen.words
    text = (run.path / STATUS).read_text().replace(json.dumps(socket.gethostname()), '"elsewhere"')
    (run.path / STATUS).write_text(text)
    assert look(run.path, lambda: written + timedelta(minutes=5)).state == "silent"
    assert look(run.path, lambda: written + timedelta(seconds=9)).state == "running"


def test_a_run_without_the_file_is_told_from_its_records(run: RunDirectory) -> None:
    run.append(Record("a", {}, 0, "failed", "a reason"))
    assert look(run.path).words == "running: 1 of 300 trials"
    run.close()
    seen = look(run.path.parent)
    assert (seen.state, seen.words) == ("interrupted", "interrupted: 1 of 300 trials, 299 are missing")
    assert f"continue  {run.resume_command}\ntrials    1 of 300 done, 1 failed\n" in asked(run.path).output


def test_a_run_that_is_over_says_so_as_the_script_for_slurm_asks(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, "demo", RunInfo(trials=1)) as run:
        run.append(Record("a", {}, 0, "ok"))
    assert '"state": "over"' in asked(run.path, "--json").output
    assert "state     over: 1 of 1 trial\n" in asked(run.path).output


def test_watching_ends_with_the_run(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write_status(run.path, cluster(2).status(60.0, datetime.now(timezone.utc)))
    waited = []

    def ends(seconds: float) -> None:
        waited.append(seconds)
        (run.path / STATUS).unlink()
        run.close()

    monkeypatch.setattr(time, "sleep", ends)
    said = asked(run.path, "--watch").output
    assert waited == [2.0]
    assert [line.split()[1] for line in said.splitlines() if line.startswith("state")] == [
        "running:",
        "interrupted:",
    ]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("absent", None, "is not a directory"),
        ("empty", None, "no run is there"),
        (".", "[", "status.json: is broken"),
    ],
)
def test_bad_directories(run: RunDirectory, name: str, text: str | None, complaint: str) -> None:
    (run.path / "empty").mkdir()
    if text is not None:
        (run.path / STATUS).write_text(text)
    with pytest.raises(Exception, match=complaint) as raised:
        look(run.path / name)
    assert getattr(raised.value, "exit_code", None) == 2
