"""Where trials run: here, or in a worker process that may die without taking the run with it.

An executor turns a trial into a record, whatever happens; `run_all` feeds trials to one executor or to several.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import queue
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench.compile_cache import keep_compiled_code_private
from bench.errors import unusable
from bench.import_paths import safe_path
from bench.machine import oom_kill_count
from bench.memory_limit import MemoryBudget, OutOfMemory, classify_text
from bench.records import Record
from bench.units import format_seconds
from bench.worker import (
    OnProgress,
    Progress,
    RunnableTrial,
    RunTrial,
    WorkerContext,
    WorkerSetup,
    attempt,
    record_without_result,
    release_memory,
    serve,
)

# How often a waiting executor looks at the worker's memory, at its deadline and at whether it was cancelled.
_POLL_S = 0.2
# Importing torch from a cold disk takes a minute or so; a worker that needs longer than this hangs.
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 5.0
_LONGEST_TAIL = 400
_TAIL_LINES = 3
_TAIL_BYTES = 64 * 2**10
_NO_MORE = object()
# Workers are started by several threads, and they have one environment.
_START_LOCK = threading.Lock()
_CRASH = "Fatal Python error"
# In the provenance of a record whose worker SIGKILL ended though no memory limit says why: anybody may have sent it.
UNEXPLAINED_KILL = "unexplained_kill"


class Executor(Protocol):
    """Runs one trial at a time."""

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        """Run `trial` and return its record; a failure is a record too."""

    def cancel(self) -> None:
        """Make a `run` that is in flight in another thread return soon. No trial can be run afterwards."""

    def close(self) -> None:
        """Free what the executor holds; call it from the thread that ran the trials."""


class Listener(Protocol):
    """Is told what happens, always from the thread that called `run_all`."""

    def started(self, trial: Any) -> None:
        """`trial` is about to run."""

    def progressed(self, trial: Any, progress: Progress) -> None:
        """`trial` has sent news of itself."""

    def finished(self, trial: Any, record: Record) -> None:
        """`trial` is over; the executor that ran it starts its next one when this returns."""


class InProcessExecutor:
    """Runs trials in this process: for debuggers, and for tests.

    A trial that takes the process down takes the run down; use `WorkerExecutor` for anything else.

    Args:
        run_trial: called as `run_trial(trial, context, on_progress)`; returns a Record.
        context: what the trials share.
    """

    def __init__(self, run_trial: RunTrial, context: WorkerContext | None = None) -> None:
        self._run_trial = run_trial
        self._context = context or WorkerContext()

    def run(self, trial: RunnableTrial, on_progress: OnProgress) -> Record:
        """Run `trial` here; an exception becomes a record."""
        record = attempt(self._run_trial, trial, self._context, on_progress)
        release_memory(self._context.device)
        return record

    def cancel(self) -> None:
        """Do nothing: a trial in this process can only be waited for."""

    def close(self) -> None:
        """Do nothing: this executor holds nothing."""


class WorkerExecutor:
    """Runs trials in one worker process, started at the first trial, kept for the next, replaced when it dies.

    A worker that the kernel kills, or that dies over std::bad_alloc, was out of memory; any other death is a failed
    trial with the signal or exit code and the end of what it printed. After an out_of_memory the worker is replaced:
    the next trial starts from a clean footprint, and with a oneDNN that works (measured with torch 2.13: once it could
    not create a primitive, it creates none in that process). A worker ends by itself when this process does.

    All of `run` and `close` must be called from one thread: on Linux the worker dies with the thread that started it.

    Args:
        setup: what the worker is started with.
        log: file that collects everything workers print; a temporary one when not given.
        hard_timeout_s: a trial that takes longer is killed and recorded as failed; None: no such limit.
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
        """The worker's process id; None while there is none."""
        return self._worker.process.pid if self._worker else None

    def run(self, trial: RunnableTrial, on_progress: OnProgress) -> Record:
        """Run `trial` in the worker and pass on its progress; the death of the worker becomes a record."""
        if self._worker is not None and not self._worker.process.is_alive():
            self._discard_worker()
        log_start = self._begin_log(trial)
        kills_before = oom_kill_count()
        try:
            if self._worker is None:
                with _starting():
                    self._worker = _Worker(self._setup, self._log)
            record = self._worker.run(trial, on_progress, self._hard_timeout_s, self._cancelled.is_set)
        except _WorkerLostError as lost:
            worker, self._worker = self._worker, None
            assert worker is not None
            worker.kill()
            record = self._record_of_loss(trial, lost, worker, log_start, kills_before)
        except BaseException:
            self._discard_worker()
            raise
        if record.status == "out_of_memory" and self._worker is not None:
            self._worker.stop()
            self._worker = None
        return record

    def cancel(self) -> None:
        """Make a `run` that is in flight in another thread kill its worker and return."""
        self._cancelled.set()

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def _discard_worker(self) -> None:
        """Kill the worker if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def _begin_log(self, trial: RunnableTrial) -> int:
        """Write the trial's heading into the log and return where its output begins."""
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
        """Find out from the exit code and the log what a lost worker died of."""
        printed = _read_end(self._log, log_start)
        if lost.reason:
            return record_without_result(trial, "failed", _with_tail(lost.reason, printed))
        code = worker.process.exitcode
        shortage = classify_text(printed, worker.memory, worker.growth_bytes)
        killed = code == -signal.SIGKILL
        if killed:
            shortage = worker.killed_by_kernel(kills_before)
        if shortage is not None:
            record = record_without_result(trial, "out_of_memory", shortage.sentence, shortage.values)
            unexplained = killed and not worker.explains_kill(kills_before)
            return dataclasses.replace(record, provenance={UNEXPLAINED_KILL: True}) if unexplained else record
        return record_without_result(trial, "failed", _with_tail(_describe_exit(code), printed))


class _WorkerLostError(Exception):
    """The worker died (`reason` is empty) or had to be given up (`reason` says why)."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class _Worker:
    """One worker process and the pipe to it."""

    def __init__(self, setup: WorkerSetup, log: Path) -> None:
        keep_compiled_code_private()
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, setup, log), name="bench-worker")
        self.process.start()
        # Without this, a program that ends before it closes its executor would wait for the worker for ever.
        atexit.register(self.kill)
        theirs.close()
        source = setup.limit_source if setup.limit_bytes else None
        self.memory = MemoryBudget(setup.device, setup.limit_bytes, source)
        self._ready = False
        self._resident_at_start_bytes = 0
        self._peak_resident_bytes = 0

    @property
    def growth_bytes(self) -> int:
        """The most that the worker's resident memory was seen to hold in this trial over what it held when ready."""
        return max(0, self._peak_resident_bytes - self._resident_at_start_bytes)

    def killed_by_kernel(self, kills_before: int | None) -> OutOfMemory:
        """Say what is known of a worker that SIGKILL ended; `kills_before`: the kernel's count before the trial."""
        cause = "the worker was killed by the kernel (SIGKILL), most likely for memory"
        kills = oom_kill_count()
        if kills is not None and kills_before is not None and kills > kills_before:
            cause += f"; its count of such kills rose from {kills_before} to {kills}"
        # Pages of libraries that became resident are in the growth; under a limit that holds it can't have had more.
        most = self.memory.limit_bytes if self.memory.enforced else None
        held_bytes = self.growth_bytes if most is None else min(self.growth_bytes, most)
        return OutOfMemory(held_bytes, False, self.memory.limit_bytes, self.memory.source, cause)

    def explains_kill(self, kills_before: int | None) -> bool:
        """Tell whether SIGKILL came from the kernel for memory: by its own count, else by a container's limit."""
        kills = oom_kill_count()
        if kills is None or kills_before is None:
            return self.memory.source == "container"
        return kills > kills_before

    def run(
        self,
        trial: RunnableTrial,
        on_progress: OnProgress,
        timeout_s: float | None,
        is_cancelled: Callable[[], bool],
    ) -> Record:
        """Hand over `trial` and return its record; raises _WorkerLostError when the worker dies or hangs."""
        if not self._ready:
            _, self.memory = self._receive(_START_TIMEOUT_S, is_cancelled)
            self._ready = True
            self._resident_at_start_bytes = self._resident_bytes()
        self._peak_resident_bytes = 0
        self._send(trial)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else deadline - time.monotonic()
            try:
                kind, content = self._receive(left_s, is_cancelled)
            except TimeoutError:
                limit = format_seconds(timeout_s or 0.0)
                raise _WorkerLostError(f"the worker did not answer within {limit} and was killed") from None
            if kind == "record":
                return Record.from_dict(content)
            on_progress(content)

    def stop(self) -> None:
        """Ask the worker to end; kill it when it does not."""
        try:
            self._connection.send(None)
        except OSError:
            pass
        else:
            self.process.join(_STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill the worker, unless it is dead, and wait until it is gone."""
        self.process.kill()
        self.process.join()
        self._connection.close()
        atexit.unregister(self.kill)

    def _send(self, trial: RunnableTrial) -> None:
        """Send a trial; a worker that is gone is lost."""
        try:
            self._connection.send(trial)
        except OSError:
            self.process.join(_STOP_TIMEOUT_S)
            raise _WorkerLostError from None

    def _receive(self, timeout_s: float | None, is_cancelled: Callable[[], bool]) -> tuple[str, Any]:
        """Return the next message; raises _WorkerLostError or TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            # Kept, because after the worker's death nobody can ask any more.
            self._peak_resident_bytes = max(self._peak_resident_bytes, self._resident_bytes())
            ready = multiprocessing.connection.wait([self._connection, self.process.sentinel], _POLL_S)
            if is_cancelled():
                raise _WorkerLostError("cancelled")
            # A message counts even when its sender has died since.
            if self._connection in ready:
                try:
                    message: tuple[str, Any] = self._connection.recv()
                except (EOFError, OSError):
                    self.process.join(_STOP_TIMEOUT_S)
                    raise _WorkerLostError from None
                return message
            if ready:
                raise _WorkerLostError
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError

    def _resident_bytes(self) -> int:
        """Return the worker's resident memory; 0 when it is gone or the system does not say."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(pages[1]) * resource.getpagesize()


def run_all(
    trials: Iterable[Any], make_executor: Callable[[int], Executor], listener: Listener, *, jobs: int = 1
) -> None:
    """Run `trials`, on one executor strictly in their order, or on `jobs` executors that each take the next one.

    With one job everything happens in the calling thread. With more, each executor has a thread of its own, and the
    listener still hears of everything in the calling thread, records in the order in which trials finish. An
    executor takes its next trial only when the listener has dealt with the record of its last one. An interrupt, or
    an exception of the listener, ends the trials in flight at once and is passed on.

    Args:
        trials: what to run. Each is taken when an executor is free, and no more executors are made than there are
            trials: so an iterator may have any number of them, and end when it turns out that the rest is not needed.
        make_executor: called with 0, 1, ... for each executor that is needed.
        listener: is told of starts, progress and records.
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
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    waiting = iter(trials)
    first = list(itertools.islice(waiting, jobs))
    waiting = itertools.chain(first, waiting)
    if len(first) < 2:
        _run_in_order(waiting, make_executor(0), listener)
    else:
        _Parallel(waiting, [make_executor(index) for index in range(len(first))], listener).run()


def _run_in_order(trials: Iterable[Any], executor: Executor, listener: Listener) -> None:
    """Run every trial in the calling thread."""
    try:
        for trial in trials:
            listener.started(trial)
            record = executor.run(trial, functools.partial(listener.progressed, trial))
            listener.finished(trial, record)
    finally:
        executor.close()


class _Parallel:
    """Several executors, a thread each; what the listener hears goes through one queue of calls."""

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
            self._stopping.set()
            for executor in self._executors:
                executor.cancel()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _work(self, executor: Executor) -> None:
        """Take trials until there are none; runs in the executor's thread."""
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
        """Count one executor as done; runs in the calling thread."""
        self._at_work -= 1


def _raise(error: BaseException) -> None:
    """Raise an executor's exception in the calling thread."""
    raise error


@contextmanager
def _starting() -> Iterator[None]:
    """Start a process that never sees Ctrl-C, which the terminal sends to the whole group; here it comes late.

    Its interpreter does not look for its first modules in the current directory.
    """
    with _START_LOCK, safe_path():
        # Starting the tracker lifts the mask, so it has to run before.
        multiprocessing.resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read_end(log: Path, start: int) -> str:
    """Return what stands in `log` after `start`, or the end of it."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


def _describe_exit(code: int | None) -> str:
    """Say how a process ended."""
    if code is not None and code < 0:
        return f"the worker died of {signal.Signals(-code).name}"
    return f"the worker exited with code {code}"


def _with_tail(reason: str, printed: str) -> str:
    """Add the end of what a worker printed to `reason`, on one line.

    A crash report of the interpreter lists frames from the innermost one on and ends in a list of modules, so its
    beginning is what tells.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    told = lines[-_TAIL_LINES:]
    if any(line.startswith(_CRASH) for line in lines):
        told = [next(line for line in lines if line.startswith(start)) for start in (_CRASH, "File ")]
    text = " | ".join(told)
    if len(text) > _LONGEST_TAIL:
        text = "…" + text[1 - _LONGEST_TAIL :]
    return f"{reason}; it printed: {text}" if text else reason
