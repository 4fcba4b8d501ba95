"""Executors: trials run in this process, or in a worker process that may die without ending the run.

An executor turns a trial into a record, whatever happens. `bench.workers.pool` hands trials to executors.
"""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from fusetune.bench.errors import unusable
from fusetune.bench.machine import oom_kill_count
from fusetune.bench.results import Record, WorkerEvents
from fusetune.bench.units import format_seconds
from fusetune.bench.workers.compile_cache import keep_compiled_code_private
from fusetune.bench.workers.memory_limit import MemoryBudget
from fusetune.bench.workers.worker import (
    OnProgress,
    RunnableTrial,
    RunTrial,
    WorkerContext,
    WorkerSetup,
    attempt,
    record_without_result,
    release_memory,
    start,
)
from fusetune.bench.workers.worker_process import WorkerLostError, WorkerProcess


class Executor(Protocol):
    """Runs one trial at a time."""

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        """Run `trial` and return its record. A failure is a record too."""

    def cancel(self) -> None:
        """Make a `run` in another thread return soon. No trial can be run afterwards."""

    def close(self) -> None:
        """Free the executor's resources. Call it from the thread that ran the trials."""


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
                self._worker = _Worker(self._setup, self._log)
            # The mark identifies this trial's messages.
            record = self._worker.run(trial, on_progress, self._hard_timeout_s, self._cancelled.is_set)
        except WorkerLostError as lost:
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
        lost: WorkerLostError,
        worker: _Worker,
        log_start: int,
        kills_before: int | None,
    ) -> Record:
        """Find the cause of a worker's death in its exit code and log."""
        loss = worker.explain(lost, log_start, kills_before, oom_kill_count())
        if loss.shortage is not None:
            return record_without_result(trial, "out_of_memory", loss.shortage.sentence, loss.shortage.values)
        record = record_without_result(trial, "failed", loss.reason)
        return dataclasses.replace(record, worker=WorkerEvents(unexplained_kill=loss.unexplained_kill))


class _Worker(WorkerProcess):
    """A worker that runs trials."""

    def __init__(self, setup: WorkerSetup, log: Path) -> None:
        keep_compiled_code_private()
        super().__init__(start, setup, log, name="bench-worker")
        source = setup.limit_source if setup.limit_bytes else None
        self.memory = MemoryBudget(setup.device, setup.limit_bytes, source)
        self._ready = False

    def run(
        self,
        trial: RunnableTrial,
        on_progress: OnProgress,
        timeout_s: float | None,
        is_cancelled: Callable[[], bool],
    ) -> Record:
        """Hand over `trial` and return its record. Raises WorkerLostError when the worker dies or hangs."""
        if not self._ready:
            self.wait_until_ready(is_cancelled)
            self._ready = True
        self.watch_memory_anew()
        mark = secrets.token_hex(8)
        self.send((mark, trial))
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else deadline - time.monotonic()
            try:
                kind, content = self.receive(mark, left_s, is_cancelled)
            except TimeoutError:
                limit = format_seconds(timeout_s or 0.0)
                raise WorkerLostError(f"the worker did not answer within {limit} and was killed") from None
            if kind == "record":
                return Record.from_dict(content)
            on_progress(content)
