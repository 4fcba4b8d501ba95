"""One of the processes that share a trial: started by torch's launcher, from a worker, and never trusted to survive.

It tells the worker what it does over a pipe of its own: `started` with its process id, `joined` once all have met,
`progress`, and `record` with how the trial ended. An error that another process caused is `lost`, or `stuck` where it
waits in vain. `where` is the answer to the worker's question.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from fusetune.bench.results import Record
from fusetune.bench.spec import Trial
from fusetune.bench.workers import (
    OnProgress,
    WorkerContext,
    WorkerSetup,
    attempt,
    describe_exception,
    is_library,
    make_context,
    named_function,
    record_without_result,
)

# A process that lost another one waits so long, for the worker is to see first which one ended by itself.
_AFTER_LOSS_S = 1.0
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class RankJob:
    """What each process is told.

    Args:
        trial: to be trained.
        setup: of its device, memory limit and threads, as for a worker. Its `run_trial` has `started_s` as well.
        started_s: when the trial began, by `time.perf_counter`.
    """

    trial: Trial
    setup: WorkerSetup
    started_s: float


@dataclass(frozen=True)
class Whereabouts:
    """What a process answers when asked what it does.

    Args:
        operations: collective operations that it has entered. None: not known.
        place: innermost line outside of libraries, of the thread that trains.
        waits: whether that thread is in the code of torch that waits for other processes.
    """

    operations: int | None
    place: str
    waits: bool


def run_rank(links: Mapping[int, Connection], job: RankJob) -> None:
    """Train a process's share of a trial. The entry of each process, whose number the environment has (RANK)."""
    rank = int(os.environ["RANK"])
    for other, connection in links.items():
        if other != rank:
            connection.close()
    faulthandler.enable(all_threads=False)
    link = _Link(links[rank])
    link.send("started", os.getpid())
    threading.Thread(target=_answer, args=(link, threading.get_ident()), daemon=True).start()
    lost: list[str] = []
    try:
        _join_and_train(link, job, lost)
    except Exception as error:  # whatever keeps the processes from meeting
        traceback.print_exc()
        lost += _said_of_others(error)
        failed = record_without_result(job.trial, "failed", describe_exception(error))
        _end(link, lost[0] if lost else "record", failed)


def _join_and_train(link: _Link, job: RankJob, lost: list[str]) -> None:
    """Join the others and train. `lost` takes what an error says of them."""
    from fusetune.tuner.parallel import joined, warm_up

    train = named_function(job.setup.run_trial)

    def noting(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
        try:
            record: Record = train(trial, context, on_progress, started_s=job.started_s)
        except Exception as error:  # the trial
            lost.extend(_said_of_others(error))
            raise
        return record

    with joined(job.setup.device):
        link.send("joined", None)
        # What a first exchange loads and maps belongs to the footprint, from which the memory limit counts.
        warm_up(job.setup.device, job.trial.spec.train.parallel)
        context = make_context(job.setup)
        record = attempt(noting, job.trial, context, partial(link.send, "progress"))
        if record.outcome is None:  # it raised an error, and leaving the group would wait for the others
            _end(link, lost[0] if lost else "record", record)
    if os.environ["RANK"] == "0":
        link.send("record", record.as_dict())


def _said_of_others(error: Exception) -> list[str]:
    """Return `stuck` or `lost` where an error says that another process is late or has ended."""
    from fusetune.tuner.parallel import reports_lost_peer, reports_timeout

    return ["stuck"] if reports_timeout(error) else ["lost"] if reports_lost_peer(error) else []


class _Link:
    """Sends to the worker, from any thread, and receives its question."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._one_at_a_time = threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        """Send what is of a kind."""
        with self._one_at_a_time:
            self._connection.send((kind, content))

    def wait_for_question(self) -> bool:
        """Wait until the worker asks. False: it has gone."""
        try:
            self._connection.recv()
        except (EOFError, OSError):
            return False
        return True


def _answer(link: _Link, trains: int) -> None:
    """Answer the worker's questions. Runs in a thread of its own."""
    while link.wait_for_question():
        link.send("where", _whereabouts(trains))


def _whereabouts(trains: int) -> Whereabouts:
    """Say where the thread that trains is."""
    operations = None
    parallel = sys.modules.get("fusetune.tuner.parallel")
    if parallel is not None:
        operations = parallel.operations_entered()
    frame = sys._current_frames().get(trains)
    stack = traceback.extract_stack(frame) if frame is not None else traceback.StackSummary()
    own = [each for each in stack if not is_library(each.filename)]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else "an unknown place"
    return Whereabouts(operations, place, bool(stack) and f"{os.sep}torch{os.sep}" in stack[-1].filename)


def _end(link: _Link, kind: str, record: Record) -> NoReturn:
    """Say how the trial ended here, and end this process as a failed one. The launcher then ends the others."""
    link.send(kind, record.as_dict())
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep({"record": 0.0, "lost": _AFTER_LOSS_S}.get(kind, _LONGEST_WAIT_S))
    os._exit(1)
