"""A run on a Ray cluster, from the connection to its workers: what `bench run` asks for in order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from fusetune.bench.cluster.choice import Choice, choose_nodes
from fusetune.bench.cluster.connection import WHERE, Cluster, check_versions
from fusetune.bench.cluster.person_code import gather_code
from fusetune.bench.cluster.ray_workers import RayWorkers
from fusetune.bench.errors import InputError
from fusetune.bench.machine import describe_machine
from fusetune.bench.results import RunDirectory
from fusetune.bench.run import Place, RunPlan, check_gpus
from fusetune.bench.spec import LoadedSpec
from fusetune.bench.status import Display

_DESCRIBE_S = 300.0


class RayRun:
    """A connection to the cluster that a spec names, and the choice of its nodes. Use it in a `with` block.

    Args:
        loaded: the spec, with `executor` as it is used.
        folders: of a person's own code. It travels to every node.
        devices: the most that a trial trains on.
        announce: takes sentences on what is not used.

    Raises:
        InputError: there is no such cluster, or none of its nodes can run a trial.
    """

    def __init__(
        self, loaded: LoadedSpec, folders: Sequence[str], devices: int, announce: Callable[[str], None]
    ) -> None:
        self._spec, self._devices = loaded.spec, devices
        check_gpus(loaded.spec, devices)
        self._code = tempfile.TemporaryDirectory(prefix="fusetune-code-")
        self._cluster: Cluster | None = None
        try:
            self._names = gather_code(folders, Path(self._code.name))
            self._cluster = Cluster(self._spec.executor.address, Path(self._code.name) if folders else None)
            self.choice = self._choose()
        except BaseException:
            self.close()
            raise
        for note in self.choice.notes:
            announce(f"note: {note}")
        for node in self.choice.nodes:
            if node.facts["memory_monitor"]:
                announce(
                    f"note: Ray's memory monitor is on at {node.name}. It may kill a trial that has memory left. "
                    "Start Ray with RAY_memory_monitor_refresh_ms=0"
                )
                break

    def __enter__(self) -> RayRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster."""
        if self._cluster is not None:
            self._cluster.close()
        self._code.cleanup()

    @property
    def device(self) -> str:
        """The device type of the nodes: `cpu` or `cuda`."""
        return self.choice.device

    def place(self) -> Place:
        """Return where trials run, as the plan needs it."""
        assert self._cluster is not None
        choice, node = self.choice, self.choice.nodes[0]
        gpus = choice.request.gpus if choice.device == "cuda" else 0
        task = self._cluster.task_on(node.id, describe_machine, num_gpus=gpus)
        (machine,) = self._cluster.get([task.remote(choice.device)], timeout_s=_DESCRIBE_S)
        # Nodes may declare more cores to Ray than they have.
        share = node.facts["cores"] // choice.most_of_a_node
        return Place(
            device=choice.device,
            machine=machine,
            trials_at_once=choice.devices,
            sharing=1 if choice.device == "cuda" else choice.most_of_a_node,
            most_threads=max(1, min(choice.request.cpus, share)),
            described=choice.described(),
        )

    def workers(self, plan: RunPlan, directory: RunDirectory, display: Display) -> RayWorkers:
        """Return the cluster's devices as the workers of a run.

        Raises:
            InputError: a node has other code or other data than the run. A run without records is then removed.
        """
        assert self._cluster is not None
        try:
            return RayWorkers(
                self._cluster,
                self.choice,
                plan,
                directory,
                executor=self._spec.executor,
                code=self._names,
                announce=display.message,
            )
        except InputError:
            if not directory.records(needed_by="report")[0]:
                directory.remove()
            raise

    def _choose(self) -> Choice:
        assert self._cluster is not None
        spec = self._spec
        nodes = self._cluster.nodes()
        check_versions(nodes)
        choice = choose_nodes(
            nodes, spec.resources, kind=spec.executor.kind, needs_gpus=self._devices, device=spec.device
        )
        if spec.device == "cuda" and choice.device != "cuda":
            raise InputError(
                f"{WHERE}: device",
                "cuda is asked for, but no node has a GPU that CUDA finds",
                to_do="Use device: auto or cpu",
            )
        return choice
