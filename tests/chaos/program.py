"""Runs `bench` as a program whose end can be brought about: by a signal, or by a disk that takes no more.

A fresh interpreter imports torch for seconds. A fork of this process has it already: its command line, and the worker
that it forks, go through the same code. Only starting an interpreter is left out, so some runs do start one.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.context
import multiprocessing.resource_tracker
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_LONGEST_S = 240.0
_POLL_S = 0.002


@dataclass(frozen=True)
class Ended:
    """A command that is over: its exit code (less than 0: the signal that ended it), and what it printed."""

    code: int
    text: str
    orphans: tuple[int, ...]


def run_program(
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    fresh: bool,
    most_bytes: int | None = None,
    meanwhile: Callable[[int], None] | None = None,
) -> Ended:
    """Run a command, let something happen to it, and wait until every process of it is gone.

    Args:
        arguments: of `bench`.
        directory: where it runs.
        environment: all of it.
        fresh: start an interpreter; else fork this process.
        most_bytes: no file grows beyond them; None: no such limit.
        meanwhile: is called once and again with the process's id as long as it runs.

    Raises:
        TimeoutError: it does not end.
    """
    printed = directory / "printed.txt"
    with printed.open("wb") as out:
        start = _fresh if fresh else _forked
        process = start(arguments, directory, environment, out.fileno(), most_bytes)
    deadline = time.monotonic() + _LONGEST_S
    while (code := _code_of(process)) is None:
        if meanwhile is not None:
            meanwhile(process)
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            raise TimeoutError(f"{' '.join(arguments)} did not end; it printed:\n{printed.read_text()}")
        time.sleep(_POLL_S)
    # The worker of a killed run ends a moment after it.
    patience = time.monotonic() + 20
    while (left := group_of(process)) and time.monotonic() < patience:
        time.sleep(_POLL_S)
    for orphan in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
    return Ended(code, printed.read_text(errors="replace"), tuple(left))


def group_of(group: int) -> list[int]:
    """Return the processes of a group that run. One that is dead and not yet collected does not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def _code_of(process: int) -> int | None:
    """Return how a child ended; None while it runs."""
    done, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


class _ForkedProcess(multiprocessing.context.ForkProcess):
    """A forked process that has, as a started interpreter has, no other files of its parent than those it is given."""

    def start(self) -> None:
        self._open_before = {int(name) for name in os.listdir("/proc/self/fd")}
        super().start()

    def _bootstrap(self, *arguments: Any, **named: Any) -> int:
        given = {each.fileno() for each in self._args if hasattr(each, "fileno")}  # type: ignore[attr-defined]
        for number in self._open_before - given - {0, 1, 2}:
            with contextlib.suppress(OSError):
                os.close(number)
        return super()._bootstrap(*arguments, **named)  # type: ignore[misc]


def _fresh(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], out: int, most: int | None
) -> int:
    """Start an interpreter in a session of its own."""

    def limit() -> None:
        if most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    process = subprocess.Popen(
        [sys.executable, "-m", "fusetune.bench", *arguments],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
        preexec_fn=limit,
    )
    process.returncode = 0  # it is waited for by its number
    return process.pid


def _forked(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], out: int, most: int | None
) -> int:
    """Fork this process, in a session of its own."""
    child = os.fork()
    if child:
        return child
    try:
        _be_program(arguments, directory, environment, out, most)
    finally:
        os._exit(99)


def _be_program(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], out: int, most: int | None
) -> NoReturn:
    """Do in a forked process what an interpreter does with `-m bench`."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, source in enumerate((null, out, out)):
        os.dup2(source, number)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)  # type: ignore[misc]
    sys.argv = ["bench", *arguments]
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    forking: Any = multiprocessing.get_context("fork")
    forking.Process = _ForkedProcess
    multiprocessing.get_context = lambda method=None: forking
    multiprocessing.resource_tracker.ensure_running = lambda: None
    atexit._clear()
    from fusetune.bench.__main__ import start

    code = 0
    try:
        start()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as an interpreter ends
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
