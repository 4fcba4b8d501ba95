"""Executors: trials run in this process, or in a worker process that may die without ending the run.

An executor turns a trial into a record, whatever happens. `run_all` hands trials to one executor or to several.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import queue
import resource
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fusetune.bench.errors import unusable
from fusetune.bench.import_paths import safe_path
from fusetune.bench.interrupts import interrupts_deferred
from fusetune.bench.machine import oom_kill_count
from fusetune.bench.results import Record, WorkerEvents
from fusetune.bench.units import format_seconds
from fusetune.bench.workers.compile_cache import keep_compiled_code_private
from fusetune.bench.workers.guard import is_guarded
from fusetune.bench.workers.memory_limit import MemoryBudget, OutOfMemory, classify_text
from fusetune.bench.workers.messages import ForeignMessage, decode
from fusetune.bench.workers.worker import (
    OnProgress,
    Progress,
    RunnableTrial,
    RunTrial,
    WorkerContext,
    WorkerSetup,
    attempt,
    record_without_result,
    release_memory,
    start,
)
from fusetune.errors import InvalidValueError

# How often a waiting executor checks the worker's memory, its deadline and its cancellation.
_POLL_S = 0.2
# Importing torch from a cold disk takes about a minute. A worker that needs longer than this hangs.
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 5.0
_LONGEST_TAIL = 400
_TAIL_LINES = 3
_TAIL_BYTES = 64 * 2**10
_NO_MORE = object()
# Several threads start workers, and all share one environment.
_START_LOCK = threading.Lock()
_CRASH = "Fatal Python error"


class Executor(Protocol):
    """Runs one trial at a time."""

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        """Run `trial` and return its record. A failure is a record too."""

    def cancel(self) -> None:
        """Make a `run` in another thread return soon. No trial can be run afterwards."""

    def close(self) -> None:
        """Free the executor's resources. Call it from the thread that ran the trials."""


class Listener(Protocol):
    """Receives events, always in the thread that called `run_all`."""

    def started(self, trial: Any) -> None:
        """`trial` is about to run."""

    def progressed(self, trial: Any, progress: Progress) -> None:
        """`trial` has reported its progress."""

    def finished(self, trial: Any, record: Record) -> None:
        """`trial` has ended. Its executor starts the next one when this returns."""


class InProcessExecutor:
    """Runs trials in this process: for debuggers, and for tests.

    A trial that ends the process ends the run. Use `WorkerExecutor` for anything else.

    Args:
        run_trial: called as `run_trial(trial, context, on_progress)`, returns a Record.
        context: shared by the trials.
    """

    def __init__(self, run_trial: RunTrial, context: WorkerContext | None = None) -> None:
        self._run_trial = run_trial
        self._context = context or WorkerContext()

    def run(self, trial: RunnableTrial, on_progress: OnProgress) -> Record:
        """Run `trial` here. An exception becomes a record."""
        record = attempt(self._run_trial, trial, self._context, on_progress)
        release_memory(self._context.device)
        return record

    def cancel(self) -> None:
        """Do nothing, because a trial in this process cannot be cancelled."""

    def close(self) -> None:
        """Do nothing, because this executor has no resources."""


class WorkerExecutor:
    """Runs trials in one worker process. It starts at the first trial, is reused, and is replaced when it dies.

    A worker was out of memory in two cases: the kernel has counted a kill for memory, or the worker aborted over
    std::bad_alloc under an enforced limit. Any other death is a failed trial, with the signal or exit code and the end
    of the output. The output alone is no evidence.

    After an out_of_memory the worker is replaced, so that the next trial starts from a clean footprint. oneDNN needs
    this too (measured with torch 2.13): once it could not create a primitive, it creates none in that process. The
    worker is also replaced after a trial whose changes cannot be restored, see `bench.workers.trial_state`.

    A worker ends when it is closed, and when this process ends. Under Linux this includes every process that it has
    started. See `bench.workers.guard`. All of `run` and `close` must be called from one thread.

    Args:
        setup: how the worker is started.
        log: file that collects the output of the workers. Default: a temporary one.
        hard_timeout_s: a trial that takes longer is killed and recorded as failed. None: no such limit.
    """

    def __init__(
        self, setup: WorkerSetup, *, log: Path | None = None, hard_timeout_s: float | None = None
    ) -> None:
        self._setup = setup
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if log is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="bench-worker-")
            log = Path(self._temporary.name, "worker.log")
        self._log = log
        self._hard_timeout_s = hard_timeout_s
        self._cancelled = threading.Event()
        self._worker: _Worker | None = None

    @property
    def process_id(self) -> int | None:
        """The worker's process id. None while there is none."""
        return self._worker.process_id if self._worker else None

    def run(self, trial: RunnableTrial, on_progress: OnProgress) -> Record:
        """Run `trial` in the worker and pass on its progress. The death of the worker becomes a record."""
        if self._worker is not None and not self._worker.process.is_alive():
            self._discard_worker()
        log_start = self._begin_log(trial)
        kills_before = oom_kill_count()
        try:
            if self._worker is None:
                with _starting():
                    self._worker = _Worker(self._setup, self._log)
            # The mark identifies this trial's messages.
            record = self._worker.run(trial, on_progress, self._hard_timeout_s, self._cancelled.is_set)
        except _WorkerLostError as lost:
            worker, self._worker = self._worker, None
            assert worker is not None
            worker.kill()
            record = self._record_of_loss(trial, lost, worker, log_start, kills_before)
        except BaseException:
            self._discard_worker()
            raise
        spoilt = record.status == "out_of_memory" or record.worker.replaced_for
        if spoilt and self._worker is not None:
            self._worker.stop()
            self._worker = None
        return record

    def cancel(self) -> None:
        """Make a `run` in another thread kill its worker and return."""
        self._cancelled.set()

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def _discard_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def _begin_log(self, trial: RunnableTrial) -> int:
        """Write the trial's heading into the log and return the position where its output begins."""
        try:
            with self._log.open("ab") as log:
                log.write(f"--- {trial.id}\n".encode())
                log.flush()
                return log.tell()
        except OSError as error:
            raise unusable(self._log, error) from error

    def _record_of_loss(
        self,
        trial: RunnableTrial,
        lost: _WorkerLostError,
        worker: _Worker,
        log_start: int,
        kills_before: int | None,
    ) -> Record:
        """Find the cause of a worker's death in its exit code and log."""
        printed = _read_end(self._log, log_start)
        if lost.reason:
            return record_without_result(trial, "failed", _with_tail(lost.reason, printed))
        code, kills = worker.process.exitcode, oom_kill_count()
        shortage, reason = None, _describe_exit(code)
        if code == -signal.SIGKILL:
            if kills is not None and kills_before is not None and kills > kills_before:
                shortage = worker.killed_by_kernel(kills_before, kills)
            else:
                reason = _describe_unexplained_kill(kills)
        elif code == -signal.SIGABRT and worker.memory.enforced:
            shortage = classify_text(printed, worker.memory, worker.growth_bytes)
        if shortage is not None:
            return record_without_result(trial, "out_of_memory", shortage.sentence, shortage.values)
        record = record_without_result(trial, "failed", _with_tail(reason, printed))
        return dataclasses.replace(record, worker=WorkerEvents(unexplained_kill=code == -signal.SIGKILL))


class _WorkerLostError(Exception):
    """The worker died (`reason` is empty) or was given up for `reason`."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class _Worker:
    """One worker process and the pipe to it. `process` is its guard, if it has one, which ends as the worker did."""

    def __init__(self, setup: WorkerSetup, log: Path) -> None:
        keep_compiled_code_private()
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        guards, self._leash = spawn.Pipe(duplex=False)
        self._log = log
        self.process = spawn.Process(target=start, args=(theirs, guards, setup, log), name="bench-worker")
        self.process.start()
        # Otherwise a program that ends before it closes its executor would wait for the worker for ever.
        atexit.register(self.kill)
        theirs.close()
        guards.close()
        self.process_id = self.process.pid
        source = setup.limit_source if setup.limit_bytes else None
        self.memory = MemoryBudget(setup.device, setup.limit_bytes, source)
        self._ready = False
        self._resident_at_start_bytes = 0
        self._peak_resident_bytes = 0

    @property
    def growth_bytes(self) -> int:
        """The most resident memory that the worker was seen to use in this trial, beyond its memory when ready."""
        return max(0, self._peak_resident_bytes - self._resident_at_start_bytes)

    def killed_by_kernel(self, kills_before: int, kills: int) -> OutOfMemory:
        """Describe a worker that the kernel killed. The kernel's counts are those before and after the trial."""
        cause = (
            f"the kernel killed the worker; its count of kills for memory rose from {kills_before} to {kills}"
        )
        # Pages of libraries that became resident are in the growth. An enforced limit bounds what the trial had.
        most = self.memory.limit_bytes if self.memory.enforced else None
        held_bytes = self.growth_bytes if most is None else min(self.growth_bytes, most)
        return OutOfMemory(held_bytes, False, self.memory.limit_bytes, self.memory.source, cause)

    def run(
        self,
        trial: RunnableTrial,
        on_progress: OnProgress,
        timeout_s: float | None,
        is_cancelled: Callable[[], bool],
    ) -> Record:
        """Hand over `trial` and return its record. Raises _WorkerLostError when the worker dies or hangs."""
        if not self._ready:
            try:
                _, (self.process_id, self.memory) = self._receive("", _START_TIMEOUT_S, is_cancelled)
            except TimeoutError:
                limit = format_seconds(_START_TIMEOUT_S)
                raise _WorkerLostError(f"the worker was not ready within {limit} and was killed") from None
            self._ready = True
            self._resident_at_start_bytes = self._resident_bytes()
        self._peak_resident_bytes = 0
        mark = secrets.token_hex(8)
        self._send(mark, trial)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else deadline - time.monotonic()
            try:
                kind, content = self._receive(mark, left_s, is_cancelled)
            except TimeoutError:
                limit = format_seconds(timeout_s or 0.0)
                raise _WorkerLostError(f"the worker did not answer within {limit} and was killed") from None
            if kind == "record":
                return Record.from_dict(content)
            on_progress(content)

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

    def _send(self, mark: str, trial: RunnableTrial) -> None:
        """Send a trial. Raises _WorkerLostError when the worker is gone."""
        try:
            self._connection.send((mark, trial))
        except OSError:
            self.process.join(_STOP_TIMEOUT_S)
            raise _WorkerLostError from None

    def _receive(
        self, mark: str, timeout_s: float | None, is_cancelled: Callable[[], bool]
    ) -> tuple[str, Any]:
        """Return kind and content of the next message with that mark. Raises _WorkerLostError or TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            # Kept, because it cannot be read after the worker's death.
            self._peak_resident_bytes = max(self._peak_resident_bytes, self._resident_bytes())
            ready = multiprocessing.connection.wait([self._connection, self.process.sentinel], _POLL_S)
            if is_cancelled():
                raise _WorkerLostError("cancelled")
            # A message counts even when its sender has died in the meantime.
            if self._connection in ready:
                try:
                    message = decode(self._connection.recv_bytes())
                except (EOFError, OSError):
                    self.process.join(_STOP_TIMEOUT_S)
                    ended = self.process.exitcode is not None
                    raise _WorkerLostError(
                        "" if ended else "the trial closed the worker's connection"
                    ) from None
                except ForeignMessage as error:
                    raise _WorkerLostError(
                        f"what came from the worker is no message of its own: {error}"
                    ) from None
                if message.mark == mark:
                    return message.kind, message.content
                self._note("a message of another trial was refused")
                continue
            if ready:
                raise _WorkerLostError
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError

    def _note(self, text: str) -> None:
        with contextlib.suppress(OSError), self._log.open("ab") as log:
            log.write(f"--- {text}\n".encode())

    def _resident_bytes(self) -> int:
        """Return the worker's resident memory, or 0 when it is not known."""
        try:
            pages = Path(f"/proc/{self.process_id}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(pages[1]) * resource.getpagesize()


def run_all(
    trials: Iterable[Any], make_executor: Callable[[int], Executor], listener: Listener, *, jobs: int = 1
) -> None:
    """Run `trials`, on one executor strictly in their order, or on `jobs` executors that each take the next one.

    With one job everything happens in the calling thread. With more, each executor has its own thread. The listener is
    still called in the calling thread, with records in the order in which trials finish. An executor takes its next
    trial only when the listener has handled the record of its last one. An interrupt, or an exception of the listener,
    ends the running trials at once and is passed on.

    Args:
        trials: each is taken when an executor is free, and no more executors are made than there are trials. So an
            iterator may have any number of them, and end when the rest is not needed.
        make_executor: called with 0, 1, ... for each executor that is needed.
        listener: receives starts, progress and records.
        jobs: number of executors, at least 1.

    Example:
        >>> class Print:
        ...     def started(self, trial): print("start", trial)
        ...     def progressed(self, trial, progress): print(progress)
        ...     def finished(self, trial, record): print(record.status)
        >>> class Echo:
        ...     def run(self, trial, on_progress):
        ...         on_progress({"epoch": 1})
        ...         return Record(trial, {}, 0, "ok")
        ...     def cancel(self): pass
        ...     def close(self): print("closed")
        >>> run_all(["a"], lambda index: Echo(), Print())
        start a
        {'epoch': 1}
        ok
        closed
    """
    if jobs < 1:
        raise InvalidValueError("jobs", f"must be at least 1, not {jobs}")
    waiting = iter(trials)
    first = list(itertools.islice(waiting, jobs))
    waiting = itertools.chain(first, waiting)
    if len(first) < 2:
        _run_in_order(waiting, make_executor(0), listener)
    else:
        _Parallel(waiting, [make_executor(index) for index in range(len(first))], listener).run()


def _run_in_order(trials: Iterable[Any], executor: Executor, listener: Listener) -> None:
    try:
        for trial in trials:
            listener.started(trial)
            record = executor.run(trial, functools.partial(listener.progressed, trial))
            listener.finished(trial, record)
    finally:
        executor.close()


class _Parallel:
    """Several executors, with a thread each. All calls of the listener go through one queue."""

    def __init__(self, trials: Iterator[Any], executors: Sequence[Executor], listener: Listener) -> None:
        self._trials, self._taking = trials, threading.Lock()
        self._executors = executors
        self._listener = listener
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._at_work = len(executors)

    def run(self) -> None:
        """Run until every executor is done, or until an exception stops them."""
        threads = [threading.Thread(target=self._work, args=(executor,)) for executor in self._executors]
        try:
            for thread in threads:
                thread.start()
            while self._at_work:
                self._calls.get()()
        finally:
            with interrupts_deferred():
                self._stopping.set()
                for executor in self._executors:
                    executor.cancel()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()

    def _work(self, executor: Executor) -> None:
        """Take trials until there are none. Runs in the executor's thread."""
        try:
            try:
                self._run_all(executor)
            finally:
                executor.close()
        except BaseException as error:
            self._calls.put(functools.partial(_raise, error))
        finally:
            self._calls.put(self._leave)

    def _run_all(self, executor: Executor) -> None:
        while not self._stopping.is_set():
            with self._taking:
                trial = next(self._trials, _NO_MORE)
            if trial is _NO_MORE:
                return
            self._run_one(executor, trial)

    def _run_one(self, executor: Executor, trial: Any) -> None:
        """Run one trial and wait until the listener has dealt with its record."""

        def on_progress(progress: Progress) -> None:
            self._calls.put(functools.partial(self._listener.progressed, trial, progress))

        self._calls.put(functools.partial(self._listener.started, trial))
        record = executor.run(trial, on_progress)
        if self._stopping.is_set():
            return
        self._calls.put(functools.partial(self._listener.finished, trial, record))
        dealt_with = threading.Event()
        self._calls.put(dealt_with.set)
        while not dealt_with.wait(_POLL_S) and not self._stopping.is_set():
            continue

    def _leave(self) -> None:
        """Count one executor as done. Runs in the calling thread."""
        self._at_work -= 1


def _raise(error: BaseException) -> None:
    """Raise an executor's exception in the calling thread."""
    raise error


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


def _read_end(log: Path, start: int) -> str:
    """Return the text of `log` after `start`, or the end of it."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


def _describe_exit(code: int | None) -> str:
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


def _with_tail(reason: str, printed: str) -> str:
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
