"""Workers are really killed here, in every way a worker can die; the run has to go on."""

from __future__ import annotations

import atexit
import ctypes
import gc
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.results.outcomes import WorkerEvents
from fusetune.bench.results.records import Record
from fusetune.bench.workers.executors import (
    Executor,
    InProcessExecutor,
    WorkerExecutor,
)
from fusetune.bench.workers.messages import Message, encode
from fusetune.bench.workers.pool import run_all
from fusetune.bench.workers.worker import OnProgress, WorkerContext, WorkerSetup
from fusetune.bench.workers.worker_process import WorkerLostError, WorkerProcess

MIB = 2**20
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class FakeTrial:
    """A trial that does what its factor `act` names."""

    id: str
    factors: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def act(trial: FakeTrial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Do what the trial says; the worker's run_trial in these tests."""
    name = trial.factors.get("act", "succeed")
    values = ACTS[name](context, on_progress) if name in ACTS else {}
    return Record(trial.id, trial.factors, trial.seed, "ok", values=values or {})


def report_process(context: WorkerContext, on_progress: OnProgress) -> dict[str, float]:
    """Say which process this is and how many trials its cache has seen."""
    context.cache["trials"] = context.cache.get("trials", 0) + 1
    return {"process": os.getpid(), "trials": context.cache["trials"]}


def write_at_exit(context: WorkerContext, on_progress: OnProgress) -> None:
    """Register what a library does at the end of a process."""
    atexit.register(Path("left.txt").write_text, "by itself")


def report_progress(context: WorkerContext, on_progress: OnProgress) -> None:
    """Send news three times."""
    for epoch in range(3):
        on_progress({"epoch": epoch})


def kill_myself(context: WorkerContext, on_progress: OnProgress) -> None:
    """Die as the kernel's out-of-memory killer would have it, holding 100 MiB."""
    block = b"x" * (100 * MIB)
    on_progress({"held": len(block)})
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def abort_over_bad_alloc(context: WorkerContext, on_progress: OnProgress) -> None:
    """Die as a C++ thread that cannot allocate does."""
    os.write(
        2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    )
    os.abort()


def segfault(context: WorkerContext, on_progress: OnProgress) -> None:
    """Read address 0."""
    ctypes.string_at(0)


def print_and_exit(context: WorkerContext, on_progress: OnProgress) -> None:
    """Print through Python and through the C level, and leave."""
    print("printed by Python")
    os.system("echo printed by a child")
    sys.exit(3)


def print_bad_alloc_and_exit(context: WorkerContext, on_progress: OnProgress) -> None:
    """Print what a C++ thread would that cannot allocate, and leave."""
    print("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc")
    sys.exit(1)


def close_every_descriptor(context: WorkerContext, on_progress: OnProgress) -> None:
    """Close what was not opened here, as a daemon does, and stay."""
    os.closerange(3, 256)
    time.sleep(1000)


def own_connection() -> Connection:
    """Find the worker's connection, as code that looks for it can."""
    found = [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, Connection) and thing.writable and thing.readable
    ]
    (connection,) = [each for each in found if not each.closed]
    return connection


def write_into_the_connection(context: WorkerContext, on_progress: OnProgress) -> None:
    """Send a pickle that would call something."""
    own_connection().send(os.getcwd)
    time.sleep(1000)


def forge_a_message(context: WorkerContext, on_progress: OnProgress) -> None:
    """Send a record and news with a mark of one's own."""
    for kind in ("record", "progress"):
        own_connection().send_bytes(encode(Message("0123456789abcdef", kind, {})))


def fork_and_return(context: WorkerContext, on_progress: OnProgress) -> dict[str, float]:
    """Fork by way of C too, where nobody is told, and let all of them go on as if they were the worker."""
    worker = os.getpid()
    children = [
        pid for fork in (os.fork, ctypes.CDLL(None).fork) if os.getpid() == worker and (pid := fork())
    ]
    on_progress({"from": os.getpid()})
    for child in children:
        os.waitpid(child, 0)
    return {"is_worker": float(os.getpid() == worker)}


def leave_a_talking_thread(context: WorkerContext, on_progress: OnProgress) -> None:
    """Leave a library's thread behind, which costs no worker, to tell news of this trial when the next one runs."""
    context.cache["next"], context.cache["told"] = threading.Event(), threading.Event()

    def talk() -> None:
        context.cache["next"].wait()
        on_progress({"of": "the trial before"})
        context.cache["told"].set()

    context.cache["pool"] = ThreadPoolExecutor(1)
    context.cache["pool"].submit(talk)


def wait_for_the_thread(context: WorkerContext, on_progress: OnProgress) -> None:
    """Let the thread of the trial before talk."""
    context.cache["next"].set()
    assert context.cache["told"].wait(30)


def leave_quietly(context: WorkerContext, on_progress: OnProgress) -> None:
    """Leave as if all were well."""
    os._exit(0)


def raise_error(context: WorkerContext, on_progress: OnProgress) -> None:
    """Raise from inside a library's frame."""
    import json

    json.loads("{not json")


def raise_input_error(context: WorkerContext, on_progress: OnProgress) -> None:
    """Raise one of the suite's own errors."""
    raise InputError("data.npz: x_train", "missing", "known: y_train", "Add it")


def hang(context: WorkerContext, on_progress: OnProgress) -> None:
    """Ignore everything, for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    while True:
        time.sleep(1000)


def allocate(context: WorkerContext, on_progress: OnProgress) -> None:
    """Take 512 MiB."""
    import torch

    torch.empty(512 * MIB, dtype=torch.uint8)


def interrupt_myself(context: WorkerContext, on_progress: OnProgress) -> dict[str, float]:
    """Get the Ctrl-C that a terminal sends to the whole group."""
    os.kill(os.getpid(), signal.SIGINT)
    return {"survived": 1}


ACTS: dict[str, Callable[[WorkerContext, OnProgress], dict[str, float] | None]] = {
    function.__name__: function
    for function in (
        report_process,
        report_progress,
        write_at_exit,
        kill_myself,
        abort_over_bad_alloc,
        segfault,
        print_and_exit,
        print_bad_alloc_and_exit,
        close_every_descriptor,
        write_into_the_connection,
        forge_a_message,
        fork_and_return,
        leave_a_talking_thread,
        wait_for_the_thread,
        leave_quietly,
        raise_error,
        raise_input_error,
        hang,
        allocate,
        interrupt_myself,
    )
}

SETUP = WorkerSetup(f"{__name__}:act")


def trial_to(name: str) -> FakeTrial:
    """Make a trial that does `name`."""
    return FakeTrial(name, {"act": name}, seed=7)


def ignore(progress: dict[str, Any]) -> None:
    """Drop progress."""


def is_alive(process_id: int) -> bool:
    """Tell whether a process runs; one that has ended and not been waited for does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
    """Wait for a condition; False if it does not come about."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[WorkerExecutor]:
    """An executor whose worker does what trials say."""
    made = WorkerExecutor(SETUP, log=tmp_path / "worker.log", hard_timeout_s=60)
    yield made
    made.close()


def test_the_worker_is_another_process_and_survives_trials_with_its_cache(executor: WorkerExecutor) -> None:
    first = executor.run(trial_to("report_process"), ignore)
    second = executor.run(trial_to("report_process"), ignore)
    assert first.values["process"] == second.values["process"] == executor.process_id != os.getpid()
    assert [first.values["trials"], second.values["trials"]] == [1, 2]


def test_progress_arrives_in_order_before_the_record(executor: WorkerExecutor) -> None:
    heard: list[dict[str, Any]] = []
    record = executor.run(trial_to("report_progress"), heard.append)
    assert record.status == "ok"
    assert heard == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("kill_myself", "failed", ["killed by SIGKILL", "so who sent it is not known"]),
        ("abort_over_bad_alloc", "failed", ["SIGABRT", "std::bad_alloc"]),
        ("print_bad_alloc_and_exit", "failed", ["exited with code 1; its last lines: ", "std::bad_alloc"]),
        ("close_every_descriptor", "failed", ["the trial closed the worker's connection"]),
        ("write_into_the_connection", "failed", ["is no message of its own"]),
        ("segfault", "failed", ["SIGSEGV", "Segmentation fault", "ctypes"]),
        ("print_and_exit", "failed", ["code 3", "printed by Python", "printed by a child"]),
        ("leave_quietly", "failed", ["code 0"]),
    ],
)
def test_a_dead_worker_is_one_record_and_the_next_trial_runs(
    executor: WorkerExecutor, name: str, status: str, told: list[str]
) -> None:
    executor.run(trial_to("report_process"), ignore)
    first_worker = executor.process_id
    record = executor.run(trial_to(name), ignore)
    assert (record.trial, record.factors, record.seed) == (name, {"act": name}, 7)
    assert record.status == status
    assert [text for text in told if text not in record.reason] == []
    assert "\n" not in record.reason
    after = executor.run(trial_to("report_process"), ignore)
    assert after.status == "ok"
    assert after.values["trials"] == 1
    assert executor.process_id != first_worker


@pytest.mark.skipif(not LINUX, reason="resident memory is read from /proc")
def test_a_worker_that_the_kernel_has_counted_wanted_at_least_what_it_was_last_seen_to_hold(
    executor: WorkerExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr("fusetune.bench.workers.executors.oom_kill_count", lambda: next(counts))
    record = executor.run(trial_to("kill_myself"), ignore)
    assert record.status == "out_of_memory"
    assert "its count of kills for memory rose from 3 to 4" in record.reason
    assert 90 * MIB <= record.values["wanted_bytes"] <= 200 * MIB


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (7, "has killed none for memory meanwhile (its count is 7)"),
        (None, "does not say how many it has killed"),
    ],
)
def test_a_kill_that_nobody_has_counted_is_a_failure(
    executor: WorkerExecutor, monkeypatch: pytest.MonkeyPatch, count: int | None, told: str
) -> None:
    monkeypatch.setattr("fusetune.bench.workers.executors.oom_kill_count", lambda: count)
    record = executor.run(trial_to("kill_myself"), ignore)
    assert record.status == "failed"
    assert told in record.reason
    assert record.worker == WorkerEvents(unexplained_kill=True)


@pytest.mark.skipif(not LINUX, reason="the address space is limited on Linux alone")
def test_an_abort_over_bad_alloc_under_a_limit_that_holds_is_out_of_memory(tmp_path: Path) -> None:
    setup = WorkerSetup(SETUP.run_trial, limit_bytes=256 * MIB, threads=1)
    executor = WorkerExecutor(setup, log=tmp_path / "worker.log")
    assert executor.run(trial_to("abort_over_bad_alloc"), ignore).status == "out_of_memory"
    assert executor.run(trial_to("print_bad_alloc_and_exit"), ignore).status == "failed"
    executor.close()


def test_a_fork_that_returns_from_the_trial_has_no_part_in_the_run(executor: WorkerExecutor) -> None:
    heard: list[dict[str, Any]] = []
    record = executor.run(trial_to("fork_and_return"), heard.append)
    assert record.values == {"is_worker": 1}
    assert heard == [{"from": executor.process_id}]
    after = [executor.run(trial_to("report_process"), ignore) for _ in range(3)]
    assert [one.values["trials"] for one in after] == [1, 2, 3]


def test_what_a_thread_tells_after_its_trial_is_not_taken_for_the_next_trials(
    executor: WorkerExecutor,
) -> None:
    executor.run(trial_to("leave_a_talking_thread"), ignore)
    heard: list[dict[str, Any]] = []
    record = executor.run(trial_to("wait_for_the_thread"), heard.append)
    assert record.status == "ok"
    assert heard == []


def test_a_message_with_another_mark_is_refused_and_noted(executor: WorkerExecutor, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    record = executor.run(trial_to("forge_a_message"), heard.append)
    assert record.status == "ok"
    assert heard == []
    assert "a message of another trial was refused" in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("raise_error", "JSONDecodeError: Expecting property name", "tests/bench/workers/test_executors.py:"),
        ("raise_input_error", "data.npz: x_train: missing; known: y_train. Add it", "Add it"),
    ],
)
def test_an_exception_fails_the_trial_and_the_worker_survives(
    executor: WorkerExecutor, name: str, start: str, end: str
) -> None:
    executor.run(trial_to("report_process"), ignore)
    record = executor.run(trial_to(name), ignore)
    assert record.status == "failed"
    assert record.reason.startswith(start)
    assert end in record.reason
    assert executor.run(trial_to("report_process"), ignore).values["trials"] == 2


def test_the_whole_traceback_and_everything_printed_stand_in_the_log(tmp_path: Path) -> None:
    executor = WorkerExecutor(SETUP, log=tmp_path / "worker.log")
    executor.run(trial_to("raise_error"), ignore)
    executor.run(trial_to("print_and_exit"), ignore)
    executor.close()
    text = (tmp_path / "worker.log").read_text()
    assert text.index("--- raise_error") < text.index("Traceback") < text.index("--- print_and_exit")
    assert "printed by a child" in text


def test_nothing_that_a_worker_prints_reaches_the_terminal(
    executor: WorkerExecutor, capfd: pytest.CaptureFixture[str]
) -> None:
    executor.run(trial_to("print_and_exit"), ignore)
    executor.run(trial_to("raise_error"), ignore)
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    executor = WorkerExecutor(SETUP, log=tmp_path / "worker.log", hard_timeout_s=0.5)
    record = executor.run(trial_to("hang"), ignore)
    assert record.status == "failed"
    assert "did not answer within 500 ms" in record.reason
    assert executor.process_id is None
    assert executor.run(trial_to("succeed"), ignore).status == "ok"
    executor.close()


@pytest.mark.skipif(not LINUX, reason="waits for the death without taking note of it, which needs waitid")
def test_a_worker_that_dies_between_trials_is_replaced(executor: WorkerExecutor) -> None:
    executor.run(trial_to("succeed"), ignore)
    worker = executor.process_id
    assert worker is not None
    guard = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, guard, os.WEXITED | os.WNOWAIT)
    assert executor.run(trial_to("report_process"), ignore).status == "ok"


def test_a_worker_that_cannot_start_fails_each_trial_with_the_reason(tmp_path: Path) -> None:
    executor = WorkerExecutor(WorkerSetup("no_such_module:run"), log=tmp_path / "worker.log")
    for _ in range(2):
        record = executor.run(trial_to("succeed"), ignore)
        assert record.status == "failed"
        assert "No module named 'no_such_module'" in record.reason
    executor.close()


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    executor = WorkerExecutor(SETUP, log=tmp_path / "missing" / "worker.log")
    with pytest.raises(RunDirectoryError, match=r"worker\.log"):
        executor.run(trial_to("succeed"), ignore)
    executor.close()


def test_factories_are_importable_from_the_given_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_spec.py").write_text(
        "from fusetune.bench.results.records import Record\n"
        "def run(trial, context, on_progress):\n"
        "    return Record(trial.id, {}, 0, 'ok', reason='from beside the spec')\n"
    )
    setup = WorkerSetup("beside_the_spec:run", import_paths=(str(tmp_path),))
    executor = WorkerExecutor(setup, log=tmp_path / "worker.log")
    assert executor.run(trial_to("succeed"), ignore).reason == "from beside the spec"
    executor.close()


def test_a_worker_that_ends_does_what_its_libraries_do_at_the_end(
    executor: WorkerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    executor.run(FakeTrial("a", {"act": "write_at_exit"}), ignore)
    executor.close()
    assert (tmp_path / "left.txt").read_text() == "by itself"


def test_close_leaves_no_process_behind(executor: WorkerExecutor) -> None:
    executor.run(trial_to("succeed"), ignore)
    worker = executor.process_id
    assert worker is not None
    executor.close()
    assert not is_alive(worker)


def test_an_exception_of_the_progress_listener_ends_the_worker_and_is_passed_on(
    executor: WorkerExecutor,
) -> None:
    def fail(progress: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.run(trial_to("report_progress"), fail)
    assert executor.process_id is None


def test_the_worker_ignores_an_interrupt_that_is_meant_for_the_run(executor: WorkerExecutor) -> None:
    assert executor.run(trial_to("interrupt_myself"), ignore).values == {"survived": 1}


@pytest.mark.skipif(not LINUX, reason="the address space is limited on Linux alone")
def test_a_trial_over_the_limit_is_out_of_memory_and_the_worker_replaced(tmp_path: Path) -> None:
    setup = WorkerSetup(SETUP.run_trial, limit_bytes=256 * MIB, threads=1)
    executor = WorkerExecutor(setup, log=tmp_path / "worker.log")
    record = executor.run(trial_to("allocate"), ignore)
    assert record.status == "out_of_memory"
    assert record.values["limit_bytes"] == 256 * MIB
    assert 512 * MIB <= record.values["wanted_bytes"] <= 544 * MIB
    assert record.reason.startswith("wanted 5")
    assert executor.process_id is None
    executor.close()


PARENT = """
import os, sys
from fusetune.bench.workers.executors import WorkerExecutor
from tests.bench.workers.test_executors import SETUP, trial_to
executor = WorkerExecutor(SETUP)
executor.run(trial_to("succeed"), print)
print(executor.process_id, flush=True)
executor.run(trial_to("hang"), print)
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A program, in a process group of its own, with a worker that hangs in its second trial; it prints its id."""
    program = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.kill()


def worker_of(parent: subprocess.Popen[str]) -> int:
    """Return the process id of the parent's worker."""
    assert parent.stdout is not None
    return int(parent.stdout.readline())


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_killed_parent_leaves_no_worker_behind(parent: subprocess.Popen[str]) -> None:
    worker = worker_of(parent)
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not is_alive(worker))


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_an_interrupt_of_the_whole_group_ends_parent_and_worker_at_once(
    parent: subprocess.Popen[str],
) -> None:
    worker = worker_of(parent)
    # As a terminal does it. A worker that took notice would print a second interrupt. The parent's own may have a
    # second traceback: that of an exception which was being handled just then.
    os.killpg(parent.pid, signal.SIGINT)
    _, printed = parent.communicate(timeout=30)
    assert printed.splitlines().count("KeyboardInterrupt") == 1
    assert printed.rstrip().endswith("KeyboardInterrupt")
    assert not is_alive(worker)


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_program_that_ends_without_closing_its_executor_does_not_wait_for_the_worker() -> None:
    program = PARENT.replace('executor.run(trial_to("hang"), print)', "")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert not is_alive(int(done.stdout))


def test_in_this_process_an_exception_is_a_record_too(capsys: pytest.CaptureFixture[str]) -> None:
    executor = InProcessExecutor(act)
    assert executor.run(trial_to("report_process"), ignore).values == {"process": os.getpid(), "trials": 1}
    record = executor.run(trial_to("raise_error"), ignore)
    assert record.status == "failed"
    assert record.reason.startswith("JSONDecodeError")
    executor.close()


class Diary:
    """Writes down what it hears, and in which thread."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.threads: set[int] = set()
        self.on_finished: Callable[[str], None] = lambda trial: None

    def write(self, entry: str) -> None:
        self.entries.append(entry)
        self.threads.add(threading.get_ident())

    def started(self, trial: str) -> None:
        self.write(f"start {trial}")

    def progressed(self, trial: str, progress: dict[str, Any]) -> None:
        self.write(f"progress {trial} {progress['step']}")

    def finished(self, trial: str, record: Record) -> None:
        self.write(f"finish {trial}")
        self.on_finished(trial)


class ScriptedExecutor:
    """Finishes a trial when the test says so, and writes what it does into a shared log."""

    def __init__(self, index: int, log: list[str], release: dict[str, threading.Event] | None = None) -> None:
        self._index = index
        self._log = log
        self._release = release or {}
        self._cancelled = threading.Event()

    def run(self, trial: str, on_progress: OnProgress) -> Record:
        self._log.append(f"run {trial}")
        on_progress({"step": 1})
        if trial in self._release:
            while not self._release[trial].wait(0.01) and not self._cancelled.is_set():
                pass
        if trial == "broken":
            raise RuntimeError("the executor itself is broken")
        return Record(trial, {}, self._index, "ok")

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self._log.append(f"close {self._index}")


def test_one_job_runs_in_order_and_in_this_thread() -> None:
    log: list[str] = []
    diary = Diary()
    diary.on_finished = lambda trial: log.append(f"recorded {trial}")
    run_all(["b", "a", "c"], lambda index: ScriptedExecutor(index, log), diary)
    assert log == ["run b", "recorded b", "run a", "recorded a", "run c", "recorded c", "close 0"]
    assert diary.entries[:3] == ["start b", "progress b 1", "finish b"]
    assert diary.threads == {threading.get_ident()}


def test_records_of_several_jobs_arrive_as_they_finish_and_in_this_thread() -> None:
    release = {name: threading.Event() for name in "abc"}
    diary = Diary()
    # `a` is held until `b` and `c` have gone through the second executor.
    diary.on_finished = lambda trial: release[{"b": "c", "c": "a", "a": "b"}[trial]].set()
    release["b"].set()
    run_all(["a", "b", "c"], lambda index: ScriptedExecutor(index, [], release), diary, jobs=2)
    assert [entry for entry in diary.entries if entry.startswith("finish")] == [
        "finish b",
        "finish c",
        "finish a",
    ]
    assert diary.threads == {threading.get_ident()}


def test_every_trial_runs_once_whatever_the_number_of_jobs() -> None:
    for jobs in (1, 2, 3, 16):
        log: list[str] = []
        diary = Diary()
        trials = [str(number) for number in range(10)]
        run_all(trials, lambda index, log=log: ScriptedExecutor(index, log), diary, jobs=jobs)  # type: ignore[misc]
        assert sorted(entry for entry in log if entry.startswith("run")) == sorted(f"run {t}" for t in trials)
        assert len([entry for entry in log if entry.startswith("close")]) == min(jobs, 10)


@pytest.mark.parametrize("jobs", [1, 2])
def test_trials_are_taken_one_by_one_from_an_endless_iterator(jobs: int) -> None:
    taken: list[str] = []
    log: list[str] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            if len(log) >= 20:
                return
            taken.append(str(number))
            yield str(number)

    run_all(endless(), lambda index: ScriptedExecutor(index, log), Diary(), jobs=jobs)
    run = [entry for entry in log if entry.startswith("run")]
    assert sorted(run) == sorted(f"run {number}" for number in taken)
    assert 20 <= len(taken) <= 20 + jobs


def test_an_executor_takes_its_next_trial_only_after_its_record_was_dealt_with() -> None:
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Noting(ScriptedExecutor):
        def run(self, trial: str, on_progress: OnProgress) -> Record:
            order.put(f"{self._index} runs {trial}")
            return Record(trial, {}, self._index, "ok")

    class Slow(Diary):
        def finished(self, trial: str, record: Record) -> None:
            time.sleep(0.02)
            order.put(f"{record.seed} recorded {trial}")

    run_all([str(number) for number in range(8)], lambda index: Noting(index, []), Slow(), jobs=2)
    seen = [order.get_nowait() for _ in range(16)]
    for index in "01":
        verbs = [entry.split()[1] for entry in seen if entry.startswith(index)]
        assert verbs == ["runs", "recorded"] * (len(verbs) // 2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_ends_the_trials_in_flight_and_closes_every_executor(jobs: int) -> None:
    log: list[str] = []
    never = {"long": threading.Event(), "after": threading.Event()}
    diary = Diary()

    def interrupt(trial: str) -> None:
        raise KeyboardInterrupt

    diary.on_finished = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_all(
            ["short", "long", "after"], lambda index: ScriptedExecutor(index, log, never), diary, jobs=jobs
        )
    assert len([entry for entry in log if entry.startswith("close")]) == jobs
    assert "run after" not in log
    assert [entry for entry in diary.entries if entry.startswith("finish")] == ["finish short"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_executor_that_breaks_is_an_error_not_a_silent_gap(jobs: int) -> None:
    log: list[str] = []
    with pytest.raises(RuntimeError, match="itself is broken"):
        run_all(["a", "broken", "b"], lambda index: ScriptedExecutor(index, log), Diary(), jobs=jobs)
    assert len([entry for entry in log if entry.startswith("close")]) == jobs


@pytest.mark.timeout(20)
def test_an_executor_that_cannot_be_closed_is_told_and_nobody_waits_for_it() -> None:
    class Stuck(ScriptedExecutor):
        def close(self) -> None:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        run_all(["a", "b"], lambda index: Stuck(index, []), Diary(), jobs=2)


def test_fewer_than_one_job_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        run_all(["a"], lambda index: ScriptedExecutor(index, []), Diary(), jobs=0)


def test_several_workers_run_trials_and_a_death_costs_one_of_them(tmp_path: Path) -> None:
    names = ["report_process", "segfault", "report_process", "report_process"]
    trials = [FakeTrial(str(number), {"act": name}) for number, name in enumerate(names)]
    records: dict[str, Record] = {}

    class Collect(Diary):
        def progressed(self, trial: Any, progress: dict[str, Any]) -> None:
            pass

        def finished(self, trial: Any, record: Record) -> None:
            records[trial.id] = record

    def make(index: int) -> Executor:
        return WorkerExecutor(SETUP, log=tmp_path / f"worker-{index}.log")

    run_all(trials, make, Collect(), jobs=2)
    assert [records[str(number)].status for number in range(4)] == ["ok", "failed", "ok", "ok"]


def test_cancelling_ends_a_trial_that_hangs(tmp_path: Path) -> None:
    executor = WorkerExecutor(SETUP, log=tmp_path / "worker.log")
    executor.run(trial_to("succeed"), ignore)
    threading.Timer(0.3, executor.cancel).start()
    assert executor.run(trial_to("hang"), ignore).status == "failed"
    assert executor.process_id is None
    executor.close()


def leave_before_the_log(connection: Connection, leash: Connection, setup: Any, log: Path) -> None:
    """The main function of a worker that ends before it has opened its log."""
    os._exit(3)


def test_a_worker_that_ends_before_its_log_exists_is_explained_by_its_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "never.log"
    worker = WorkerProcess(leave_before_the_log, None, log, name="bench-test")
    with pytest.raises(WorkerLostError) as lost:
        worker.wait_until_ready(lambda: False)
    worker.kill()
    assert worker.explain(lost.value, 0, None, None).reason == "the worker exited with code 3"
    assert not log.exists()
