"""What comes before the trials goes on elsewhere when its device is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fusetune.bench.cluster.first_device import FirstDevice
from fusetune.bench.results import Record
from fusetune.bench.workers import ExecutorLostError


@dataclass
class Device:
    """A device that can be had, and answers, or not."""

    name: str
    free: bool = True
    dies: bool = False
    closed: bool = False
    process_id: int | None = None

    def prepare(self) -> None:
        if not self.free:
            raise ExecutorLostError("its devices stayed in use", node=self.name, started=False)

    def run(self, trial: Any, on_progress: Any) -> Record:
        if self.dies:
            raise ExecutorLostError("its process died", node=self.name)
        return Record(trial, {}, 0, "ok", values={"on": float(self.name)})

    def close(self) -> None:
        self.closed = True


class GoneError(Exception):
    """No device can be had."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now_s.append(now_s.pop() + seconds))


@pytest.fixture
def make(clock: None) -> Callable[..., tuple[FirstDevice, list[str]]]:
    def from_devices(*devices: Device | None) -> tuple[FirstDevice, list[str]]:
        said: list[str] = []
        left = list(devices)
        found: Any = lambda: left.pop(0) if left else None  # noqa: E731
        return FirstDevice(found, wait_s=10.0, lost=GoneError, announce=said.append), said

    return from_devices


def ignore(progress: Any) -> None:
    """No one listens."""


def test_another_device_takes_over_and_keeps_its_warm_worker(make: Any) -> None:
    dead, free, unused = Device("1", dies=True), Device("2"), Device("3")
    first, said = make(dead, None, free, unused)
    assert [first.run(trial, ignore).values["on"] for trial in "ab"] == [2.0, 2.0]
    assert dead.closed
    assert said == ["note: node 1: its process died. Another device takes over"]
    assert first.release() is free
    assert not free.closed
    assert first.run("c", ignore).values["on"] == 3.0
    first.close()
    assert unused.closed


def test_a_device_that_others_use_is_not_waited_for_where_another_is_free(make: Any) -> None:
    taken, free = Device("1", free=False), Device("2")
    first, said = make(taken, free)
    assert first.run("a", ignore).values["on"] == 2.0
    assert taken.closed
    assert said == []


def test_no_device_within_the_wait_and_a_fourth_loss_end_it(make: Any) -> None:
    none, _ = make()
    with pytest.raises(GoneError, match="no device could be had"):
        none.run("a", ignore)
    dying, said = make(*(Device(str(number), dies=True) for number in range(9)))
    with pytest.raises(
        GoneError, match="4 devices were lost before the first trial, the last one as its process died"
    ):
        dying.run("a", ignore)
    assert len(said) == 3
