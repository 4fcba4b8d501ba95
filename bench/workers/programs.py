"""Any program in a process group of its own, ended with everything that it started. Under Linux it has a guard."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fusetune.bench.interrupts import interrupts_deferred
from fusetune.bench.workers import guard

# A program that is asked to end may remove what it has made. Then it is killed.
GRACE_S = 5.0
# A guard waits for processes that it may not kill.
_GUARD_S = 10.0


@contextmanager
def running_program(
    words: Sequence[str],
    *,
    asked_by: signal.Signals = signal.SIGTERM,
    grace_s: float | None = None,
    **options: Any,
) -> Iterator[subprocess.Popen[Any]]:
    """Start a program, and end it with everything that it has started at the end of the block.

    It leads a process group of its own. If it still runs at the end of the block, the group gets a signal and some
    seconds. Then the group is killed. Under Linux a guard kills everything else that descends from the program, and
    does so too when this process ends by SIGKILL, see `bench.workers.guard`.

    Args:
        words: the program and its arguments.
        asked_by: what asks the group to end: SIGTERM, SIGINT, SIGHUP or SIGQUIT.
        grace_s: seconds that it then has; None: 5.
        options: of `subprocess.Popen`.

    Yields:
        The process. Its exit code, its group and its streams are those of the program.

    Raises:
        OSError: the program cannot be started, such as FileNotFoundError.

    Example:
        >>> with running_program(["echo", "done"], stdout=subprocess.PIPE, text=True) as program:
        ...     program.communicate()[0]
        'done\\n'
    """
    leash: socket.socket | None = None
    process: subprocess.Popen[Any] | None = None
    try:
        with interrupts_deferred():
            if guard.is_guarded():
                leash, other = socket.socketpair()
                with other:
                    started = [sys.executable, "-I", "-S", guard.__file__, str(other.fileno()), *words]
                    process = subprocess.Popen(
                        started, start_new_session=True, pass_fds=[other.fileno()], **options
                    )
                _check_started(leash, words[0])
            else:
                process = subprocess.Popen(words, start_new_session=True, **options)
        yield process
    finally:
        if process is not None:
            with interrupts_deferred():
                _end(process, leash, asked_by, GRACE_S if grace_s is None else grace_s)
        if leash is not None:
            leash.close()


def _check_started(leash: socket.socket, name: str) -> None:
    """Wait until the guard has started the program, or raise the error that it met."""
    with leash.makefile("r") as told:
        said = told.readline().strip()
    number = int(said) if said else errno.ECHILD
    if number:
        raise OSError(number, os.strerror(number), name)


def _end(
    process: subprocess.Popen[Any], leash: socket.socket | None, asked_by: signal.Signals, grace_s: float
) -> None:
    """End the process and everything that it started. Returns when it has ended."""
    if process.poll() is None:
        _signal_group(process, asked_by)
        _wait(process, grace_s)
    if leash is not None:
        leash.close()
        _wait(process, _GUARD_S)
    _signal_group(process, signal.SIGKILL)
    _wait(process, None)


def _wait(process: subprocess.Popen[Any], seconds: float | None) -> None:
    """Wait for the end. What it still prints is read, so that a full pipe does not hold it back."""
    with suppress(subprocess.TimeoutExpired):
        if process.stdout is not None and not process.stdout.closed:
            process.communicate(timeout=seconds)
        process.wait(seconds)


def _signal_group(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
