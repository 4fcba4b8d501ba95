"""The devices of a Ray cluster as the workers of a run. Nodes come and go meanwhile.

scout, every two seconds:  nodes alive now  --->  an executor for each device that has none
an executor whose device or node is gone leaves, and its trial waits for another
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fusetune.bench.cluster.choice import Choice
from fusetune.bench.cluster.connection import WHERE, Cluster, Node, check_versions
from fusetune.bench.cluster.data_check import check_data
from fusetune.bench.cluster.device_actor import DeviceSetup
from fusetune.bench.cluster.device_speeds import DeviceSpeeds
from fusetune.bench.cluster.first_device import FirstDevice
from fusetune.bench.cluster.ray_executor import RayExecutor
from fusetune.bench.cluster.spread_trials import SpreadTrials
from fusetune.bench.errors import BenchError, InputError
from fusetune.bench.results import RunDirectory
from fusetune.bench.run import LentExecutor, RunPlan, Wrap
from fusetune.bench.spec import Executor as ExecutorSection
from fusetune.bench.spec import Source
from fusetune.bench.units import format_seconds
from fusetune.bench.workers import MOST_LOSSES, ClusterListener, Executor, ExecutorLostError, InOrder, Pool
from fusetune.bench.workers import Source as TrialSource

_SCOUT_S = 2.0
_AGAIN_S = 5.0  # before a device of a node is asked for again after it was refused
_READY_S = 120.0
_DATA_CHECK_S = 3600.0
_MOST_SHOWN = 8


class ClusterLostError(BenchError):
    """The cluster has had no device for the run for too long. Finished trials are kept."""

    code = "cluster-lost"
    exit_code = 2


class RayWorkers:
    """Executors on the devices of a cluster, one for each.

    Args:
        cluster: the connection.
        choice: the nodes that are used.
        plan: of the run.
        directory: of the run. It takes the output of workers, one file a node.
        executor: the spec's: how long to wait for a device, and where nodes keep copies of data.
        code: folders of a person's code in Ray's working directory.
        announce: takes notes on nodes that are refused.

    Raises:
        InputError: a node has other code or other data than the run.
    """

    def __init__(
        self,
        cluster: Cluster,
        choice: Choice,
        plan: RunPlan,
        directory: RunDirectory,
        *,
        executor: ExecutorSection,
        code: tuple[str, ...],
        announce: Callable[[str], None],
    ) -> None:
        self._cluster, self._choice, self._plan = cluster, choice, plan
        self._directory, self._executor, self._code = directory, executor, code
        self.announce = announce
        self.speeds = DeviceSpeeds()
        self._staged: dict[str, dict[str, str]] = {}
        self._refused: set[str] = set()
        self._first: FirstDevice | None = None
        self._asked = 0
        self._check_nodes(choice.nodes)

    @property
    def wait_s(self) -> float:
        """The longest wait while no device can be had."""
        return self._executor.wait_for_devices

    def first(self) -> Executor:
        """Return an executor on some device, for what comes before the trials."""
        if self._first is None:
            self._first = FirstDevice(
                self._find_first, wait_s=self.wait_s, lost=self.lost, announce=self.announce
            )
        return LentExecutor(self._first)

    def _find_first(self) -> RayExecutor | None:
        """Make an executor on the next node, for one that has no free device is no reason to wait."""
        nodes = self.usable_nodes()
        self._asked += 1
        return self.make(nodes[(self._asked - 1) % len(nodes)]) if nodes else None

    def settle(self, plan: RunPlan) -> None:
        """Use a plan with its number of threads from now on."""
        if plan.setup != self._plan.setup:
            self.close()
        self._plan = plan

    def close(self) -> None:
        """End the first executor. The others end with `run`."""
        first, self._first = self._first, None
        if first is not None:
            first.close()

    def run(self, trials: Iterable[Any], listener: ClusterListener, *, wrap: Wrap | None = None) -> list[Any]:
        """Run all trials, and return those that lost their devices too often."""
        source: TrialSource = SpreadTrials(trials) if isinstance(trials, Sequence) else InOrder(trials)
        first, self._first = self._first, None
        scout = _Scout(self, source, listener, wrap, None if first is None else first.release())
        scout.pool.run()
        return scout.pool.given_up

    def usable_nodes(self) -> list[Node]:
        """Return the nodes that are alive and can be used, those that have joined in the meantime too."""
        nodes = [node for node in self._cluster.nodes() if self._choice.takes(node)]
        for node in nodes:
            if node.id not in self._staged and node.id not in self._refused:
                try:
                    self._check_nodes([node])
                except InputError as error:
                    self._refused.add(node.id)
                    self.announce(f"note: node {node.name} joined and is not used: {error}")
        return [node for node in nodes if node.id in self._staged]

    def slots(self, node: Node) -> int:
        """Return how many trials a node can run at once."""
        return self._choice.request.slots(node)

    def lost(self, happened: str) -> ClusterLostError:
        """Return what is raised when the run cannot go on."""
        return ClusterLostError(
            WHERE,
            happened,
            "finished trials are kept",
            f"Continue with: {self._directory.resume_command}",
        )

    def make(self, node: Node) -> RayExecutor:
        """Return an executor for a device of a node."""
        setup = DeviceSetup(
            worker=self._plan.setup,
            hard_timeout_s=self._plan.hard_timeout_s,
            node_id=node.id,
            uuids={gpu["index"]: gpu["uuid"] for gpu in node.facts.get("gpus", ())},
            directory=os.getcwd(),
            threads_variable=os.environ.get("OMP_NUM_THREADS"),
            code=self._code,
        )
        return RayExecutor(
            self._cluster,
            node,
            self._choice.request,
            setup,
            ready_s=min(self.wait_s, _READY_S),
            log=self._directory.path / f"worker-{node.name}.log",
            staged=self._staged[node.id],
            speeds=self.speeds,
        )

    def _check_nodes(self, nodes: Sequence[Node]) -> None:
        """Check the code and the data of nodes, and note where their copies of the data are.

        Raises:
            InputError: names the nodes and what they lack.
        """
        check_versions(nodes)
        sources = _sources(self._plan)
        fingerprint = self._plan.run.fingerprint or {}
        if not any(fingerprint.values()):
            self._staged.update({node.id: {} for node in nodes})
            return
        arguments = (
            sources,
            str(Path(self._plan.run.spec_path).parent.resolve()),
            fingerprint,
            self._executor.stage,
            os.getcwd(),
        )
        answers = [self._cluster.task_on(node.id, check_data).remote(*arguments) for node in nodes]
        wrong = []
        for node, answer in zip(nodes, self._cluster.get(answers, timeout_s=_DATA_CHECK_S), strict=True):
            changes, staged = answer
            self._staged[node.id] = staged
            wrong += [f"  {node.name}: {change}" for change in changes]
        if wrong:
            raise InputError(
                f"{WHERE}: data",
                "nodes have not the data of this run:\n" + "\n".join(wrong[:_MOST_SHOWN]) + "\n"
                "Put the same files at the same path on every node, e.g. on a shared file system.",
            )


class _Scout:
    """Looks for nodes with devices that have no executor yet, and adds one for each."""

    def __init__(
        self,
        workers: RayWorkers,
        source: TrialSource,
        listener: ClusterListener,
        wrap: Wrap | None,
        first: RayExecutor | None,
    ) -> None:
        self._workers, self._source, self._listener, self._wrap = workers, source, listener, wrap
        self.pool = Pool(source, listener, on_tick=self.look, most_losses=MOST_LOSSES)
        # More devices than trials are not asked for.
        self._most = len(source) if isinstance(source, SpreadTrials) else None
        self._executors: dict[str, list[RayExecutor]] = {}
        self._not_before_s: dict[str, float] = {}
        self._said: set[str] = set()
        self._shown: set[int] = set()
        self._joined = 0
        self._looked_s = -_SCOUT_S
        self._working_s = time.monotonic()
        if first is not None:
            self._add(first)
        self.look()

    def look(self) -> None:
        """Add executors for devices that have none.

        Raises:
            ClusterLostError: for too long no device could be had.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < _SCOUT_S or self.pool.is_done:
            return
        self._looked_s = now_s
        for node in self._workers.usable_nodes():
            if now_s < self._not_before_s.get(node.id, 0.0):
                continue
            for _ in range(self._workers.slots(node) - len(self._executors.get(node.id, ()))):
                if self._most is None or self._working < self._most:
                    self._add(self._workers.make(node))
        ready = [each for held in self._executors.values() for each in held if each.device_id]
        for each in ready:
            if id(each) not in self._shown:
                self._shown.add(id(each))
                self._listener.joined(each.node.name, each.device_id, each.node.kind)
        self._tell_of_slow_devices()
        if ready:
            self._working_s = now_s
        elif now_s - self._working_s > self._workers.wait_s:
            waited = format_seconds(self._workers.wait_s)
            raise self._workers.lost(f"no device could be had for {waited}")

    def _tell_of_slow_devices(self) -> None:
        """Name each device that is slower than its kind, once."""
        speeds = self._workers.speeds
        for device in speeds.slow():
            speed = speeds.of(device)
            if device not in self._said and speed is not None:
                self._said.add(device)
                self._workers.announce(
                    f"note: {device} is slower than its kind: {speed.ratio:.0%} of its speed. Its timings are marked"
                )

    @property
    def _working(self) -> int:
        return sum(map(len, self._executors.values()))

    def _add(self, executor: RayExecutor) -> None:
        """Let an executor join."""
        self._executors.setdefault(executor.node.id, []).append(executor)
        used: Executor = executor if self._wrap is None else self._wrap(executor, self._joined)
        self._joined += 1
        self.pool.add(used, executor.node.name, lambda loss: self._left(executor, loss))

    def _left(self, executor: RayExecutor, loss: ExecutorLostError | None) -> None:
        """Note that an executor is gone. Its node is asked again a little later."""
        left = self._executors[executor.node.id]
        left.remove(executor)
        self._workers.speeds.remove(executor.name)
        if not left and isinstance(self._source, SpreadTrials):
            self._source.forget(executor.node.name)
        if loss is None:
            return
        self._not_before_s[executor.node.id] = time.monotonic() + _AGAIN_S
        if loss.started:
            self._listener.left(executor.node.name, executor.device_id, loss.reason)
        elif loss.reason not in self._said:
            self._said.add(loss.reason)
            self._workers.announce(f"note: node {executor.node.name}: {loss.reason}. It is asked again")


def _sources(plan: RunPlan) -> list[Source]:
    """Return the data sources of a run's trials, each once."""
    found: dict[str, Source] = {}
    for trial in plan.trials:
        if trial.source is not None:
            found.setdefault(repr(trial.source), trial.source)
    return list(found.values())
