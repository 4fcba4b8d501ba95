"""What a worker starts, however it hides, ends with the worker and with the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.results.records import Record
from fusetune.bench.workers.executors import WorkerExecutor
from fusetune.bench.workers.guard import descendants, kill_descendants
from fusetune.bench.workers.worker import OnProgress, WorkerContext, WorkerSetup
from tests.bench.workers.test_executors import FakeTrial, ignore, is_alive, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has processes that adopt others")

SLEEPER = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"


def plain_child() -> int:
    """Start a program that ignores requests to end."""
    return subprocess.Popen([sys.executable, "-c", SLEEPER]).pid


def child_in_a_session() -> int:
    """Start one that has left its session and process group, without an environment."""
    return subprocess.Popen(
        [sys.executable, "-c", SLEEPER], start_new_session=True, env={}, close_fds=False
    ).pid


def daemon() -> int:
    """Fork twice, so that the parent is gone, as a daemon does."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        child = os.fork()
        if child == 0:
            time.sleep(600)
        os.write(writing, str(child).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 100))


def quiet_fork() -> int:
    """Fork a process that holds all that the worker holds."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
    return child


STARTS: dict[str, Callable[[], int]] = {
    function.__name__: function for function in (plain_child, child_in_a_session, daemon, quiet_fork)
}


def act(trial: FakeTrial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Start one process of each kind, tell their ids, and end as the trial says."""
    on_progress({"started": [start() for start in STARTS.values()]})
    if trial.id == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if trial.id == "leave":
        os._exit(0)
    if trial.id == "hang":
        time.sleep(600)
    return Record(trial.id, {}, 0, "ok")


SETUP = WorkerSetup(f"{__name__}:act")


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[WorkerExecutor]:
    made = WorkerExecutor(SETUP, log=tmp_path / "worker.log", hard_timeout_s=60)
    yield made
    made.close()


def start(executor: WorkerExecutor, name: str) -> tuple[Record, list[int]]:
    """Run a trial and return its record and the processes that it has started."""
    heard: list[dict[str, Any]] = []
    record = executor.run(FakeTrial(name), heard.append)
    return record, heard[0]["started"]


@pytest.mark.parametrize(("name", "told"), [("die", "SIGSEGV"), ("leave", "code 0")])
def test_what_a_worker_has_started_ends_with_it(executor: WorkerExecutor, name: str, told: str) -> None:
    record, started = start(executor, name)
    assert told in record.reason
    assert len(started) == len(STARTS)
    assert [process for process in started if is_alive(process)] == []


def test_what_a_worker_has_started_ends_when_the_worker_is_closed(executor: WorkerExecutor) -> None:
    _, started = start(executor, "stay")
    executor.close()
    assert [process for process in started if is_alive(process)] == []


def test_a_killed_guard_takes_the_worker_with_it(executor: WorkerExecutor) -> None:
    executor.run(FakeTrial("stay"), ignore)
    worker = executor.process_id
    assert worker is not None
    guard = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert guard != os.getpid()
    os.kill(guard, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(worker))
    for process in descendants_of_nobody():
        os.kill(process, signal.SIGKILL)


def descendants_of_nobody() -> list[int]:
    """Return sleepers that the test before has left, whose guard was killed."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if SLEEPER.encode() in (entry / "cmdline").read_bytes() and is_alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


# Under nohup, processes ignore SIGHUP from their start.
PARENT = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from fusetune.bench.workers.executors import WorkerExecutor
from tests.bench.workers.test_guard import SETUP
from tests.bench.workers.test_executors import FakeTrial
executor = WorkerExecutor(SETUP)

def tell(news):
    print(executor.process_id, *news["started"], flush=True)

executor.run(FakeTrial("hang"), tell)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_nothing_behind(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        started = [int(word) for word in run.stdout.readline().split()]
        assert len(started) == 1 + len(STARTS)
        assert all(map(is_alive, started))
        run.send_signal(number)
        run.wait()
        assert wait_until(lambda: not any(map(is_alive, started)))


def test_descendants_are_those_of_the_tree_and_no_others() -> None:
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SLEEPER!r}])"
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        assert wait_until(lambda: len(descendants(child.pid)) == 1)
        (grandchild,) = descendants(child.pid)
        assert {child.pid, grandchild} <= descendants(os.getpid())
        assert os.getpid() not in descendants(os.getpid())
        assert kill_descendants(child.pid) == {grandchild}
        assert not is_alive(grandchild)
