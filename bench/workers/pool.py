"""Trials handed to executors: to one in this thread, or to several that may join and leave while trials run.

source --take--> executor's thread --record--> queue --> listener, in the thread that called `run`
   ^                  |
   +----put_back------+   the executor's device is gone: that is never a failure of the trial
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from fusetune.bench.interrupts import interrupts_deferred
from fusetune.bench.results import Record
from fusetune.bench.workers.executors import Executor
from fusetune.bench.workers.worker import Progress
from fusetune.errors import InvalidValueError

# How often an executor's thread checks whether the run is stopping.
_POLL_S = 0.2
# How often the calling thread looks for executors that could join.
_TICK_S = 1.0
# How often a trial may lose its device. A fourth loss leaves it without a record.
MOST_LOSSES = 3
# Calls that are handled before the loop looks at the clock again.
_MOST_TOGETHER = 4096
NOTHING = object()
LATER = object()


class ExecutorLostError(Exception):
    """An executor's device or node is gone. What it ran has done nothing wrong, and can run elsewhere.

    Args:
        reason: one line.
        node: where the executor was.
        device: of the node.
        started: whether a trial was running there. One that was not has lost nothing.
    """

    def __init__(self, reason: str, *, node: str = "", device: str = "", started: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.node, self.device, self.started = reason, node, device, started

    def as_dict(self) -> dict[str, str]:
        """Return what a record says of a lost attempt."""
        return {"node": self.node, "device_id": self.device, "reason": self.reason}


# Told when an executor has left, with the loss for which it did.
OnLeave = Callable[["ExecutorLostError | None"], None]


class Listener(Protocol):
    """Receives events, always in the thread that runs the pool."""

    def started(self, trial: Any) -> None:
        """`trial` is about to run."""

    def progressed(self, trial: Any, progress: Progress) -> None:
        """`trial` has reported its progress."""

    def finished(self, trial: Any, record: Record) -> None:
        """`trial` has ended. Its executor starts the next one when this returns."""


class ClusterListener(Listener, Protocol):
    """Also hears of devices that come and go, which only other machines have."""

    def joined(self, node: str, device: str, kind: str) -> None:
        """A device takes trials from now on."""

    def left(self, node: str, device: str, reason: str) -> None:
        """A device takes no more trials."""

    def lost(self, trial: Any, loss: ExecutorLostError, attempt: int, again: bool) -> None:
        """`trial` was lost for the `attempt`-th time. `again`: it waits for another executor."""


class Source(Protocol):
    """The trials that wait. The pool calls one method at a time."""

    def take(self, node: str) -> Any:
        """Return the next trial for an executor on `node`, NOTHING, or LATER: those that wait are for other nodes."""

    def put_back(self, trial: Any, node: str) -> None:
        """Take a trial back that was lost on `node`."""


class InOrder:
    """Trials in the order in which they are given. One that was lost comes next.

    Example:
        >>> trials = InOrder(["a", "b"])
        >>> first = trials.take("")
        >>> trials.put_back(first, "")
        >>> trials.take(""), trials.take(""), trials.take("") is NOTHING
        ('a', 'b', True)
    """

    def __init__(self, trials: Iterable[Any]) -> None:
        self._trials = iter(trials)

    def take(self, node: str) -> Any:
        """Return the next trial."""
        return next(self._trials, NOTHING)

    def put_back(self, trial: Any, node: str) -> None:
        """Put a trial before all others."""
        self._trials = itertools.chain([trial], self._trials)


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
        return
    pool = Pool(InOrder(waiting), listener)
    for index in range(len(first)):
        pool.add(make_executor(index))
    pool.run()


def _run_in_order(trials: Iterator[Any], executor: Executor, listener: Listener) -> None:
    try:
        for trial in trials:
            listener.started(trial)
            record = executor.run(trial, functools.partial(listener.progressed, trial))
            listener.finished(trial, record)
    finally:
        executor.close()


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A trial that has ended. Its executor waits for the event."""

    trial: Any
    record: Record
    dealt_with: threading.Event


_Call = Callable[[], None] | _Ended


class Pool:
    """Executors with a thread each. All calls of the listener go through one queue, to the thread that calls `run`.

    An executor that raises ExecutorLostError leaves. Its trial goes back to the source, `most_losses` times at most.
    An executor that has a method `prepare` is asked to get ready before it takes a trial.

    Args:
        source: the trials.
        listener: receives starts, progress and records. Of executors on other machines: a ClusterListener. Where it has
            a method `finished_all(pairs)`, that gets the trials and records of all that have ended since the last
            call, so that many executors wait for the disk together.
        on_tick: called every second in the calling thread. It may add executors, and raise. With it, the pool waits for
            executors while there are trials and none to run them.
        most_losses: how often a trial may be lost before it is given up. It then has no record.

    Attributes:
        given_up: trials that were lost too often.
    """

    def __init__(
        self,
        source: Source,
        listener: Listener,
        *,
        on_tick: Callable[[], None] | None = None,
        most_losses: int = 0,
    ) -> None:
        self._source, self._listener = source, listener
        self._on_tick, self._most_losses = on_tick, most_losses
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads: dict[threading.Thread, Executor] = {}
        self._running = False
        self._at_work = 0
        self._in_flight = 0
        self._drained = False
        self._losses: dict[Any, list[ExecutorLostError]] = {}
        self.given_up: list[Any] = []

    def add(self, executor: Executor, node: str = "", on_leave: OnLeave | None = None) -> None:
        """Let an executor join. Call it before `run`, or in the thread that called it.

        Args:
            executor: closed when it leaves.
            node: where it runs.
            on_leave: called in the thread that runs the pool when the executor has left, with its loss if any.
        """
        thread = threading.Thread(target=self._work, args=(executor, node, on_leave))
        self._threads[thread] = executor
        self._at_work += 1
        if self._running:
            thread.start()

    @property
    def is_done(self) -> bool:
        """Whether no trial waits or runs."""
        with self._changed:
            return self._drained and self._in_flight == 0

    def run(self) -> None:
        """Run until every trial has ended or was given up, or until an exception stops all."""
        self._running = True
        try:
            for thread in list(self._threads):
                thread.start()
            ticked_s = time.monotonic()
            while self._at_work or (self._on_tick is not None and not self.is_done):
                with contextlib.suppress(queue.Empty):
                    first = self._calls.get(timeout=None if self._on_tick is None else _TICK_S)
                    self._handle(first)
                if self._on_tick is not None and time.monotonic() - ticked_s >= _TICK_S:
                    self._on_tick()
                    ticked_s = time.monotonic()
        finally:
            with interrupts_deferred():
                self._stop()

    def _handle(self, first: _Call) -> None:
        """Handle a call and those that have come meanwhile. Records among them are handled last, and together."""
        calls = [first]
        with contextlib.suppress(queue.Empty):
            while len(calls) < _MOST_TOGETHER:
                calls.append(self._calls.get_nowait())
        ended = [call for call in calls if isinstance(call, _Ended)]
        try:
            for call in calls:
                if not isinstance(call, _Ended):
                    call()
        finally:
            if ended:
                self._finish(ended)

    def _finish(self, ended: Sequence[_Ended]) -> None:
        """Give records to the listener, and let their executors go on."""
        together = getattr(self._listener, "finished_all", None)
        if together is not None:
            together([(each.trial, each.record) for each in ended])
        else:
            for each in ended:
                self._listener.finished(each.trial, each.record)
        for each in ended:
            each.dealt_with.set()

    def _stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for executor in self._threads.values():
            executor.cancel()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self, executor: Executor, node: str, on_leave: OnLeave | None) -> None:
        """Take trials until there are none. Runs in the executor's thread."""
        loss: ExecutorLostError | None = None
        try:
            try:
                self._run_all(executor, node)
            except ExecutorLostError as lost:
                loss = lost
            finally:
                executor.close()
        except BaseException as error:
            self._calls.put(functools.partial(_raise, error))
        finally:
            thread = threading.current_thread()
            self._calls.put(functools.partial(self._leave, thread, on_leave, loss))

    def _run_all(self, executor: Executor, node: str) -> None:
        prepare = getattr(executor, "prepare", None)
        if prepare is not None:
            prepare()
        while not self._stopping.is_set():
            trial = self._take(node)
            if trial is NOTHING:
                return
            self._run_one(executor, node, trial)

    def _take(self, node: str) -> Any:
        """Return the next trial. Where one that runs may still be put back, wait for that."""
        with self._changed:
            while (trial := self._source.take(node)) is NOTHING or trial is LATER:
                ended = trial is NOTHING and (self._in_flight == 0 or self._most_losses == 0)
                if ended or self._stopping.is_set():
                    self._drained = True
                    return NOTHING
                self._changed.wait(_POLL_S)
            self._in_flight += 1
            return trial

    def _run_one(self, executor: Executor, node: str, trial: Any) -> None:
        """Run one trial and wait until the listener has dealt with its record."""

        def on_progress(progress: Progress) -> None:
            self._calls.put(functools.partial(self._listener.progressed, trial, progress))

        self._calls.put(functools.partial(self._listener.started, trial))
        try:
            try:
                record = executor.run(trial, on_progress)
            except ExecutorLostError as loss:
                if not self._stopping.is_set():
                    self._take_back(trial, node, loss)
                raise
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()
        if self._stopping.is_set():
            return
        dealt_with = threading.Event()
        self._calls.put(_Ended(trial, self._with_attempts(trial, record), dealt_with))
        while not dealt_with.wait(_POLL_S) and not self._stopping.is_set():
            continue

    def _take_back(self, trial: Any, node: str, loss: ExecutorLostError) -> None:
        """Put a trial back whose executor is gone, or give it up."""
        with self._changed:
            losses = self._losses.setdefault(_key(trial), [])
            if loss.started:
                losses.append(loss)
            again = len(losses) <= self._most_losses
            if again:
                self._drained = False
                self._source.put_back(trial, node)
            else:
                self.given_up.append(trial)
        lost = getattr(self._listener, "lost", None)
        if lost is not None and loss.started:
            self._calls.put(functools.partial(lost, trial, loss, len(losses), again))

    def _with_attempts(self, trial: Any, record: Record) -> Record:
        """Return a record that says where its trial was lost before."""
        losses = self._losses.pop(_key(trial), None)
        if not losses:
            return record
        attempts = [loss.as_dict() for loss in losses]
        return dataclasses.replace(record, provenance={**record.provenance, "attempts": attempts})

    def _leave(
        self, thread: threading.Thread, on_leave: OnLeave | None, loss: ExecutorLostError | None
    ) -> None:
        """Count one executor as gone. Runs in the calling thread."""
        self._at_work -= 1
        self._threads.pop(thread, None)
        if on_leave is not None:
            on_leave(loss)


def _key(trial: Any) -> Any:
    """Return what a trial is known by."""
    return getattr(trial, "id", trial)


def _raise(error: BaseException) -> None:
    """Raise an executor's exception in the calling thread."""
    raise error
