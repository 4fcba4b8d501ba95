"""Workers that start in a tenth of a second: forks of a process that has loaded the libraries, and never ran any.

    driver ── nursery ──fork── guard ── worker          one nursery for all workers of a driver

Importing torch and Triton takes seconds of a processor. The nursery does it once. It has no threads, touches no GPU,
imports no person's code and knows no secrets, so that each fork is what a new process would be. It ends with the
driver, as every worker does by its own leash. Under Linux alone.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fusetune.bench.import_paths import forget_safe_path
from fusetune.bench.terminal import open_closed_streams

# Read when a library is loaded or Python starts. With others of these a worker needs another nursery.
_READ_AT_LOADING = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ATEN_", "LD_", "MALLOC_", "GLIBC_"),
    *("PYTHON", "TORCH", "PYTORCH_", "TRITON_INTERPRET", "CUDA", "FUSETUNE_"),
)
_HEADER = "!i"
_FILES = 3
_ENDED = struct.Struct("!i")


class PreloadedProcess:
    """A worker that the nursery forked, with the part of `multiprocessing.Process` that is needed.

    Args:
        process_id: of the fork.
        sentinel: becomes readable when it ends.
    """

    def __init__(self, process_id: int, sentinel: int) -> None:
        self.pid = process_id
        self.sentinel = sentinel
        self._exit_code: int | None = None

    @property
    def exitcode(self) -> int | None:
        """Its exit code, negative for a signal. None while it runs."""
        self.join(0)
        return self._exit_code

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        if self._exit_code is None and select.select([self.sentinel], [], [], timeout)[0]:
            told = os.read(self.sentinel, _ENDED.size)
            # Without a word the nursery itself was killed, and its workers with it.
            self._exit_code = _ENDED.unpack(told)[0] if len(told) == _ENDED.size else -signal.SIGKILL

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.sentinel)


class Nursery:
    """The process that forks, seen from the driver.

    Args:
        libraries: modules that it imports. None of them may start threads or touch a GPU.
    """

    def __init__(self, libraries: Sequence[str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        self.process = spawn.Process(
            target=_nurse, args=(theirs, tuple(libraries)), name="bench-nursery", daemon=True
        )
        self.process.start()
        theirs.close()
        self._socket = socket.socket(fileno=os.dup(ours.fileno()))
        ours.close()
        self._one_at_a_time = threading.Lock()
        self.is_lost = False

    def fork(
        self, main: Callable[..., None], connection: Connection, leash: Connection, setup: Any, log: Path
    ) -> PreloadedProcess:
        """Start a worker: `main(connection, leash, setup, log)` in a fork.

        Raises:
            OSError, EOFError: the nursery is gone.
        """
        state = (main, setup, log, dict(os.environ), os.getcwd(), list(sys.path))
        data = pickle.dumps(state)
        sentinel, ending = os.pipe()
        try:
            with self._one_at_a_time:
                files = [connection.fileno(), leash.fileno(), ending]
                socket.send_fds(self._socket, [struct.pack(_HEADER, len(data))], files)
                self._socket.sendall(data)
                (process_id,) = struct.unpack(_HEADER, _exactly(self._socket, struct.calcsize(_HEADER)))
        except BaseException:
            self.is_lost = True
            os.close(sentinel)
            raise
        finally:
            os.close(ending)
        return PreloadedProcess(process_id, sentinel)

    def close(self) -> None:
        """Let it end. Its workers live on."""
        self._socket.close()


_nurseries: dict[Any, Nursery] = {}
_lock = threading.Lock()


def nursery_for(libraries: Sequence[str]) -> Nursery:
    """Return a nursery whose libraries were loaded under this environment. It is started where there is none."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_LOADING)}
    key = (os.getpid(), tuple(libraries), tuple(sorted(variables.items())))
    with _lock:
        found = _nurseries.get(key)
        if found is None or found.is_lost or not found.process.is_alive():
            for other in list(_nurseries):
                if other[0] == os.getpid():
                    _nurseries.pop(other).close()
            found = _nurseries[key] = Nursery(libraries)
        return found


def _nurse(connection: Connection, libraries: tuple[str, ...]) -> None:
    """Load the libraries, then fork whenever the driver asks, and tell it how each fork ended."""
    from fusetune.bench.workers.worker import wait_passively

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open_closed_streams()
    forget_safe_path()
    wait_passively()
    for library in libraries:
        importlib.import_module(library)
    orders = socket.socket(fileno=os.dup(connection.fileno()))
    connection.close()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, _note)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    endings: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report(endings)
        if orders.fileno() in ready:
            try:
                order = _next_order(orders)
            except (OSError, EOFError):
                return
            process_id = os.fork()
            if process_id == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for file in (woken, wake, orders.detach(), *endings.values(), order[2]):
                    os.close(file)
                _become_worker(*order)
            endings[process_id] = order[2]
            os.close(order[0])
            os.close(order[1])
            orders.sendall(struct.pack(_HEADER, process_id))


def _next_order(orders: socket.socket) -> tuple[int, int, int, bytes]:
    """Return the files of connection, leash and ending, and what else the fork is told."""
    header, files, _, _ = socket.recv_fds(orders, struct.calcsize(_HEADER), _FILES)
    if len(files) != _FILES:
        raise EOFError
    (size,) = struct.unpack(_HEADER, header)
    return files[0], files[1], files[2], _exactly(orders, size)


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = source.recv(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _become_worker(connection: int, leash: int, ending: int, data: bytes) -> None:
    """Run a worker's main function, and end the process."""
    code = 1
    try:
        main, setup, log, environment, directory, path = pickle.loads(data)
        os.environ.clear()
        os.environ.update(environment)
        with contextlib.suppress(OSError):
            os.chdir(directory)
        sys.path[:] = path
        main(Connection(connection), Connection(leash), setup, log)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _report(endings: dict[int, int]) -> None:
    """Tell of each fork that has ended how it did."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            file = endings.pop(ended[0], None)
            if file is not None:
                with contextlib.suppress(OSError):
                    os.write(file, _ENDED.pack(os.waitstatus_to_exitcode(ended[1])))
                os.close(file)


def _note(number: int, frame: object) -> None:
    """Let a signal wake the nursery."""
