"""A trial on several devices: processes that share it, started by torch's launcher inside the worker, and their end."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fusetune.bench.machine import oom_kill_count
from fusetune.bench.results import Record
from fusetune.bench.run.rank_process import RankJob, Whereabouts, run_rank
from fusetune.bench.spec import Trial
from fusetune.bench.workers import (
    OnProgress,
    WorkerContext,
    WorkerSetup,
    classify_text,
    describe_exit,
    limit_lifted,
    record_without_result,
    with_tail,
)

TRAIN_ON_RANKS = "fusetune.bench.run.trial:train_on_ranks"
# How often the launcher looks for processes that have ended.
_LOOK_EVERY_S = 0.1
# A process that does not answer in this time hangs in code that lets no other thread of it run, or is stopped.
_ANSWER_S = 3.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_on_ranks(
    trial: Trial,
    context: WorkerContext,
    on_progress: OnProgress,
    *,
    start_s: float,
    give_up_s: float | None,
    run_rank_of: str = TRAIN_ON_RANKS,
) -> Record:
    """Train one trial in `train.devices` processes. Their end, whichever it is, is one record.

    Args:
        trial: with its source filled in.
        context: the worker's. `limits.memory` holds for each process, threads and a container's memory are shared.
        on_progress: takes the first process's progress.
        start_s: seconds in which all processes must have found each other.
        give_up_s: seconds after that in which they must have trained. Else it is said which one hangs, and all are
            killed. None: no such limit.
        run_rank_of: `package.module:function` that each process calls, as `bench.run.trial.train_on_ranks`.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    started_s = time.perf_counter()
    devices = trial.spec.train.devices
    on_progress({"phase": f"starting {devices} processes"})
    kills = oom_kill_count()
    setup = _setup_of_rank(trial, context, run_rank_of)
    shared = dataclasses.replace(trial, threads=setup.threads)
    pipes = [multiprocessing.get_context("spawn").Pipe() for _ in range(devices)]
    with (
        TemporaryDirectory(prefix="bench-ranks-") as logs,
        _Watch(
            {rank: ours for rank, (ours, _) in enumerate(pipes)}, on_progress, start_s, give_up_s
        ) as watch,
    ):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=f"trial-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=_LOOK_EVERY_S,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(logs, redirects=Std.ALL, tee=Std.ALL),
        )
        theirs = {rank: link for rank, (_, link) in enumerate(pipes)}
        failures: dict[int, Any] = {}
        try:
            with limit_lifted(), _signals_put_back():
                elastic_launch(config, run_rank)(theirs, RankJob(shared, setup, started_s))
        except ChildFailedError as error:
            failures = dict(error.failures)
        finally:
            for link in theirs.values():
                link.close()
        watch.finish()
        printed = {rank: _printed(Path(logs), rank) for rank in failures}
    if not failures and 0 in watch.records:
        record = watch.records[0]
        # The threads of all processes, which trials on any number of devices have alike.
        return dataclasses.replace(
            record, provenance={**record.provenance, "threads": torch.get_num_threads()}
        )
    return _record_of_failure(trial, context, watch, failures, printed, kills)


def _setup_of_rank(trial: Trial, context: WorkerContext, run_rank_of: str) -> WorkerSetup:
    """Return how each process begins: with its share of the worker's threads, and the worker's limit."""
    devices = trial.spec.train.devices
    memory = context.memory
    own = memory.source not in ("container", "shell")
    return WorkerSetup(
        run_rank_of,
        device=context.device,
        limit_bytes=memory.limit_bytes if own else None,
        limit_source=memory.source or "spec",
        threads=max(1, torch.get_num_threads() // devices),
        jobs=context.jobs * devices,
        libraries=tuple(sorted(trial.source.libraries)) if trial.source else (),
    )


def _record_of_failure(
    trial: Trial,
    context: WorkerContext,
    watch: _Watch,
    failures: dict[int, Any],
    printed: dict[int, str],
    kills: int | None,
) -> Record:
    """Say which process ended the trial, and why: the one that hung, failed by itself or died, in this order."""
    devices = trial.spec.train.devices
    if watch.hung is not None:
        rank, reason = watch.hung
        return record_without_result(trial, "failed", f"rank {rank} of {devices} {reason}")
    if watch.records:
        rank, record = next(iter(watch.records.items()))
        return dataclasses.replace(record, reason=f"rank {rank} of {devices}: {record.reason}")
    died = [rank for rank in failures if rank not in watch.lost]
    if not died:
        rank = next(iter(watch.lost), 0)
        reason = watch.lost.get(rank, "it ended without a word")
        return record_without_result(trial, "failed", f"rank {rank} of {devices} lost the others: {reason}")
    rank = died[0]
    code, text = failures[rank].exitcode, printed[rank]
    now = oom_kill_count()
    shortage = None
    if code == -signal.SIGABRT and context.memory.enforced:
        shortage = classify_text(text, context.memory, 0)
    if shortage is not None:
        return record_without_result(
            trial, "out_of_memory", f"rank {rank} of {devices}: {shortage.sentence}", shortage.values
        )
    if code == -signal.SIGKILL and kills is not None and now is not None and now > kills:
        reason = f"rank {rank} of {devices}: the kernel killed it for memory"
        return record_without_result(trial, "out_of_memory", reason)
    how = describe_exit(code).removeprefix("the worker ")
    return record_without_result(trial, "failed", with_tail(f"rank {rank} of {devices} {how}", text))


def _printed(logs: Path, rank: int) -> str:
    """Return the end of what a process wrote to its standard error."""
    for path in sorted(logs.glob(f"*/attempt_0/{rank}/stderr.log")):
        with contextlib.suppress(OSError):
            return path.read_bytes()[-(2**16) :].decode("utf-8", "replace")
    return ""


@contextlib.contextmanager
def _signals_put_back() -> Iterator[None]:
    """Put back the handlers of signals and the variables that the launcher sets."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    variables = dict(os.environ)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update(variables)


@dataclass
class _Watch:
    """Listens to the processes in a thread of its own, and asks them where they are when they are given up.

    Attributes:
        records: rank -> how the trial ended there, in the order in which they arrived.
        lost: rank -> what it said of another process that it lost.
        hung: the process that hangs, and how that shows.
    """

    links: dict[int, multiprocessing.connection.Connection]
    on_progress: OnProgress
    start_s: float
    give_up_s: float | None
    records: dict[int, Record] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    hung: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        self._process_ids: dict[int, int] = {}
        self._joined: set[int] = set()
        self._answers: dict[int, Whereabouts] = {}
        self._open = dict(self.links)
        self._asked_s: float | None = None
        self._stuck = False
        self._ending, self._end = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="bench-ranks", daemon=True)

    def __enter__(self) -> _Watch:
        self._deadline_s: float | None = time.monotonic() + self.start_s
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        for link in self.links.values():
            link.close()
        os.close(self._ending)

    def finish(self) -> None:
        """Read what is left, and stop listening. All processes have ended."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
            self._thread.join()

    def _listen(self) -> None:
        ending = False
        while True:
            waited_for: list[Any] = [*self._open.values(), *([] if ending else [self._ending])]
            ready = multiprocessing.connection.wait(waited_for, 0.0 if ending else self._wait_s())
            for rank, link in list(self._open.items()):
                if link in ready:
                    self._take(rank, link)
            if ending and not ready:
                return
            ending = ending or self._ending in ready
            if not ending:
                self._ask_or_judge()

    def _wait_s(self) -> float | None:
        """Return how long to wait for a message."""
        if self._asked_s is not None:
            return 0.1
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    def _take(self, rank: int, link: multiprocessing.connection.Connection) -> None:
        """Read a message of a process."""
        try:
            kind, content = link.recv()
        except (EOFError, OSError):
            del self._open[rank]
            return
        if kind == "started":
            self._process_ids[rank] = content
        elif kind == "joined":
            self._joined.add(rank)
            if len(self._joined) == len(self.links):
                self._deadline_s = None if self.give_up_s is None else time.monotonic() + self.give_up_s
        elif kind == "progress":
            self.on_progress(content)
        elif kind == "record":
            self.records[rank] = Record.from_dict(content)
        elif kind == "where":
            self._answers[rank] = content
        else:
            self.lost[rank] = Record.from_dict(content).reason
            self._stuck = self._stuck or kind == "stuck"

    def _ask_or_judge(self) -> None:
        """Ask the processes where they are once it is time, and kill them when they have answered or will not."""
        now_s = time.monotonic()
        if self._asked_s is None:
            if self._stuck or (self._deadline_s is not None and now_s >= self._deadline_s):
                self._asked_s = now_s
                for link in self._open.values():
                    with contextlib.suppress(OSError):
                        link.send("where?")
        elif self.hung is None and (
            len(self._answers) >= len(self._open) or now_s - self._asked_s > _ANSWER_S
        ):
            self.hung = judge(self.links, self._answers, lost=self.lost)
            for process_id in self._process_ids.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)


def judge(
    ranks: Iterable[int], answers: Mapping[int, Whereabouts], *, lost: Container[int]
) -> tuple[int, str]:
    """Return the process that the others wait for, and what shows it.

    Args:
        ranks: of the trial.
        answers: rank -> where it says that it is.
        lost: ranks that have said that they lost another one.
    """
    silent = [rank for rank in ranks if rank not in answers and rank not in lost]
    if silent:
        return silent[
            0
        ], "hung: it answered no question, so it is stopped, or in code that holds Python's lock"
    if not answers:
        return 0, "waited in vain, as all others did"
    counted = {rank: answer.operations or 0 for rank, answer in answers.items()}
    fewest, most = min(counted.values()), max(counted.values())
    # Of processes that have come equally far, the one that waits for no other holds up the rest.
    candidates = [rank for rank in counted if counted[rank] == fewest]
    rank = next((rank for rank in candidates if not answers[rank].waits), candidates[0])
    evidence = f"; it had entered {fewest} collective operations, another {most}" if fewest < most else ""
    return rank, f"hung at {answers[rank].place}{evidence}"
