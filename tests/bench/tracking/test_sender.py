"""A trial is sent once, what fails is sent later, and a tracker's errors stay its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results import RunDirectory
from fusetune.bench.tracking import Destination, TrackedRun, TrackedTrial
from fusetune.bench.tracking.sender import Sender
from fusetune.bench.tracking.sent_list import SentList
from tests.bench.tracking.sample_run import make_run, record

TRIALS = ("a", "b", "c", "d", "e")


class Memory:
    """A tracker that keeps what it gets, and fails where it is told to."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.closed = refused, 0
        self.got: list[str] = []
        self.lost: set[str] = set()

    def open(self, run: TrackedRun) -> None:
        self.run = run
        if "open" in self.refused:
            raise SystemExit("no such account")

    def holds(self, trial: TrackedTrial) -> bool:
        return trial.id not in self.lost

    def log_trial(self, trial: TrackedTrial) -> None:
        if trial.id in self.refused:
            raise ConnectionError("no route to host")
        self.got.append(trial.id)

    def close(self) -> None:
        self.closed += 1
        if "close" in self.refused:
            raise ValueError


def send(directory: RunDirectory, tracker: Memory, where: str = "") -> tuple[dict[str, Any], list[Any]]:
    """Send a run to a tracker. Return what came of it, and what was told meanwhile."""
    told: list[Any] = []
    sender = Sender(directory.path, Destination("wandb", where), lambda *_: tracker, told.append)
    sender.prepare()
    sender.send_new()
    return sender.close(), told


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """Return a run of five trials."""
    return make_run(tmp_path, tuple(map(record, TRIALS)))


def test_each_trial_is_sent_once(directory: RunDirectory) -> None:
    first, second = Memory(), Memory()
    assert send(directory, first) == ({"done": True, "sent": 5, "before": 0, "failed": 0, "problem": ""}, [])
    assert first.got == [*TRIALS]
    assert first.run.id == directory.path.name
    assert send(directory, second)[0]["before"] == 5
    assert second.got == []


def test_what_was_resumed_is_sent_alone(directory: RunDirectory) -> None:
    send(directory, Memory())
    with RunDirectory.resume(directory.path) as more:
        more.append(record("f"))
    again = Memory()
    send(directory, again)
    assert again.got == ["f"]


def test_another_place_gets_all_of_it(directory: RunDirectory) -> None:
    send(directory, Memory())
    other = Memory()
    send(directory, other, "team/project")
    assert other.got == [*TRIALS]


def test_a_run_that_was_moved_is_not_sent_again(directory: RunDirectory, tmp_path: Path) -> None:
    send(directory, Memory())
    moved = Memory()
    send(RunDirectory.open(directory.path.rename(tmp_path / "moved")), moved)
    assert moved.got == []


def test_what_the_tracker_has_lost_is_sent_again(directory: RunDirectory) -> None:
    send(directory, Memory())
    again = Memory()
    again.lost = {"b"}
    send(directory, again)
    assert again.got == ["b"]


def test_one_trial_that_is_refused_is_sent_the_next_time(directory: RunDirectory) -> None:
    first, second = Memory("b"), Memory()
    result, told = send(directory, first)
    assert first.got == ["a", "c", "d", "e"]
    assert (result["sent"], result["failed"], result["problem"]) == (4, 1, "no route to host")
    assert told == [{"problem": "no route to host"}]
    send(directory, second)
    assert second.got == ["b"]


def test_after_three_failures_in_a_row_nothing_more_is_tried(directory: RunDirectory) -> None:
    tracker = Memory("b", "c", "d")
    result, told = send(directory, tracker)
    assert tracker.got == ["a"]
    assert (result["sent"], result["failed"], len(told)) == (1, 4, 1)


def test_a_tracker_that_cannot_be_opened_is_tried_once(directory: RunDirectory) -> None:
    result, told = send(directory, Memory("open"))
    assert (result["sent"], result["failed"], told) == (0, 5, [{"problem": "no such account"}])


def test_an_error_without_words_has_its_name(directory: RunDirectory) -> None:
    result, _ = send(directory, Memory("close"))
    assert (result["sent"], result["problem"]) == (5, "ValueError")


def test_a_tracker_that_cannot_be_imported_is_a_problem(directory: RunDirectory) -> None:
    def broken(*_: object) -> Memory:
        raise ImportError("libfoo.so: no such file\n" + "x" * 1000)

    sender = Sender(directory.path, Destination("wandb"), broken, lambda news: None)
    sender.prepare()
    sender.send_new()
    result = sender.close()
    assert (result["sent"], result["failed"]) == (0, 5)
    assert result["problem"].startswith("libfoo.so: no such file\\n")
    assert len(result["problem"]) == 300


def test_a_run_without_records_makes_nothing(tmp_path: Path) -> None:
    tracker = Memory("open")
    result, told = send(make_run(tmp_path, ()), tracker)
    assert (result["sent"], result["failed"], told, tracker.closed) == (0, 0, [], 0)


def test_records_are_read_once_each(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    records_from: Callable[..., Any] = RunDirectory.records_from

    def counted(run: RunDirectory, start_bytes: int) -> Any:
        found = records_from(run, start_bytes)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(RunDirectory, "records_from", counted)
    tracker = Memory()
    sender = Sender(directory.path, Destination("wandb"), lambda *_: tracker, lambda news: None)
    sender.prepare()
    sender.send_new()
    with RunDirectory.resume(directory.path) as more:
        more.append(record("f"))
        sender.send_new()
        with (directory.path / "records.jsonl").open("a") as file:
            file.write('{"torn')
        sender.send_new()
    assert read == [5, 1, 0]
    assert tracker.got == [*TRIALS, "f"]


def test_a_second_record_of_a_trial_is_not_sent(tmp_path: Path) -> None:
    tracker = Memory()
    send(make_run(tmp_path, (record("a"), record("a"))), tracker)
    assert tracker.got == ["a"]


def test_two_processes_do_not_send_to_one_tracker_at_once(directory: RunDirectory) -> None:
    sent = SentList(directory.path, "wandb", "here")
    with pytest.raises(RunDirectoryError, match="another process sends this run to wandb"):
        SentList(directory.path, "wandb", "here")
    SentList(directory.path, "mlflow", "here").close()
    sent.close()
    SentList(directory.path, "wandb", "here").close()


def test_a_torn_line_of_the_list_is_cut(directory: RunDirectory) -> None:
    path = directory.path / "tracked-wandb.jsonl"
    path.write_text(json.dumps({"trial": "a", "place": "here"}) + '\n{"tri')
    sent = SentList(directory.path, "wandb", "here")
    sent.add("b")
    sent.close()
    assert [json.loads(line)["trial"] for line in path.read_text().splitlines()] == ["a", "b"]
