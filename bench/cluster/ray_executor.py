"""An executor whose worker is on another machine: one device of a node, held by an actor."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusetune.bench.cluster.connection import WHERE, Cluster, Node
from fusetune.bench.cluster.device_actor import DeviceActor, DeviceSetup, unpack
from fusetune.bench.cluster.device_speeds import DeviceSpeeds
from fusetune.bench.errors import InputError
from fusetune.bench.results import Record
from fusetune.bench.workers import ExecutorLostError, OnProgress
from fusetune.errors import FusetuneError

# Beyond the worker's own limit, which ends every trial of a node that answers.
_GRACE_S = 60.0
# Seconds between two questions for progress, and how many a driver asks in a second. A short trial is never asked.
_PROGRESS_S, _MOST_ASKED = 1.0, 100.0
_LONGEST_REASON = 200
# Between two runs of the reference loop on a device, and the longest that one may take.
_AGAIN_S, _LOOP_S = 600.0, 180.0
# By default Ray lets other work of a node go before its workers (niceness 15). A timing would show it.
_ENVIRONMENT = {"env_vars": {"RAY_worker_niceness": "0"}}


@dataclass(frozen=True)
class Request:
    """What a trial has to itself on a node.

    Args:
        gpus: as Ray counts them.
        cpus: as Ray counts them.
    """

    gpus: int
    cpus: int

    def slots(self, node: Node) -> int:
        """Return how many trials the node can run at once.

        Example:
            >>> Request(gpus=1, cpus=2).slots(Node("a", "a", gpus=4, cpus=6))
            3
        """
        counts = [have // need for have, need in ((node.gpus, self.gpus), (node.cpus, self.cpus)) if need]
        return min(counts, default=0)


class RayExecutor:
    """Runs trials on one device of a node. What becomes of the device or the node is no fault of a trial.

    Args:
        cluster: the connection.
        node: where the device is.
        request: what the actor reserves there.
        setup: what the actor is started with.
        ready_s: the longest wait until Ray gives the device.
        log: takes the output of the worker. None: nothing does.
        staged: path of a data file -> where it is on that node.
        speeds: of the devices of this kind. The device adds its own when it joins, and every ten minutes.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: Node,
        request: Request,
        setup: DeviceSetup,
        *,
        ready_s: float,
        log: Path | None = None,
        staged: Mapping[str, str] | None = None,
        speeds: DeviceSpeeds | None = None,
    ) -> None:
        self._cluster, self.node = cluster, node
        self._request, self._ready_s = request, ready_s
        self._setup, self._log, self._staged = setup, log, dict(staged or {})
        self._speeds = DeviceSpeeds() if speeds is None else speeds
        self._measured_s = -_AGAIN_S
        self._lock = threading.Lock()
        self._actor: Any = None
        self._ended = False
        self.device_id = ""
        self.process_id: int | None = None

    def prepare(self) -> None:
        """Have the device, unless it is had already.

        Raises:
            ExecutorLostError: the node is gone, does not give the device in time, or another run has it.
        """
        if self.device_id:
            return
        ray = self._cluster.ray
        with self._lock:
            if self._ended:
                raise self._lost("cancelled", started=False)
            self._actor = self._make_actor()
        try:
            facts = ray.get(self._actor.facts.remote(), timeout=self._ready_s)
        except ray.exceptions.GetTimeoutError:
            self.cancel()
            raise self._lost("its devices stayed in use", started=False) from None
        except ray.exceptions.RayError as error:
            self.cancel()
            raise self._explained(error, started=False) from None
        if not facts["is_free"]:
            self.cancel()
            raise self._lost(f"device {facts['device_id']} is used by another run", started=False)
        self.device_id = facts["device_id"] or "cpu"

    def run(self, trial: Any, on_progress: OnProgress) -> Record:
        """Run `trial` on the device and return its record, with the node and the device in its provenance.

        Raises:
            ExecutorLostError: the actor or its node is gone, or does not answer within the limit.
        """
        self.prepare()
        ray = self._cluster.ray
        place = {"node": self.node.name, "device": self.device_id}
        on_progress(dict(place))
        try:
            self._measure_speed()
            answer = self._await(self._actor.run.remote(localized(trial, self._staged)), on_progress, place)
        except ray.exceptions.RayError as error:
            self.cancel()
            raise self._explained(error, started=True) from None
        content, self.process_id, printed = unpack(answer)
        self._keep_output(printed)
        record = Record.from_dict(content)
        return dataclasses.replace(record, provenance={**record.provenance, **self._provenance()})

    @property
    def name(self) -> str:
        """The device's name in the cluster."""
        return f"{self.node.name}, device {self.device_id}"

    def _measure_speed(self) -> None:
        """Let the device run the reference loop, between trials."""
        now_s = time.monotonic()
        if now_s - self._measured_s >= _AGAIN_S:
            ray = self._cluster.ray
            self._speeds.add(self.name, ray.get(self._actor.reference.remote(), timeout=_LOOP_S))
            self._measured_s = now_s

    def cancel(self) -> None:
        """Kill the actor, which ends its worker. A `run` in another thread then raises ExecutorLostError."""
        with self._lock:
            self._ended = True
            actor = self._actor
        if actor is not None:
            ray = self._cluster.ray
            with contextlib.suppress(ray.exceptions.RayError, ValueError):  # the cluster may be gone
                ray.kill(actor)

    def close(self) -> None:
        """End the actor and its worker."""
        self.cancel()

    def _make_actor(self) -> Any:
        ray = self._cluster.ray
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self.node.id, soft=False)
        # A timing that Ray had repeated would be a wrong timing.
        options = {
            "num_gpus": self._request.gpus,
            "num_cpus": self._request.cpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": strategy,
            "concurrency_groups": {"watch": 1},
            "runtime_env": _ENVIRONMENT,
        }
        return ray.remote(**options)(DeviceActor).remote(self._setup)

    def _await(self, answer: Any, on_progress: OnProgress, place: dict[str, str]) -> bytes:
        """Wait for a trial's answer, and ask for its progress meanwhile."""
        ray = self._cluster.ray
        limit_s = self._setup.hard_timeout_s
        deadline = None if limit_s is None else time.monotonic() + limit_s + _GRACE_S
        progress, last = None, None
        while True:
            waiting = [answer] if progress is None else [answer, progress]
            ready, _ = ray.wait(waiting, timeout=progress_s(len(self._speeds)))
            if answer in ready:
                found: bytes = ray.get(answer)
                return found
            if progress is not None and progress in ready:
                news = ray.get(progress)
                progress = None
                if news and news != last:
                    last = news
                    on_progress({**news, **place})
            elif progress is None and not ready:
                progress = self._actor.progress.options(concurrency_group="watch").remote()
            if deadline is not None and time.monotonic() > deadline:
                self.cancel()
                raise self._lost("it gave no answer beyond the limit of its trial", started=True)

    def _provenance(self) -> dict[str, Any]:
        found = {"node": self.node.name, "device_id": self.device_id, "device_name": self.node.kind}
        speed = self._speeds.of(self.name)
        if speed is None:
            return found
        return {**found, "device_speed": round(speed.ratio, 4), "device_slow": speed.slow}

    def _keep_output(self, printed: bytes) -> None:
        if self._log is not None and printed:
            with contextlib.suppress(OSError), self._log.open("ab") as file:
                file.write(printed)

    def _lost(self, reason: str, *, started: bool) -> ExecutorLostError:
        return ExecutorLostError(reason, node=self.node.name, device=self.device_id, started=started)

    def _explained(self, error: Exception, *, started: bool) -> Exception:
        """Return what an error of Ray is for us."""
        exceptions = self._cluster.ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            cause = error.as_instanceof_cause()
            return error.cause if isinstance(error.cause, FusetuneError) else cause
        if isinstance(error, exceptions.RuntimeEnvSetupError) and self._setup.code:
            said = " ".join(str(error).split())[:_LONGEST_REASON]
            return InputError(WHERE, f"the code could not be brought to node {self.node.name}", said)
        return self._lost(why_lost(error), started=started)


def localized(trial: Any, staged: Mapping[str, str]) -> Any:
    """Return a trial whose data files are where a node has them."""
    if not staged:
        return trial
    inner = getattr(trial, "trial", None)  # a step of a search
    if inner is not None:
        return dataclasses.replace(trial, trial=localized(inner, staged))
    path = staged.get(trial.source.path or "") if trial.source else None
    if path is None:
        return trial
    return dataclasses.replace(trial, source=dataclasses.replace(trial.source, path=path))


def progress_s(devices: int) -> float:
    """Return how often a driver asks each of its devices for progress, in seconds.

    Every call takes the driver about a millisecond. So all devices together are asked 100 times a second at most.

    Example:
        >>> progress_s(8), progress_s(512)
        (1.0, 5.12)
    """
    return max(_PROGRESS_S, devices / _MOST_ASKED)


# Name of an error of Ray -> what happened.
_REASONS = {
    "ActorUnavailableError": "Ray cannot reach its process",
    "NodeDiedError": "its node died",
    "OutOfMemoryError": "Ray's memory monitor killed it",
    "ObjectStoreFullError": "Ray's object store was full",
    "OutOfDiskError": "Ray's disk was full",
    "GetTimeoutError": "it gave no answer",
    "RuntimeEnvSetupError": "Ray could not set up its process",
}


def why_lost(error: Exception) -> str:
    """Say in one line why Ray has lost an actor.

    Example:
        >>> class ActorDiedError(Exception): pass
        >>> why_lost(ActorDiedError("The actor died because its node has died. Node Id: 77"))
        'its node died'
    """
    name, text = type(error).__name__, " ".join(str(error).split())
    if name in _REASONS:
        return _REASONS[name]
    if name == "ActorDiedError":
        return "its node died" if "its node" in text else "its process died"
    return f"{name}: {text}"[:_LONGEST_REASON]
