"""`status.json` with a fake clock: what it says, and when it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results import Record
from fusetune.bench.status import STATUS, Board, StatusKeeper, read_status
from fusetune.bench.status.board import MOST_GONE, MOST_LOSSES

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


class Time:
    """Seconds that pass when told to, and calls that are due then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    def later(self, seconds: float, call: Callable[[], None]) -> Time:
        self.due.append((self.now_s + seconds, call))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        for due_s, call in list(self.due):
            if due_s <= self.now_s:
                self.due.remove((due_s, call))
                call()


class Silent:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.told.append(name)


def kept(folder: Path) -> tuple[StatusKeeper, Time, Silent]:
    time, display = Time(), Silent()
    keeper = StatusKeeper(
        display,
        folder,
        Board("cpu", "a processor"),
        clock=lambda: time.now_s,
        wall=time.wall,
        later=time.later,
    )
    return keeper, time, display


def done(trial: str, status: Any = "ok") -> Record:
    return Record(trial, {}, 0, status)


def content(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder / STATUS).read_text())
    return found


def test_a_local_run_is_one_node(tmp_path: Path) -> None:
    keeper, time, display = kept(tmp_path)
    keeper.start(4, 1)
    keeper.trial_started("a", 2)
    time.passes(10)
    keeper.trial_finished(done("a", "failed"), 2)
    keeper.trial_started("b", 3)
    keeper.trial_progress("b", {"phase": "training", "epoch": 2, "epochs": 12, "samples_per_s": 320.0})
    time.passes(5)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.total, found.done, found.failed, found.waiting, found.in_flight) == (4, 2, 1, 1, 1)
    assert (found.started, found.ends) == ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:35+00:00")
    (node,) = found.nodes
    (device,) = node.devices
    assert (node.node, device.device, device.kind, device.done) == ("local", "cpu", "a processor", 1)
    (trial,) = device.trials
    assert (trial.trial, trial.index, trial.since) == ("b", 3, "2026-01-02T03:04:15+00:00")
    assert (trial.phase, trial.epoch, trial.epochs, trial.samples_per_s) == ("training", 2, 12, 320.0)
    assert display.told == ["start", "trial_started", "trial_finished", "trial_started", "trial_progress"]
    keeper.close()
    assert list(tmp_path.iterdir()) == []
    assert read_status(tmp_path) is None


def test_it_is_written_once_a_second_and_never_older_than_that(tmp_path: Path) -> None:
    keeper, time, _ = kept(tmp_path)
    keeper.start(1, 0)
    keeper.trial_started("a", 1)
    written = []
    for step in range(1, 33):  # news eight times a second
        keeper.trial_progress("a", {"step": step, "steps": 100})
        time.passes(0.125)
        written.append(content(tmp_path)["written"])
    assert len(set(written)) == 1 + 4
    time.passes(1.0)
    assert content(tmp_path)["nodes"][0]["devices"][0]["trials"][0]["step"] == 32


def test_nodes_their_devices_and_losses(tmp_path: Path) -> None:
    keeper, time, _ = kept(tmp_path)
    keeper.start(3, 0)
    for node, device in (("n1", "0"), ("n1", "1"), ("n2", "0")):
        keeper.device_joined(node, device, "Example GPU")
    for index, trial in enumerate("abc", start=1):
        keeper.trial_started(trial, index)
    keeper.trial_progress("a", {"node": "n1", "device": "1", "samples_per_s": 100.0})
    keeper.trial_progress("b", {"node": "n2", "device": "0", "samples_per_s": float("inf")})
    keeper.trial_finished(done("a"), 1)
    time.passes(2)
    keeper.trial_lost("b", "n2", "the node is gone", 1)
    keeper.device_left("n2", "0", "the node is gone")
    keeper.device_left("n2", "0", "the node is gone")  # said twice
    time.passes(1)
    found = read_status(tmp_path)
    assert found is not None
    n1, n2 = found.nodes
    assert [(each.device, each.done) for each in n1.devices] == [("0", 0), ("1", 1)]
    assert (n2.devices, n2.lost, n2.left, n2.reason) == ((), 1, 1, "the node is gone")
    assert [trial.trial for trial in found.starting] == ["c"]
    assert (found.waiting, found.lost) == (1, 1)
    assert [(loss.trial, loss.attempt, loss.device) for loss in found.losses] == [
        ("b", 1, None),
        (None, None, "0"),
    ]
    assert {loss.at for loss in found.losses} == {"2026-01-02T03:04:07+00:00"}
    keeper.trial_started("b", 2)
    keeper.trial_progress("b", {"node": "n1", "device": "0", "samples_per_s": float("inf")})
    time.passes(1)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.waiting, found.nodes[0].busy, found.nodes[0].samples_per_s) == (0, 1, 0.0)


def test_parts_of_a_processor_have_one_name() -> None:
    board = Board()
    board.start(3, 0, now_s=0.0)
    for _ in range(3):
        board.device_joined("n1", "cpu", "a processor")
    for index, trial in enumerate("ab", start=1):
        board.trial_started(trial, index, now_s=0.0)
        board.trial_progress(trial, {"node": "n1", "device": "cpu"})
    (node,) = board.status(0.0, START).nodes
    assert (node.busy, node.slots, len(node.devices)) == (2, 3, 1)
    assert not board.device_left("n1", "cpu", "killed", now_s=0.0)
    (node,) = board.status(0.0, START).nodes
    assert (node.busy, node.slots, node.left) == (2, 2, 1)


def test_a_part_of_a_run_has_the_devices_that_joined_for_it(tmp_path: Path) -> None:
    keeper, time, _ = kept(tmp_path)
    keeper.start(1, 0)
    for node in ("n1", "n2", "n3"):
        keeper.device_joined(node, "0", "Example GPU")
    keeper.device_left("n3", "0", "preempted")
    keeper.devices_dismissed()
    keeper.device_joined("n1", "0", "Example GPU")
    time.passes(1)
    found = read_status(tmp_path)
    assert found is not None
    # A node that was lost stays to be seen.
    assert [(node.node, node.slots, node.left) for node in found.nodes] == [("n1", 1, 0), ("n3", 0, 1)]


def test_the_memory_of_nodes_and_losses_has_an_end(tmp_path: Path) -> None:
    board = Board()
    board.start(1, 0, now_s=0.0)
    for index in range(1000):
        board.device_joined(f"n{index}", "0", "Example GPU")
        board.trial_lost("a", f"n{index}", "preempted", 1, now_s=0.0)
        board.device_left(f"n{index}", "0", "preempted", now_s=0.0)
    found = board.status(0.0, START)
    assert (len(found.nodes), len(found.losses), found.lost) == (MOST_GONE, MOST_LOSSES, 1000)


def test_a_disk_that_refuses_ends_no_run(tmp_path: Path) -> None:
    keeper, time, display = kept(tmp_path / "absent")
    keeper.start(1, 0)
    for _ in range(3):
        time.passes(2)
        keeper.trial_started("a", 1)
    (note,) = display.said
    assert note.startswith("note: status.json cannot be written now: No such file")
    (tmp_path / "absent").mkdir()
    time.passes(2)
    keeper.trial_started("b", 1)
    assert content(tmp_path / "absent")["total"] == 1
    keeper.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "is broken; Expecting value"),
        ("[]", "is broken"),
        ('{"schema_version": 1}', "is broken; written is missing"),
        ('{"schema_version": 2}', "is of version 2; this fusetune reads up to 1"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / STATUS).write_text(text)
    with pytest.raises(RunDirectoryError, match=why):
        read_status(tmp_path)


def test_a_moment_that_is_none(tmp_path: Path) -> None:
    keeper, _, _ = kept(tmp_path)
    keeper.start(1, 0)
    (tmp_path / STATUS).write_text(json.dumps({**content(tmp_path), "written": "noon"}))
    with pytest.raises(RunDirectoryError, match="is broken; Invalid isoformat"):
        read_status(tmp_path)
