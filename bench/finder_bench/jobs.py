"""Calls in child processes, which may fail, hang or be killed without harm to the others."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from fusetune.bench.workers import running_program

# One thread each, for small models train no faster with more, and each thread takes address space. With glibc's heap,
# the memory that a training needs differs by a third from one process to the next. So each tensor is a mapping of its
# own, for all finders alike, and a size either fits or does not.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "MPLBACKEND": "Agg",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
}
_MOST_SHOWN = 160


@dataclass(frozen=True)
class Job:
    """A call for a child process.

    Args:
        call: `module:function`. It is imported in the child.
        arguments: of the call, as JSON can hold them.
        group: jobs of one group share a child, one after the other. Empty: a child of its own.
        timeout_s: after so many seconds the child is killed.
    """

    call: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    timeout_s: float = 300.0


@dataclass(frozen=True)
class Answer:
    """What a job came to.

    Args:
        value: what the call returned. None where it failed.
        failure: why there is no value: the error, the end of the process, or the time. Else empty.
        died: whether the process ended, or was killed, before it answered.
    """

    value: Any = None
    failure: str = ""
    died: bool = False


class _Child:
    """A process that answers jobs."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._stack.callback(self._errors.close)
        self._process: subprocess.Popen[bytes] = self._stack.enter_context(
            running_program(
                [sys.executable, "-m", "fusetune.bench.finder_bench.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | _ENVIRONMENT,
                bufsize=0,
                grace_s=0.0,
            )
        )

    def close(self) -> None:
        self._stack.close()

    def ask(self, job: Job) -> Answer:
        """Hand over a job and wait for its answer."""
        request = json.dumps({"call": job.call, "arguments": dict(job.arguments)}) + "\n"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request.encode())
        except OSError:
            return self._died()
        received, deadline = b"", time.monotonic() + job.timeout_s
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return Answer(failure=f"no answer within {job.timeout_s:g} s", died=True)
            part = self._process.stdout.read(65536)
            if not part:
                return self._died()
            received += part
        return Answer(**json.loads(received))

    def _died(self) -> Answer:
        """Say how the process ended, with the last line that it printed."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")[:_MOST_SHOWN]
        ended = f"the process ended by signal {-code}" if code < 0 else f"the process ended with code {code}"
        return Answer(failure=f"{ended}: {last}" if last else ended, died=True)


class Children:
    """Child processes that answer jobs, a lane each. Use it in a `with` block, whose end ends them.

    A child is kept for the next job of its group. One that died is replaced.

    Args:
        lanes: children at work at the same time in `run`, 1 or more.

    Example:
        >>> with Children() as children:
        ...     [answer.value for answer in children.run([Job("math:sqrt", {}), Job("builtins:dict", {"a": 1})])]
        [None, {'a': 1}]
    """

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self._idle: list[tuple[str, _Child]] = []
        self._lock = Lock()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_idle(0)

    def ask(self, job: Job) -> Answer:
        """Run a job, and return its answer. Any thread may ask."""
        child = self._kept(job.group) or _Child()
        keep = False
        try:
            answer = child.ask(job)
            keep = bool(job.group) and not answer.died
        finally:
            if keep:
                with self._lock:
                    self._idle.append((job.group, child))
            else:
                child.close()
        self._close_idle(self.lanes)
        return answer

    def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """Run jobs, and return their answers in the jobs' order. Those of one group stand together best."""
        with ThreadPoolExecutor(self.lanes) as pool:
            return list(pool.map(self.ask, jobs))

    def _kept(self, group: str) -> _Child | None:
        """Return an idle child of a group."""
        with self._lock:
            for index, (name, child) in enumerate(self._idle):
                if name == group:
                    del self._idle[index]
                    return child
        return None

    def _close_idle(self, most: int) -> None:
        """Close the oldest idle children but so many."""
        with self._lock:
            surplus, self._idle = self._idle[: -most or None], self._idle[-most:] if most else []
        for _, child in surplus:
            child.close()
