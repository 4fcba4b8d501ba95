"""The process that sends a run to one tracker. It alone imports the tracker's library.

It reads the run's records from disk, each when the run says that there is one, and ends when it is told to. So a
tracker that hangs, exits or prints can do nothing to the run. The run ends a sender that takes too long.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from fusetune.bench.results import Record, RunDirectory
from fusetune.bench.terminal import one_line, say
from fusetune.bench.tracking.destination import Destination
from fusetune.bench.tracking.sent_list import SentList
from fusetune.bench.tracking.tracker import Tracker, tracked_run, tracked_trial
from fusetune.errors import FusetuneError

# What the run says: there is a record, and there will be no more.
RECORD, END = b"r", b"e"
# Trials in a row that a tracker may refuse before nothing more is tried.
_IN_A_ROW = 3
# Seconds that are left where the run is gone.
_ORPHAN_S = 30.0
_LONGEST_REASON = 300
_LOWEST_PRIORITY = 19


class Sender:
    """Sends the records of a run that a tracker does not have yet.

    Args:
        directory: of the run.
        destination: tracker and place.
        make_tracker: imports the tracker. Called before the first record is there.
        tell: takes `{"problem": text}` at the first problem.
    """

    def __init__(
        self,
        directory: Path,
        destination: Destination,
        make_tracker: Callable[[Destination, Path], Tracker],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._directory, self._destination = directory, destination
        self._make_tracker, self._tell = make_tracker, tell
        self._tracker: Tracker | None = None
        self._sent: SentList | None = None
        self._is_open = False
        self._read_bytes = 0
        self._seen: set[str] = set()
        self._refused_in_a_row = 0
        self._problem = ""
        self.sent = self.before = self.failed = 0

    def prepare(self) -> None:
        """Import the tracker."""
        self._trying(self._prepare)

    def send_new(self) -> None:
        """Send the trials whose records are new on disk."""
        if not self._directory.exists():  # a run without records was removed
            return
        try:
            run = RunDirectory.open(self._directory)
            records, self._read_bytes = run.records_from(self._read_bytes)
        except (FusetuneError, OSError) as error:
            self._note(error)
            return
        for record in records:
            if record.trial not in self._seen:
                self._seen.add(record.trial)
                self._send(run, record)

    def close(self) -> dict[str, Any]:
        """Let the tracker finish, and return what came of it: counts `sent`, `before` and `failed`, and `problem`."""
        if self._is_open and self._tracker is not None:
            self._trying(self._tracker.close)
        if self._sent is not None:
            self._sent.close()
        return {
            "done": True,
            "sent": self.sent,
            "before": self.before,
            "failed": self.failed,
            "problem": self._problem,
        }

    def _prepare(self) -> None:
        self._tracker = self._make_tracker(self._destination, self._directory)

    def _send(self, run: RunDirectory, record: Record) -> None:
        if self._tracker is None or self._refused_in_a_row >= _IN_A_ROW:
            self.failed += 1
            return
        if not self._is_open and not self._trying(lambda: self._open(run)):
            self._refused_in_a_row = _IN_A_ROW
            self.failed += 1
            return
        tracker, sent = self._tracker, self._sent
        assert sent is not None
        trial = tracked_trial(record)
        if trial.id in sent.trials and tracker.holds(trial):
            self.before += 1
            return

        def send() -> None:
            tracker.log_trial(trial)
            sent.add(trial.id)

        if self._trying(send):
            self.sent += 1
            self._refused_in_a_row = 0
        else:
            self.failed += 1
            self._refused_in_a_row += 1

    def _open(self, run: RunDirectory) -> None:
        assert self._tracker is not None
        if self._sent is None:
            place = self._destination.key(run.run.spec.name)
            self._sent = SentList(self._directory, self._destination.name, place)
        self._tracker.open(tracked_run(run.run))
        self._is_open = True

    def _trying(self, work: Callable[[], None]) -> bool:
        """Do something with the tracker. Whatever goes wrong there is noted."""
        try:
            work()
        except (Exception, SystemExit) as error:  # the tracker
            self._note(error)
            return False
        return True

    def _note(self, error: BaseException) -> None:
        """Keep and tell the first problem."""
        say(f"{type(error).__name__}: {error}", err=True)
        if not self._problem:
            text = one_line(str(error).strip()) or type(error).__name__
            self._problem = text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
            self._tell({"problem": self._problem})


def make_tracker(destination: Destination, run: Path) -> Tracker:
    """Import a tracker, and make what sends to it."""
    module, _, name = destination.kind.home.partition(":")
    made: Tracker = getattr(import_module(module), name)(destination.where, run)
    return made


def main(job: str) -> NoReturn:
    """Run as a process of its own: send until the run says that there are no more records, then exit.

    Args:
        job: JSON with the `directory` of the run, the tracker's `name`, `where`, the descriptor `channel`, and whether
            the process gets the lowest priority, `low`.
    """
    asked = json.loads(job)
    channel = socket.socket(fileno=asked["channel"])
    if asked["low"]:
        os.nice(_LOWEST_PRIORITY)

    def tell(news: dict[str, Any]) -> None:
        try:
            channel.sendall(json.dumps(news).encode() + b"\n")
        except OSError:  # the run is gone
            return

    news, over = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(channel, news, over), daemon=True).start()
    sender = Sender(Path(asked["directory"]), Destination(asked["name"], asked["where"]), make_tracker, tell)
    sender.prepare()
    while not over.is_set():
        news.wait()
        news.clear()
        sender.send_new()
    sender.send_new()
    tell(sender.close())
    # What a tracker does at exit may wait for a network.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _listen(channel: socket.socket, news: threading.Event, over: threading.Event) -> None:
    """Take what the run says. Where it ended without a word, this process has some seconds left."""
    while said := _received(channel):
        if END in said:
            over.set()
        news.set()
    timer = threading.Timer(_ORPHAN_S, os._exit, (1,))
    timer.daemon = True
    timer.start()
    over.set()
    news.set()


def _received(channel: socket.socket) -> bytes:
    try:
        return channel.recv(4096)
    except OSError:
        return b""
