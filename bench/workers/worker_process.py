"""A process that runs code of others, seen from the side that started it: messages, limits in time, and its end."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from fusetune.bench.import_paths import safe_path
from fusetune.bench.interrupts import interrupts_deferred
from fusetune.bench.units import format_seconds
from fusetune.bench.workers.guard import is_guarded
from fusetune.bench.workers.memory_limit import MemoryBudget, OutOfMemory, classify_text
from fusetune.bench.workers.messages import ForeignMessage, Message, decode
from fusetune.bench.workers.preloaded import nursery_for

# How often a waiting side checks the worker's memory, its deadline and its cancellation.
_POLL_S = 0.2
# Importing torch from a cold disk takes about a minute. A worker that needs longer than this hangs.
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 5.0
_LONGEST_TAIL = 400
_TAIL_LINES = 3
_TAIL_BYTES = 64 * 2**10
# Several threads start workers, and all share one environment.
_START_LOCK = threading.Lock()
_CRASH = "Fatal Python error"


class WorkerLostError(Exception):
    """The worker died (`reason` is empty) or was given up for `reason`."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class ForeignMessageError(WorkerLostError):
    """What arrived was not sent by the worker's own code."""


@dataclass(frozen=True)
class Loss:
    """Why a worker was lost.

    Args:
        reason: one line.
        shortage: what it wanted, where it was out of memory.
        unexplained_kill: it was killed by SIGKILL, and nobody knows who sent that.
    """

    reason: str
    shortage: OutOfMemory | None = None
    unexplained_kill: bool = False


class WorkerProcess:
    """A worker process and the pipe to it. `process` is its guard, if it has one, which ends as the worker did.

    Args:
        main: the process's main function, called as `main(connection, leash, setup, log)`. See `workers.worker.begin`.
        setup: what it is told at the start. Picklable.
        log: takes its output.
        name: of the process.
        libraries: modules that the process starts with, as a fork, where that is possible. See `workers.preloaded`.
    """

    def __init__(
        self,
        main: Callable[..., None],
        setup: Any,
        log: Path,
        *,
        name: str,
        libraries: Sequence[str] = (),
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        guards, self._leash = spawn.Pipe(duplex=False)
        self._log = log
        self.process: Any
        with _starting():
            self.process = None
            if libraries and is_guarded():
                # A library that does not load says so in the worker that is started instead.
                with contextlib.suppress(OSError, EOFError):
                    self.process = nursery_for(libraries).fork(main, theirs, guards, setup, log)
            if self.process is None:
                self.process = spawn.Process(target=main, args=(theirs, guards, setup, log), name=name)
                self.process.start()
        # Otherwise a program that ends before it closes its worker would wait for it for ever.
        atexit.register(self.kill)
        theirs.close()
        guards.close()
        self.process_id = self.process.pid
        self.memory = MemoryBudget()
        self._resident_at_start_bytes = 0
        self._peak_resident_bytes = 0

    @property
    def growth_bytes(self) -> int:
        """The most resident memory that the worker was seen to use lately, beyond its memory when ready."""
        return max(0, self._peak_resident_bytes - self._resident_at_start_bytes)

    def watch_memory_anew(self) -> None:
        """Let `growth_bytes` speak of what comes from now on."""
        self._peak_resident_bytes = 0

    def wait_until_ready(self, is_cancelled: Callable[[], bool]) -> None:
        """Receive the first message, with process id and memory. Raises WorkerLostError where none comes."""
        try:
            _, (self.process_id, self.memory) = self.receive("", _START_TIMEOUT_S, is_cancelled)
        except TimeoutError:
            limit = format_seconds(_START_TIMEOUT_S)
            raise WorkerLostError(f"the worker was not ready within {limit} and was killed") from None
        self._resident_at_start_bytes = self._resident_bytes()

    def send(self, content: Any) -> None:
        """Send something picklable. Raises WorkerLostError when the worker is gone."""
        try:
            self._connection.send(content)
        except OSError:
            self.process.join(_STOP_TIMEOUT_S)
            raise WorkerLostError from None

    def send_file(self, descriptor: int) -> None:
        """Let the worker, which waits for it, have an open file. Raises WorkerLostError when the worker is gone."""
        try:
            send_handle(self._connection, descriptor, self.process_id)
        except OSError:
            self.process.join(_STOP_TIMEOUT_S)
            raise WorkerLostError from None

    def receive(
        self,
        mark: str,
        timeout_s: float | None,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        refuse: bool = False,
    ) -> tuple[str, Any]:
        """Return kind and content of the next message with that mark.

        Args:
            mark: of the message.
            timeout_s: the longest wait. None: without end.
            is_cancelled: asked every now and then.
            refuse: give the worker up at a message with another mark. Else such a message is noted in the log.

        Raises:
            WorkerLostError: the worker died, or was given up.
            TimeoutError: no message came in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            # Kept, because it cannot be read after the worker's death.
            self._peak_resident_bytes = max(self._peak_resident_bytes, self._resident_bytes())
            wait_s = _POLL_S if deadline is None else max(0.0, min(_POLL_S, deadline - time.monotonic()))
            ready = multiprocessing.connection.wait([self._connection, self.process.sentinel], wait_s)
            if is_cancelled():
                raise WorkerLostError("cancelled")
            # A message counts even when its sender has died in the meantime.
            if self._connection in ready:
                message = self._next_message()
                if message.mark == mark:
                    return message.kind, message.content
                if refuse:
                    raise ForeignMessageError("a message came that its own code did not send")
                self._note("a message of another trial was refused")
                continue
            if ready:
                raise WorkerLostError
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError

    def explain(
        self, lost: WorkerLostError, log_start: int, kills_before: int | None, kills: int | None
    ) -> Loss:
        """Say why the worker was lost, by its exit code, its output and the kernel's counts. Call `kill` before.

        Args:
            lost: what was raised.
            log_start: where the output of the work that it was lost at begins in the log.
            kills_before: the kernel's count of kills for memory at that time. None where it does not say.
            kills: its count now.
        """
        printed = read_end(self._log, log_start)
        if lost.reason:
            return Loss(with_tail(lost.reason, printed))
        code = self.process.exitcode
        shortage, reason = None, describe_exit(code)
        if code == -signal.SIGKILL:
            if kills is not None and kills_before is not None and kills > kills_before:
                shortage = self._killed_by_kernel(kills_before, kills)
            else:
                reason = _describe_unexplained_kill(kills)
        elif code == -signal.SIGABRT and self.memory.enforced:
            shortage = classify_text(printed, self.memory, self.growth_bytes)
        if shortage is not None:
            return Loss(shortage.sentence, shortage)
        return Loss(with_tail(reason, printed), unexplained_kill=code == -signal.SIGKILL)

    def stop(self) -> None:
        """Ask the worker to end. Kill it when it does not."""
        with interrupts_deferred():
            try:
                self._connection.send(None)
            except OSError:
                pass
            else:
                self.process.join(_STOP_TIMEOUT_S)
            self.kill()

    def kill(self) -> None:
        """Kill the worker, unless it is dead, and every process that it has started. Wait until all have ended."""
        with interrupts_deferred():
            self._leash.close()
            if is_guarded():
                self.process.join(_STOP_TIMEOUT_S)
            self.process.kill()
            self.process.join()
            self._connection.close()
            atexit.unregister(self.kill)

    def _next_message(self) -> Message:
        """Read the message that waits. Raises WorkerLostError where there is none, or another's."""
        try:
            return decode(self._connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(_STOP_TIMEOUT_S)
            ended = self.process.exitcode is not None
            raise WorkerLostError("" if ended else "the trial closed the worker's connection") from None
        except ForeignMessage as error:
            raise ForeignMessageError(
                f"what came from the worker is no message of its own: {error}"
            ) from None

    def _killed_by_kernel(self, kills_before: int, kills: int) -> OutOfMemory:
        """Describe a worker that the kernel killed. The kernel's counts are those before and after the trial."""
        cause = (
            f"the kernel killed the worker; its count of kills for memory rose from {kills_before} to {kills}"
        )
        # Pages of libraries that became resident are in the growth. An enforced limit bounds what the trial had.
        most = self.memory.limit_bytes if self.memory.enforced else None
        held_bytes = self.growth_bytes if most is None else min(self.growth_bytes, most)
        return OutOfMemory(held_bytes, False, self.memory.limit_bytes, self.memory.source, cause)

    def _note(self, text: str) -> None:
        with contextlib.suppress(OSError), self._log.open("ab") as log:
            log.write(f"--- {text}\n".encode())

    def busy_s(self) -> float | None:
        """Return the processor seconds of all threads that the worker has. None where the system does not say."""
        try:
            tasks = [*Path(f"/proc/{self.process_id}/task").iterdir()]
            counts = [(task / "schedstat").read_text(encoding="ascii").split() for task in tasks]
        except OSError:
            return None
        return 1e-9 * sum(int(count[0]) for count in counts) or None

    def _resident_bytes(self) -> int:
        """Return the worker's resident memory, or 0 when it is not known."""
        try:
            pages = Path(f"/proc/{self.process_id}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(pages[1]) * resource.getpagesize()


@contextmanager
def _starting() -> Iterator[None]:
    """Start a process that never receives Ctrl-C, which the terminal sends to the whole group. This process gets it
    later.

    Its interpreter does not search the current directory for its first modules.
    """
    with _START_LOCK, safe_path():
        # Starting the tracker lifts the mask, so it has to be started before.
        multiprocessing.resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_end(log: Path, start: int) -> str:
    """Return the text of `log` after `start`, or the end of it. "": the worker ended before it could open its log."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def describe_exit(code: int | None) -> str:
    """Say how a worker ended, by its exit code: negative for a signal."""
    if code is not None and code < 0:
        try:
            return f"the worker died of {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal has no name
            return f"the worker died of signal {-code}"
    return f"the worker exited with code {code}"


def _describe_unexplained_kill(kills: int | None) -> str:
    """Describe a SIGKILL that the kernel has not counted."""
    known = "does not say how many it has killed for memory"
    if kills is not None:
        known = f"has killed none for memory meanwhile (its count is {kills})"
    return f"the worker was killed by SIGKILL; the kernel {known}, so who sent it is not known"


def with_tail(reason: str, printed: str) -> str:
    """Append the end of a worker's output to `reason`, on one line.

    A crash report of the interpreter lists frames from the innermost one on and ends in a list of modules. So its
    beginning is the informative part.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    told = lines[-_TAIL_LINES:]
    crash = next((index for index, line in enumerate(lines) if line.startswith(_CRASH)), None)
    if crash is not None:
        # The text right before has the cause.
        told = lines[max(0, crash - 1) : crash + 1]
        told += [line for line in lines[crash:] if line.startswith("File ")][:1]
    text = " | ".join(told)
    if len(text) > _LONGEST_TAIL:
        text = "…" + text[1 - _LONGEST_TAIL :]
    return f"{reason}; its last lines: {text}" if text else reason
