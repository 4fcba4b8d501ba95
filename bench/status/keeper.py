"""Keeps `status.json` of a run that goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from fusetune.bench.interrupts import interrupts_deferred
from fusetune.bench.results import Record
from fusetune.bench.status.board import Board
from fusetune.bench.status.run_status import STATUS, remove_status, write_status

INTERVAL_S = 1.0  # least time between two writes


class Display(Protocol):
    """Shows a run while it goes on."""

    def start(self, total: int, done: int) -> None:
        """The run begins: `total` trials, `done` of them recorded before."""

    def message(self, text: str) -> None:
        """There is a message."""

    def device_joined(self, node: str, device: str, kind: str) -> None:
        """A device of a node takes trials from now on. `kind` is the name of the GPU or of the processor."""

    def device_left(self, node: str, device: str, reason: str) -> None:
        """A device takes no more trials."""

    def trial_started(self, trial_id: str, index: int) -> None:
        """A trial begins."""

    def trial_progress(self, trial_id: str, update: Mapping[str, Any]) -> None:
        """A trial in flight has news. On a cluster these have its `node` and its `device`."""

    def trial_lost(self, trial_id: str, node: str, reason: str, attempt: int) -> None:
        """A trial in flight was lost and goes back into the queue. `attempt` counts from 1."""

    def trial_finished(self, record: Record, index: int) -> None:
        """A trial is over and its record is on disk."""


class Delayed(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Call off the call."""


def _later(seconds: float, call: Callable[[], None]) -> Delayed:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


class StatusKeeper:
    """Passes the events of a run on to a display, and keeps the run's `status.json`.

    The file is written after an event, at most once a second. News within a second of a write are written at its end,
    in a thread of their own. So the file is never older than its last event by more than a second. It is removed by
    `close`. A file that cannot be written ends no run: there is one note, and the next write is tried all the same.

    Args:
        display: gets every event.
        directory: of the run.
        board: collects the events.
        failed: failed trials of earlier parts of the run.
        clock: monotonic seconds.
        wall: the time, with its offset from UTC.
        later: calls a function after some seconds.
    """

    def __init__(
        self,
        display: Display,
        directory: Path,
        board: Board,
        *,
        failed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        later: Callable[[float, Callable[[], None]], Delayed] = _later,
    ) -> None:
        self._display, self._directory, self._board, self._failed = display, directory, board, failed
        self._clock, self._wall, self._later = clock, wall, later
        self._lock = threading.Lock()
        self._written_s: float | None = None
        self._delayed: Delayed | None = None
        self._fault, self._said = "", False
        self._is_closed = False

    def __enter__(self) -> StatusKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file. Later events write nothing."""
        with interrupts_deferred(), self._lock:
            self._is_closed = True
            if self._delayed is not None:
                self._delayed.cancel()
            try:
                remove_status(self._directory)
            except OSError as error:
                self._fault = str(error.strerror or error)
            note = self._note()
        if note:
            self._display.message(note)

    def start(self, total: int, done: int) -> None:
        """Begin: `total` trials planned, `done` of them recorded before."""
        self._display.start(total, done)
        self._take(lambda now_s: self._board.start(total, done, now_s=now_s, failed=self._failed))

    def message(self, text: str) -> None:
        """Pass a message on, and keep the last one."""
        self._display.message(text)
        self._take(lambda _: self._board.said(text))

    def device_joined(self, node: str, device: str, kind: str) -> None:
        """Note that a device takes trials."""
        self._display.device_joined(node, device, kind)
        self._take(lambda _: self._board.device_joined(node, device, kind))

    def device_left(self, node: str, device: str, reason: str) -> None:
        """Note that a device takes no more trials."""
        self._display.device_left(node, device, reason)
        self._take(lambda now_s: self._board.device_left(node, device, reason, now_s=now_s))

    def devices_dismissed(self) -> None:
        """Note that a part of the run is over, and its devices with it. Displays are not told."""
        self._take(lambda _: self._board.devices_dismissed())

    def trial_started(self, trial_id: str, index: int) -> None:
        """Note that a trial has begun."""
        self._display.trial_started(trial_id, index)
        self._take(lambda now_s: self._board.trial_started(trial_id, index, now_s=now_s))

    def trial_progress(self, trial_id: str, update: Mapping[str, Any]) -> None:
        """Take news of a trial in flight."""
        self._display.trial_progress(trial_id, update)
        self._take(lambda _: self._board.trial_progress(trial_id, update))

    def trial_lost(self, trial_id: str, node: str, reason: str, attempt: int) -> None:
        """Note that a trial waits again."""
        self._display.trial_lost(trial_id, node, reason, attempt)
        self._take(lambda now_s: self._board.trial_lost(trial_id, node, reason, attempt, now_s=now_s))

    def trial_withdrawn(self, trial_id: str) -> None:
        """Note that a trial is no longer in flight, and counts as nothing. Displays are not told."""
        self._take(lambda _: self._board.trial_withdrawn(trial_id))

    def trial_finished(self, record: Record, index: int) -> None:
        """Note that a trial is over."""
        self._display.trial_finished(record, index)
        self._take(lambda now_s: self._board.trial_finished(record, now_s=now_s))

    def _take(self, event: Callable[[float], object]) -> None:
        """Add an event to the board, and write now or later."""
        with self._lock:
            now_s = self._clock()
            event(now_s)
            if not self._is_closed and self._delayed is None:
                due_s = now_s if self._written_s is None else self._written_s + INTERVAL_S
                if now_s >= due_s:
                    self._write(now_s)
                else:
                    self._delayed = self._later(due_s - now_s, self._write_late)
            note = self._note()
        if note:
            self._display.message(note)

    def _write_late(self) -> None:
        with self._lock:
            self._delayed = None
            if not self._is_closed:
                self._write(self._clock())

    def _write(self, now_s: float) -> None:
        self._written_s = now_s
        try:
            write_status(self._directory, self._board.status(now_s, self._wall()))
        except OSError as error:
            self._fault = str(error.strerror or error)

    def _note(self) -> str:
        """Return a note on a file that cannot be written, the first time. The display is called without the lock."""
        if not self._fault or self._said:
            return ""
        self._said = True
        return f"note: {STATUS} cannot be written now: {self._fault}. The run goes on."
