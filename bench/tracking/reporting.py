"""A run's side of tracking: a process for each tracker, told of each record, and given some seconds at the end."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from fusetune.bench.results import RunDirectory
from fusetune.bench.terminal import invocation
from fusetune.bench.tracking.destination import OPTION, Destination
from fusetune.bench.tracking.sender import END, RECORD

Announce = Callable[[str], None]

# Seconds that all trackers have at the end of a run together, and after an interruption.
FLUSH_S = 60.0
INTERRUPTED_S = 5.0
# A wait that is longer is announced.
_PATIENCE_S = 2.0
_MOMENT_S = 0.2
_PROGRAM = (
    "import json, sys; job = json.loads(sys.argv[1]); sys.path[:] = job['path']; "
    "from fusetune.bench.tracking.sender import main; main(sys.argv[1])"
)
# What keeps trackers from sending more than what they are given. A variable that is set stays.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "WANDB_ERROR_REPORTING": "false",
}


class Reporting:
    """Sends a run to trackers while it goes on. Use it in a `with` block around the run.

    Nothing of a tracker can fail the run or hold it up. A record is on disk before a tracker hears of it. At the end
    of the block the trackers have `FLUSH_S` seconds together.

    Args:
        asked: where to. Without any, nothing happens.
        directory: of the run, open for appending.
        announce: takes the lines for a person.
        live: whether trials are sent while others run, at the lowest priority. False: at the end, where even that
            would disturb what is timed.
        flush_s: seconds at the end. None: no limit.
    """

    def __init__(
        self,
        asked: Sequence[Destination],
        directory: RunDirectory,
        announce: Announce,
        *,
        live: bool = True,
        flush_s: float | None = FLUSH_S,
    ) -> None:
        self._asked, self._directory, self._announce = asked, directory, announce
        self._live, self._flush_s = live, flush_s
        self._channels: list[_Channel] = []
        self.all_sent = True

    def __enter__(self) -> Reporting:
        self._handler = signal.getsignal(signal.SIGINT)
        if self._asked:
            self._announce(
                f"{OPTION}: sent are each trial's factors, seed, curve, results, status and reason, the spec, and the "
                "run's id, commit and device; no code, no data"
            )
        for destination in self._asked:
            place = destination.place(self._directory.run.spec.name, self._directory.path)
            self._announce(f"  {destination.name}: {place}")
        if self._live:
            self._start()
            self._directory.listeners.append(self._tell_of_record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._directory.listeners.remove(self._tell_of_record)
        elif self._directory.path.exists():
            self._start()
        limit_s = INTERRUPTED_S if self._is_interrupted(error) else self._flush_s
        try:
            for channel in self._channels:
                channel.say(END)
            with suppress(KeyboardInterrupt):  # a person does not want to wait
                if self._directory.path.exists():  # a run without records was removed
                    self._wait(limit_s)
        finally:
            for channel in self._channels:
                channel.end()
                if self._directory.path.exists():
                    self._conclude(channel)

    def _is_interrupted(self, error: BaseException | None) -> bool:
        """Tell whether a person wants the command to end: commands ignore further signals then."""
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN is not self._handler
        return isinstance(error, KeyboardInterrupt) or ignored

    def _start(self) -> None:
        self._channels = [_Channel(each, self._directory, low=self._live) for each in self._asked]

    def _wait(self, limit_s: float | None) -> None:
        """Wait until each process is done, or for some seconds. Say so where that takes longer."""
        start_s = time.monotonic()
        is_said = limit_s is None
        while left := [channel for channel in self._channels if not channel.is_over]:
            waited_s = time.monotonic() - start_s
            if limit_s is not None and waited_s >= limit_s:
                return
            if not is_said and waited_s > _PATIENCE_S:
                is_said = True
                names = ", ".join(channel.destination.name for channel in left)
                self._announce(f"waiting for {names}, {limit_s:.0f} s at most")
            for channel in select.select(left, [], [], _MOMENT_S)[0]:
                channel.receive()

    def _tell_of_record(self) -> None:
        """Tell each process that there is a record, and pass on what it says."""
        for channel in self._channels:
            channel.say(RECORD)
            channel.receive()
            if channel.problem and not channel.is_noted:
                self._note(channel, channel.problem)

    def _conclude(self, channel: _Channel) -> None:
        """Say what a tracker has now, or how it gets the rest."""
        done = channel.result
        if done is None or done["failed"] or done["problem"]:
            self.all_sent = False
            if not channel.is_noted:
                cut = "it was not finished in time" if done is None else done["problem"]
                self._note(channel, channel.problem or cut)
            return
        count = done["sent"] + done["before"]
        if not count:
            return
        name, run = channel.destination, self._directory
        place = name.place(run.run.spec.name, run.path)
        before = f", {done['before']} of them sent before" if done["before"] else ""
        see = name.kind.see.format(place=shlex.quote(place))
        self._announce(
            f"{name.name}: {count} trial{'' if count == 1 else 's'}{before}, {place}"
            + (f". See them with:\n  {see}" if see else "")
        )

    def _note(self, channel: _Channel, problem: str) -> None:
        """Say once that a tracker does not have everything."""
        channel.is_noted = True
        words = (str(self._directory.path), OPTION, channel.destination.asked)
        again = " ".join([invocation(), "report", *map(shlex.quote, words)])
        self._announce(
            f"note: {channel.destination.name}: not everything was sent; {problem}. Send it with:\n  {again}"
        )


def send_run(
    asked: Sequence[Destination], directory: RunDirectory, announce: Announce, *, limit_s: float | None = None
) -> bool:
    """Send a finished run, or what there is of one that goes on. Return whether the trackers have all of it.

    Args:
        asked: where to.
        directory: of the run.
        announce: takes the lines for a person.
        limit_s: seconds that this may take. None: no limit.
    """
    with Reporting(asked, directory, announce, live=False, flush_s=limit_s) as reporting:
        pass
    return reporting.all_sent


class _Channel:
    """A process that sends to one tracker, and what is known of it."""

    def __init__(self, destination: Destination, run: RunDirectory, *, low: bool) -> None:
        self.destination = destination
        self.problem = ""
        self.result: dict[str, Any] | None = None
        self.is_noted = False
        self._is_gone = False
        self._said = b""
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = run.path / f"tracker-{destination.name}.log"
        job = {
            "directory": str(run.path),
            "name": destination.name,
            "where": destination.where,
            "channel": theirs.fileno(),
            "low": low,
            "path": [each for each in sys.path if each],
        }
        try:
            with theirs, self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, json.dumps(job)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    env={**_ENVIRONMENT, **os.environ},
                    start_new_session=True,
                )
        except OSError as error:
            self.problem = error.strerror or str(error)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.result is not None or self._process is None or self._is_gone

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._socket.fileno()

    def say(self, word: bytes) -> None:
        """Say something without ever waiting: a process that does not listen has enough to do."""
        with suppress(OSError):
            self._socket.send(word)

    def receive(self) -> None:
        """Take what the process has said."""
        try:
            said = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._is_gone = not said
        *lines, self._said = (self._said + said).split(b"\n")
        for line in lines:
            news = json.loads(line)
            self.problem = self.problem or news.get("problem", "")
            if news.get("done"):
                self.result = news

    def end(self) -> None:
        """End the process, however busy it is, and remove its log where there was no problem."""
        if self._process is not None:
            if self._is_gone:  # its end of the socket closes a moment before it can be waited for
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_PATIENCE_S)
            if self.result is None and self._process.poll() not in (None, 0) and not self.problem:
                self.problem = f"its process ended with {self._process.returncode}, see {self._log}"
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._socket.close()
        with suppress(OSError):
            if self.result is not None and not self.result["problem"]:
                self._log.unlink()
