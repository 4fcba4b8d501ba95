"""The actor that holds one device of a node: it runs trials in today's isolated worker, and answers how far they are.

Ray makes it, and finds out when it is gone. A trial that dies takes its worker with it, and not the actor.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusetune.bench.workers import DeviceLock, Progress, WorkerExecutor, WorkerSetup
from fusetune.tuner.measure import reference_rounds

_THREADS_VARIABLE = "OMP_NUM_THREADS"
_MOST_LOG_BYTES = 2**18
_CPU_ROUNDS = 50
_LOOP_S = 120.0
_GPU_LOOP = "from fusetune.tuner.measure import gpu_reference_rounds; print(*gpu_reference_rounds())"


@dataclass(frozen=True)
class DeviceSetup:
    """What an actor is started with.

    Args:
        worker: how its worker is started.
        hard_timeout_s: a trial that takes longer is killed. None: no such limit.
        node_id: Ray's.
        uuids: index -> UUID of the node's GPUs, as far as they have some.
        directory: the driver's current one, used where the node has it too.
        threads_variable: the driver's OMP_NUM_THREADS. Ray sets it otherwise, which would change results.
        code: folders of a person's own code in the directory that Ray starts the actor in.
    """

    worker: WorkerSetup
    hard_timeout_s: float | None
    node_id: str
    uuids: Mapping[str, str]
    directory: str
    threads_variable: str | None
    code: tuple[str, ...] = ()


class DeviceActor:
    """Runs the trials of one device. Ray calls `run` in one thread, and `progress` in another."""

    def __init__(self, setup: DeviceSetup) -> None:
        worker = setup.worker
        if setup.code:
            worker = dataclasses.replace(
                worker, import_paths=tuple(os.path.abspath(name) for name in setup.code)
            )
        _be_like_the_driver(setup)
        gpus = _own_gpus()
        ids = [setup.uuids.get(index, f"{index}") for index in gpus]
        self._ids = ids
        # A declared GPU has no UUID, and every node of a test lies on one machine.
        names = [name if name.startswith("GPU-") else f"{setup.node_id}-{name}" for name in ids]
        self._locks = [DeviceLock(name) for name in names]
        self._is_free = all(lock.acquire() for lock in self._locks)
        self._logs = tempfile.TemporaryDirectory(prefix="fusetune-device-")
        self._log = Path(self._logs.name, "worker.log")
        self._executor = WorkerExecutor(worker, log=self._log, hard_timeout_s=setup.hard_timeout_s)
        self._progress: Progress = {}
        self._on_cuda = worker.device.startswith("cuda")

    def facts(self) -> dict[str, Any]:
        """Return the ids of its GPUs, and whether no other run has them."""
        return {"device_id": ",".join(self._ids), "is_free": self._is_free, "process_id": os.getpid()}

    def run(self, trial: Any) -> bytes:
        """Run a trial, and return its record with the output of the worker. See `unpack`."""
        self._progress = {}
        start = self._log.stat().st_size if self._log.exists() else 0
        record = self._executor.run(trial, self._note)
        answer = (record.as_dict(), self._executor.process_id, _printed(self._log, start))
        # Small answers travel with Ray's reply, and need no room in its object store.
        return zlib.compress(pickle.dumps(answer), 1)

    def reference(self) -> tuple[float, ...]:
        """Return the seconds of each round of the reference loop. Empty: it could not be run."""
        if not self._on_cuda:
            return reference_rounds(_CPU_ROUNDS)
        # In a process that ends: CUDA's context would take memory from the trials.
        command = [sys.executable, "-c", _GPU_LOOP]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOP_S, check=True)
            return tuple(map(float, done.stdout.split()))
        except (OSError, subprocess.SubprocessError, ValueError):
            return ()

    def progress(self) -> Progress:
        """Return the last progress of the trial that runs."""
        return self._progress

    def _note(self, progress: Progress) -> None:
        self._progress = {**self._progress, **progress}


def unpack(answer: bytes) -> tuple[dict[str, Any], int | None, bytes]:
    """Return a record as a JSON object, the worker's process id, and what the worker printed meanwhile."""
    record, process_id, printed = pickle.loads(zlib.decompress(answer))
    return record, process_id, printed


def _be_like_the_driver(setup: DeviceSetup) -> None:
    """Undo what Ray's worker changes of a process, as far as a training could notice."""
    if setup.threads_variable is None:
        os.environ.pop(_THREADS_VARIABLE, None)
    else:
        os.environ[_THREADS_VARIABLE] = setup.threads_variable
    if Path(setup.directory).is_dir():
        os.chdir(setup.directory)


def _own_gpus() -> list[str]:
    """Return the indices of the GPUs that Ray gave to this actor."""
    import ray

    return [str(index) for index in ray.get_gpu_ids()]


def _printed(log: Path, start: int) -> bytes:
    """Return the end of what was printed since."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _MOST_LOG_BYTES))
            return file.read()
    except OSError:
        return b""
