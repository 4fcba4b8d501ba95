"""Executors that join and leave: no trial is lost, none runs twice at once, and each has one record."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from fusetune.bench.results import Record
from fusetune.bench.workers import ExecutorLostError, InOrder, OnProgress, Pool


@dataclass(frozen=True)
class Trial:
    """A trial by name."""

    id: str


@dataclass
class Diary:
    """Notes what it hears, and in which thread."""

    records: list[Record] = field(default_factory=list)
    losses: list[tuple[str, str, int, bool]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def started(self, trial: Trial) -> None:
        self.threads.add(threading.get_ident())

    def progressed(self, trial: Trial, progress: dict[str, Any]) -> None: ...

    def finished(self, trial: Trial, record: Record) -> None:
        self.threads.add(threading.get_ident())
        self.records.append(record)

    def joined(self, node: str, device: str, kind: str) -> None: ...

    def left(self, node: str, device: str, reason: str) -> None: ...

    def lost(self, trial: Trial, loss: ExecutorLostError, attempt: int, again: bool) -> None:
        self.threads.add(threading.get_ident())
        self.losses.append((trial.id, loss.node, attempt, again))


@dataclass
class Device:
    """Runs trials, and is lost with those that it is told to be lost with."""

    node: str
    fatal: Counter[str]
    running: Counter[str]
    ready: bool = True
    closed: bool = False

    def prepare(self) -> None:
        if not self.ready:
            raise ExecutorLostError("in use", node=self.node, started=False)

    def run(self, trial: Trial, on_progress: OnProgress) -> Record:
        self.running[trial.id] += 1
        assert self.running[trial.id] == 1, "a trial runs twice at once"
        try:
            if self.fatal[trial.id] > 0:
                self.fatal[trial.id] -= 1
                raise ExecutorLostError("the node died", node=self.node, device="0")
        finally:
            self.running[trial.id] -= 1
        return Record(trial.id, {}, 0, "ok")

    def cancel(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def run(fatal: dict[str, int], names: str = "abcdef", first: int = 2) -> tuple[Pool, Diary, list[Device]]:
    """Run trials on devices, each of which is replaced by another when it is lost."""
    deaths, running, diary = Counter(fatal), Counter[str](), Diary()
    devices: list[Device] = []

    def add() -> None:
        device = Device(f"node-{len(devices)}", deaths, running)
        devices.append(device)
        pool.add(device, device.node, lambda loss: add() if loss else None)

    pool = Pool(InOrder([Trial(name) for name in names]), diary, on_tick=lambda: None, most_losses=3)
    for _ in range(first):
        add()
    pool.run()
    return pool, diary, devices


@pytest.mark.parametrize("fatal", [{}, {"a": 1}, {"c": 3, "f": 2}, dict.fromkeys("abcdef", 1)])
def test_every_trial_has_one_record_and_says_where_it_was_lost(fatal: dict[str, int]) -> None:
    pool, diary, devices = run(fatal)
    assert sorted(record.trial for record in diary.records) == list("abcdef")
    assert pool.given_up == []
    attempts = {record.trial: record.provenance.get("attempts", []) for record in diary.records}
    assert {name: len(lost) for name, lost in attempts.items() if lost} == fatal
    assert all(each["reason"] == "the node died" for lost in attempts.values() for each in lost)
    # A record says nothing of losses of others, and nothing was told in another thread.
    assert len(diary.losses) == sum(fatal.values())
    assert diary.threads == {threading.get_ident()}
    assert all(device.closed for device in devices)


def test_a_trial_is_given_up_at_its_fourth_loss_and_the_others_go_on() -> None:
    pool, diary, _ = run({"b": 4})
    assert sorted(record.trial for record in diary.records) == list("acdef")
    assert [trial.id for trial in pool.given_up] == ["b"]
    assert [loss[2:] for loss in diary.losses] == [(1, True), (2, True), (3, True), (4, False)]


def test_a_device_that_cannot_be_had_costs_no_trial_an_attempt() -> None:
    diary = Diary()
    told: list[Any] = []
    pool = Pool(InOrder([Trial("a")]), diary, on_tick=lambda: None, most_losses=3)
    busy = Device("busy", Counter(), Counter(), ready=False)
    pool.add(busy, "busy", told.append)
    pool.add(Device("free", Counter(), Counter()), "free")
    pool.run()
    assert [record.provenance for record in diary.records] == [{}]
    assert [(loss.reason, loss.started) for loss in told] == [("in use", False)]
    assert diary.losses == []


def test_the_pool_waits_for_devices_until_its_caller_raises() -> None:
    ticks = []

    def give_up() -> None:
        ticks.append(1)
        if len(ticks) == 2:
            raise ExecutorLostError("no device")

    deaths = Counter({"a": 1})
    pool = Pool(InOrder([Trial("a")]), Diary(), on_tick=give_up, most_losses=3)
    pool.add(Device("only", deaths, Counter()), "only")
    with pytest.raises(ExecutorLostError, match="no device"):
        pool.run()
    assert len(ticks) == 2


def test_records_that_come_while_the_listener_is_busy_are_handled_together() -> None:
    """With 512 devices, one wait for the disk serves all that have ended meanwhile."""
    batches: list[list[str]] = []

    class Together(Diary):
        def finished_all(self, pairs: list[tuple[Trial, Record]]) -> None:
            batches.append([trial.id for trial, _ in pairs])
            while len(batches) == 1 and len(pairs) + pool._calls.qsize() < 8:
                threading.Event().wait(0.001)
            for trial, record in pairs:
                self.finished(trial, record)

    class Answer(Device):
        def run(self, trial: Trial, on_progress: OnProgress) -> Record:
            everyone.wait()
            return Record(trial.id, {}, 0, "ok")

    everyone = threading.Barrier(8)
    diary = Together()
    pool = Pool(InOrder([Trial(str(number)) for number in range(8)]), diary)
    for _ in range(8):
        pool.add(Answer("", Counter(), Counter()))
    pool.run()
    assert len(batches) <= 2
    assert sorted(record.trial for record in diary.records) == [str(number) for number in range(8)]
