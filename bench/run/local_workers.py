"""The workers of a run: processes of this machine, one for each device, or the devices of a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fusetune.bench.errors import InputError
from fusetune.bench.results import Record
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.status import LOCAL
from fusetune.bench.workers import (
    ClusterListener,
    DeviceLock,
    Executor,
    OnProgress,
    WorkerExecutor,
    gpu_uuids,
    run_all,
    visible_gpus,
)

Wrap = Callable[[Executor, int], Executor]


class Workers(Protocol):
    """Where the trials of a run are run."""

    def first(self) -> Executor:
        """Return an executor for what comes before the trials. Its `close` leaves it open for the next user."""

    def run(self, trials: Iterable[Any], listener: ClusterListener, *, wrap: Wrap | None = None) -> list[Any]:
        """Run all trials. Return those that have no record, because their devices were lost too often.

        Args:
            trials: each is taken when an executor is free.
            listener: receives starts, progress, records and losses.
            wrap: `wrap(executor, index)` returns the executor that is used instead.
        """

    def settle(self, plan: RunPlan) -> None:
        """Use a plan with its number of threads from now on."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class LentExecutor:
    """An executor that stays open for the next user."""

    executor: Executor

    @property
    def process_id(self) -> int | None:
        """The process id of the worker, None without a process."""
        found: int | None = getattr(self.executor, "process_id", None)
        return found

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        return self.executor.run(trial, on_progress)

    def cancel(self) -> None:
        self.executor.cancel()

    def close(self) -> None:
        """Leave the executor open."""


@dataclass
class _OnGpus(LentExecutor):
    """An executor whose news says on which GPUs of this machine it runs."""

    gpus: str

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        place = {"node": LOCAL, "device": self.gpus}
        on_progress(dict(place))
        return self.executor.run(trial, lambda news: on_progress({**news, **place}))

    def close(self) -> None:
        self.executor.close()


class LocalWorkers:
    """Worker processes of this machine: `plan.jobs` of them, each with GPUs of its own where there are enough.

    Args:
        plan: of the run.
        logs: the directory for the output of the workers.

    Raises:
        InputError: another run has one of the GPUs.
    """

    def __init__(self, plan: RunPlan, logs: Path) -> None:
        self._plan, self._logs = plan, logs
        self._first: WorkerExecutor | None = None
        self._locks: list[DeviceLock] = []
        if plan.run.device == "cuda":
            self._lock_gpus()

    def first(self) -> Executor:
        """Return the worker that is started first. With one job, it runs the trials too."""
        if self._first is None:
            self._first = self._make(0)
        return LentExecutor(self._first)

    def run(self, trials: Iterable[Any], listener: ClusterListener, *, wrap: Wrap | None = None) -> list[Any]:
        """Run all trials. No worker of this machine is lost, so each has a record."""
        jobs = self._plan.jobs
        if jobs > 1:
            self._end_first()  # a worker belongs to the thread that started it

        gpus = self._plan.place.gpus

        def make(index: int) -> Executor:
            executor: Executor = self.first() if jobs == 1 else self._make(index)
            executor = _OnGpus(executor, gpus[index % len(gpus)]) if gpus else executor
            return executor if wrap is None else wrap(executor, index)

        for name in gpus:
            listener.joined(LOCAL, name, self._plan.run.machine.device_name or "")

        run_all(trials, make, listener, jobs=jobs)
        return []

    def settle(self, plan: RunPlan) -> None:
        """Use a plan with its number of threads. A worker that has none yet is replaced."""
        if plan.setup != self._plan.setup:
            self._end_first()
        self._plan = plan

    def close(self) -> None:
        """End the first worker, and free the GPUs. The others end with `run`."""
        self._end_first()
        for lock in self._locks:
            lock.release()

    def _end_first(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            first.close()

    def _lock_gpus(self) -> None:
        """Have the GPUs to this run alone, for two runs on one GPU make the times of both wrong."""
        visible, uuids = visible_gpus(), gpu_uuids()
        used = {name for gpus in self._plan.place.gpus for name in gpus.split(",")} or set(visible)
        for name, uuid in zip(visible, uuids, strict=True):
            if name in used:
                lock = DeviceLock(uuid)
                if not lock.acquire():
                    self.close()
                    raise InputError(
                        "device",
                        f"GPU {name} ({uuid}) is used by another run",
                        to_do="Wait for it, or choose others by CUDA_VISIBLE_DEVICES",
                    )
                self._locks.append(lock)

    def _make(self, index: int) -> WorkerExecutor:
        plan, gpus = self._plan, self._plan.place.gpus
        setup = dataclasses.replace(plan.setup, gpus=gpus[index % len(gpus)]) if gpus else plan.setup
        return WorkerExecutor(
            setup, log=self._logs / f"worker-{index}.log", hard_timeout_s=plan.hard_timeout_s
        )
