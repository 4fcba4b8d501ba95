"""The process between a run and a worker: everything that a worker starts ends with it, and both end with the run.

    run  ── guard ── worker ── processes of a trial
    gate ── guard ── program ── processes of the program

The guard imports no library and only waits. Under Linux it adopts each process whose parent has ended
(PR_SET_CHILD_SUBREAPER). So a process that was forked twice, or has its own session, is still its descendant. When the
worker or the run ends, by SIGKILL too, all of them are killed. On other systems there is no guard.

A worker's guard is a fork. That of a program is this file, run by `bench.workers.programs`. So it imports nothing of
this project.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import select
import signal
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# The longest wait for a process that this one may not kill, such as one of another user.
_GIVE_UP_S = 5.0
_MOMENT_S = 0.25
_AGAIN_S = 0.005
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# A guard of a program takes no notice of what the whole group is sent.
_SENT_TO_GROUP = (*_ENDING, signal.SIGINT, signal.SIGQUIT)
# What Python ignores, and a program does not expect to be ignored.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def is_guarded() -> bool:
    """Whether workers have a guard on this system."""
    return platform.system() == "Linux"


def become_guard(leash: Connection, connection: Connection) -> None:
    """Split this process into a guard and a worker. Returns in the worker alone. The guard ends as the worker did.

    Call it before there are threads, because a fork has none of them.

    Args:
        leash: the reading end of a pipe whose other end only the run holds. It is closed in the worker.
        connection: the worker's, which is closed in the guard.
    """
    worker, woken = _fork(_ENDING)
    if worker == 0:
        leash.close()
        return
    connection.close()
    _end_with(worker, leash.fileno(), woken, _ENDING)


def run_guarded(leash: int, words: Sequence[str]) -> NoReturn:
    """Start a program as the guard of it. Ends as the program did.

    Args:
        leash: a socket whose other end only the gate holds. `0` is written to it once the program has started, or the
            number of the error for which it has not.
        words: the program and its arguments.
    """
    os.set_inheritable(leash, False)
    failed, failing = os.pipe()  # closed by the start of the program
    program, woken = _fork(_SENT_TO_GROUP)
    if program == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in _IGNORED_BY_PYTHON:
                signal.signal(number, signal.SIG_DFL)
            os.execvp(words[0], list(words))
        except OSError as error:
            os.write(failing, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(failing)
    with contextlib.suppress(OSError):
        os.write(leash, (os.read(failed, 64) or b"0") + b"\n")
    _end_with(program, leash, woken, ())


def _fork(noted: tuple[signal.Signals, ...]) -> tuple[int, int]:
    """Fork. Return 0 in the child, and in the guard its id and a descriptor that a signal or its end makes readable."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    handlers = {number: signal.signal(number, _note) for number in (signal.SIGCHLD, *noted)}
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)
    return child, woken


def _end_with(worker: int, leash: int, woken: int, ending: tuple[signal.Signals, ...]) -> NoReturn:
    """Wait for the end of the worker or of the run. Then kill all that is left, and end as the worker did."""
    status, asked_by = _wait(worker, leash, woken, ending)
    if status is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    _let_end(os.getpid())
    kill_descendants(os.getpid())
    _end_as(status if status is not None else asked_by or -signal.SIGKILL)


def descendants(process_id: int) -> set[int]:
    """Return the ids of all processes that descend from one, from /proc. Zombies are left out.

    Example:
        >>> os.getpid() in descendants(os.getppid())
        True
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command's name is in brackets and may contain anything.
                state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state not in b"ZX":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    left = [process_id]
    while left:
        new = [child for child in children.get(left.pop(), []) if child not in found]
        found.update(new)
        left += new
    return found


def kill_descendants(process_id: int, *, but: frozenset[int] = frozenset()) -> set[int]:
    """Kill all processes that descend from one, and those that they start in the meantime. Return their ids.

    Args:
        process_id: this one or its parent. Children of this process are waited for.
        but: ids that are not killed.
    """
    killed: set[int] = set()
    give_up_s = time.monotonic() + _GIVE_UP_S
    while (alive := descendants(process_id) - but) and time.monotonic() < give_up_s:
        for each in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
                killed.add(each)
        _reap()
        time.sleep(_AGAIN_S)
    return killed


def _let_end(process_id: int) -> None:
    """Give descendants a moment, because multiprocessing's tracker removes the worker's shared memory."""
    give_up_s = time.monotonic() + _MOMENT_S
    while descendants(process_id) and time.monotonic() < give_up_s:
        _reap()
        time.sleep(_AGAIN_S)


def _wait(
    worker: int, leash: int, woken: int, ending: tuple[signal.Signals, ...]
) -> tuple[int | None, int | None]:
    """Wait until the worker or the run ends, or a signal of `ending` arrives. Return how the worker ended."""
    while True:
        ready, _, _ = select.select([leash, woken], [], [])
        status = _reap().get(worker)
        if status is not None:
            return os.waitstatus_to_exitcode(status), None
        signals = os.read(woken, 4096) if woken in ready else b""
        asked = next((-int(number) for number in ending if number in signals), None)
        if leash in ready or asked is not None:
            return None, asked


def _reap() -> dict[int, int]:
    """Collect children that have ended: id -> status."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _end_as(code: int) -> NoReturn:
    """End as another process did: by exit code, or by signal if the number is negative."""
    if code < 0:
        # The worker has left its own core file.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _note(number: int, frame: object) -> None:
    """Let a signal wake the guard."""


if __name__ == "__main__":
    run_guarded(int(sys.argv[1]), sys.argv[2:])
