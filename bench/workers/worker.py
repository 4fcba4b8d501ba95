"""The process that runs trials: started once, given one trial at a time, never trusted to survive.

The other side is `bench.workers.executors`. Messages to the worker are pairs of a mark and a trial, and None at the
end. Messages from it have a mark, a kind and its content: `ready` with process id and memory budget, `progress` with a
dict, `record` with a dict. See `bench.workers.messages`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import faulthandler
import functools
import gc
import importlib
import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from fusetune.bench.import_paths import append_folders, forget_safe_path
from fusetune.bench.machine import container_memory
from fusetune.bench.results import PausedTraining, Record, Status
from fusetune.bench.terminal import LossyFile, open_closed_streams, text_stream
from fusetune.bench.workers.gpus import show_gpus
from fusetune.bench.workers.guard import become_guard, is_guarded
from fusetune.bench.workers.memory_limit import (
    Footprint,
    MemoryBudget,
    address_space_left,
    classify,
    effective_limit,
    limited_memory,
    measure_footprint,
    settle_footprint,
)
from fusetune.bench.workers.messages import Sender
from fusetune.bench.workers.trial_state import ProcessState
from fusetune.errors import FusetuneError

_PR_SET_PDEATHSIG = 1
_LONGEST_REASON = 400
# How often a thread of GNU OpenMP checks for work before it sleeps: some ten microseconds.
_SPINS = 1000


class RunnableTrial(Protocol):
    """The parts of a trial that a worker needs. It must be picklable."""

    @property
    def id(self) -> str:
        """Unique within a run."""

    @property
    def factors(self) -> Mapping[str, Any]:
        """Factor name -> value."""

    @property
    def seed(self) -> int:
        """Seed of the trial's random numbers."""


@dataclass(frozen=True)
class WorkerSetup:
    """How a worker is started.

    Args:
        run_trial: `package.module:function`, called as `run_trial(trial, context, on_progress)`, returns a Record.
        device: `cpu` or `cuda`.
        limit_bytes: the spec's memory limit, or None.
        limit_source: who set it.
        threads: torch's intra-op threads, or None for torch's own choice.
        jobs: number of workers at once. They share a container's memory.
        import_paths: directories of factories, searched after all other places. See `bench.import_paths`.
        libraries: modules that loading the data needs. They are imported at the start, where they belong to the
            footprint. scikit-learn maps 170 MiB, which would otherwise count as the first trial's.
        gpus: those that the worker sees, as for `CUDA_VISIBLE_DEVICES`. None: as its parent.
    """

    run_trial: str
    device: str = "cpu"
    limit_bytes: int | None = None
    limit_source: str = "spec"
    threads: int | None = None
    jobs: int = 1
    import_paths: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    gpus: str | None = None


@dataclass
class WorkerContext:
    """What a trial can use of its worker.

    Args:
        device: `cpu` or `cuda`.
        memory: the effective limit, who set it, and the footprint from which it counts.
        threads: torch's intra-op threads as requested, or None.
        jobs: number of workers at once. Above 1 the timings are taken on a shared machine.
        cache: kept from trial to trial, for loaded data. Its content counts as memory of the trial.
    """

    device: str = "cpu"
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    threads: int | None = None
    jobs: int = 1
    cache: dict[Any, Any] = field(default_factory=dict)


Progress = dict[str, Any]
OnProgress = Callable[[Progress], None]
RunTrial = Callable[[Any, WorkerContext, OnProgress], Record]


Connection = multiprocessing.connection.Connection


def start(connection: Connection, leash: Connection, setup: WorkerSetup, log: Path) -> None:
    """Become the guard of a worker, where the system allows, and the worker. The main function of a started process.

    Args:
        connection: brings trials and takes messages.
        leash: the reading end of a pipe. When its other end closes, everything here ends. See `bench.workers.guard`.
        setup: how the worker is started.
        log: takes the output of the worker.
    """
    begin(connection, leash, log)
    serve(connection, setup)
    _leave()


def _leave() -> NoReturn:
    """End this process, without the second that Python takes to free all that torch has made."""
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def begin(connection: Connection, leash: Connection, log: Path) -> None:
    """Become the guard of a worker, where the system allows, and the worker, whose output goes to its log.

    Args:
        connection, leash, log: see `start`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open_closed_streams()
    forget_safe_path()
    if is_guarded():
        become_guard(leash, connection)
    _end_with_parent(guarded=is_guarded())
    wait_passively()
    _write_output_to(log)


def serve(connection: Connection, setup: WorkerSetup) -> None:
    """Run the trials that arrive on `connection` until None arrives."""
    sender = Sender(connection)
    show_gpus(setup.gpus)
    append_folders(*setup.import_paths)
    run_trial = named_function(setup.run_trial)
    context = make_context(setup)
    sender.send("", "ready", (os.getpid(), context.memory))
    while (job := next_job(connection)) is not None:
        mark, trial = job
        sender.mark = mark
        _set_threads(trial)
        state = ProcessState(os.getppid() if is_guarded() else None)
        record = attempt(run_trial, trial, context, functools.partial(sender.send, mark, "progress"))
        sender.end_fork()
        events = state.put_back(paused=isinstance(record.outcome, PausedTraining))
        record = dataclasses.replace(record, worker=events)
        sender.send(mark, "record", record.as_dict())
        sender.mark = ""
        release_memory(setup.device)


def wait_passively() -> None:
    """Let threads that wait for each other sleep soon, if torch is not imported yet. The user's settings stay.

    OpenMP's threads spin for milliseconds by default. Beside other work a spinning thread takes the core that the
    awaited one needs. Without any spinning they are woken at every operation. ResNet-9 of width 8, ms a step with one
    thread / with two, on two cores, alone and beside four busy processes:

        batch                    32 alone   32 beside   128 alone   128 beside
        by default              18 / 14    48 / 126     68 / 53    170 / 324
        no spinning             18 / 21    52 / 84      81 / 57    180 / 149
        spinning 1,000 times    17 / 12    47 / 76      66 / 46    183 / 158
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def next_job(connection: Connection) -> Any:
    """Wait for a trial, or what else a worker is asked. None at the end, or when the run has ended."""
    try:
        return connection.recv()
    except EOFError:
        return None


def make_context(setup: WorkerSetup) -> WorkerContext:
    """Set the threads, find the effective memory limit, and measure the footprint from which it counts."""
    if setup.threads is not None:
        import torch

        torch.set_num_threads(setup.threads)
    for library in setup.libraries:
        importlib.import_module(library)
    on_cpu = not setup.device.startswith("cuda")
    shell_limits = on_cpu and address_space_left(Footprint()) is not None
    if setup.limit_bytes is not None or (on_cpu and container_memory() is not None) or shell_limits:
        settle_footprint(setup.device)
        release_memory(setup.device)
    # Read again: the footprint is part of what the container has in use.
    container = container_memory() if on_cpu else None
    footprint = measure_footprint(setup.device)
    limit, source = effective_limit(
        setup.limit_bytes,
        container,
        jobs=setup.jobs,
        asked_by=setup.limit_source,
        shell_bytes=address_space_left(footprint) if on_cpu else None,
    )
    memory = MemoryBudget(setup.device, limit, source, footprint)
    return WorkerContext(setup.device, memory, setup.threads, setup.jobs)


def attempt(
    run_trial: RunTrial, trial: RunnableTrial, context: WorkerContext, on_progress: OnProgress
) -> Record:
    """Run one trial under the memory limit. An exception becomes a record with its reason."""
    _set_threads(trial)
    try:
        with limited_memory(context.memory):
            return run_trial(trial, context, on_progress)
    except Exception as error:  # a person's model, data, optimizer or loss
        traceback.print_exc()
        shortage = classify(error, context.memory)
        if shortage is not None:
            return record_without_result(trial, "out_of_memory", shortage.sentence, shortage.values)
        return record_without_result(trial, "failed", describe_exception(error))


def _set_threads(trial: RunnableTrial) -> None:
    """Set torch's number of threads, if the trial has one."""
    threads = getattr(trial, "threads", None)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def record_without_result(
    trial: RunnableTrial, status: Status, reason: str, values: Mapping[str, float] | None = None
) -> Record:
    """Return the record of a trial that has a reason and no result."""
    return Record(trial.id, dict(trial.factors), trial.seed, status, reason, dict(values or {}))


def describe_exception(error: BaseException) -> str:
    """Describe an exception and its place in one line: the innermost frame that is not a library's.

    An error of the suite itself is one sentence already, and needs no place in the code.

    Example:
        >>> try:
        ...     {}["width"]
        ... except KeyError as error:
        ...     describe_exception(error).split(" (")[0]
        "KeyError: 'width'"
    """
    message = " ".join(str(error).split())
    if isinstance(error, FusetuneError):
        return message
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if len(text) > _LONGEST_REASON:
        text = text[: _LONGEST_REASON - 1] + "…"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_library(frame.filename)]
    if not frames:
        return text
    frame = (own or frames)[-1]
    return f"{text} ({_short_path(frame.filename)}:{frame.lineno})"


def release_memory(device: str) -> None:
    """Return freed memory to the system, so that each trial starts from the same footprint."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
    elif platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def is_library(filename: str) -> bool:
    """Return whether a frame's file belongs to an installed package, the standard library or no file at all."""
    path = Path(filename)
    if filename.startswith("<") or {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return path.is_relative_to(sysconfig.get_paths()["stdlib"])


def _short_path(filename: str) -> str:
    """Return the path relative to the current directory if it is below it."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def named_function(reference: str) -> Any:
    """Import a function by `package.module:function`."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _end_with_parent(*, guarded: bool) -> None:
    """Make this process end with its guard, or with the run where there is none, even after a SIGKILL."""
    if guarded:
        # The guard watches the run. A thread here would need the interpreter's lock. The kernel does not.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    """Wait until the parent has ended, then exit at once."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _write_output_to(log: Path) -> None:
    """Send all output of this process, C libraries included, to `log`, away from the live display."""
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    # Output that a full disk refuses is lost, because no trial should fail over its output.
    sys.stdout = text_stream(LossyFile(1), line_buffering=True)
    sys.stderr = text_stream(LossyFile(2), line_buffering=True)
    # The stack of the thread that died. Another one may only be watching the parent.
    faulthandler.enable(all_threads=False)
