"""A device for what comes before the trials: building each configuration once, and timing threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fusetune.bench.cluster.ray_executor import RayExecutor
from fusetune.bench.results import Record
from fusetune.bench.units import format_seconds
from fusetune.bench.workers import MOST_LOSSES, ExecutorLostError, OnProgress

_AGAIN_S = 1.0


class FirstDevice:
    """Runs on one device of the cluster. When that is lost, on another: no trial has begun, so nothing is wrong yet.

    Args:
        find: makes an executor on some device, another one at each call. None: there is no device now.
        wait_s: the longest wait for a device that can be had, in seconds.
        lost: makes the exception that is raised after that, and after the fourth loss, from what happened.
        announce: is told of each loss.
    """

    def __init__(
        self,
        find: Callable[[], RayExecutor | None],
        *,
        wait_s: float,
        lost: Callable[[str], Exception],
        announce: Callable[[str], None],
    ) -> None:
        self._find, self._wait_s = find, wait_s
        self._lost, self._announce = lost, announce
        self._executor: RayExecutor | None = None
        self._losses = 0

    @property
    def process_id(self) -> int | None:
        """The process id of its worker. None where it has none yet."""
        return None if self._executor is None else self._executor.process_id

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        """Run `trial`, on as many devices as it takes.

        Raises:
            Exception: no device can be had, or four were lost. See `lost`.
        """
        while True:
            executor = self._ready()
            try:
                return executor.run(trial, on_progress)
            except ExecutorLostError as loss:
                self.close()
                self._losses += 1
                if self._losses > MOST_LOSSES:
                    happened = f"{self._losses} devices were lost before the first trial, the last one as {loss.reason}"
                    raise self._lost(happened) from None
                self._announce(f"note: node {loss.node}: {loss.reason}. Another device takes over")

    def cancel(self) -> None:
        """End what runs."""
        self.close()

    def close(self) -> None:
        """Give the device back."""
        executor = self.release()
        if executor is not None:
            executor.close()

    def release(self) -> RayExecutor | None:
        """Return the executor that is had, with its warm worker, and have it no longer."""
        executor, self._executor = self._executor, None
        return executor

    def _ready(self) -> RayExecutor:
        """Return an executor that has its device."""
        if self._executor is not None:
            return self._executor
        give_up_s = time.monotonic() + self._wait_s
        while True:
            executor = self._find()
            if executor is not None:
                try:
                    executor.prepare()
                except ExecutorLostError:
                    executor.close()
                else:
                    self._executor = executor
                    return executor
            if time.monotonic() > give_up_s:
                raise self._lost(f"no device could be had for {format_seconds(self._wait_s)}")
            time.sleep(_AGAIN_S)
