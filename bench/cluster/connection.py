"""The connection to a Ray cluster, and its nodes as they are now.

Scheduling, transport and failure detection are Ray's. Here is decided which nodes are used, and what they must have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusetune.bench.cluster import node_facts
from fusetune.bench.errors import InputError
from fusetune.bench.terminal import invocation

WHERE = "--executor ray"
_INSTALL = "pip install 'fusetune[cluster]'"
_REACH_S = 10.0
_FACTS_S = 120.0
# What Ray calls a node's devices and cores.
GPU, CPU = "GPU", "CPU"


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive.

    Args:
        id: Ray's, unique for ever.
        name: Ray's, which `ray start --node-name` sets. Its address by default.
        gpus: as Ray counts them.
        cpus: as Ray counts them.
        facts: from `bench.cluster.node_facts`.
    """

    id: str
    name: str
    gpus: int
    cpus: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_cuda(self) -> bool:
        """Whether its GPUs are there for CUDA, and not only declared to Ray."""
        return bool(self.gpus and self.facts.get("gpus"))

    @property
    def kind(self) -> str:
        """The name of its GPU, or of its processor where it has none."""
        if self.has_cuda:
            return " and ".join(dict.fromkeys(gpu["name"] for gpu in self.facts["gpus"]))
        return str(self.facts.get("processor", "unknown"))


def load_ray() -> Any:
    """Import Ray, or say how it is installed.

    Raises:
        InputError: it is not installed.
    """
    # Ray's usage report and its own reaction to memory are not asked for. Its console lines would tear our display.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            WHERE, "Ray is not installed here", str(error), f"Install it with: {_INSTALL}"
        ) from None
    return ray


class Cluster:
    """A connection to a running Ray cluster. Use it in a `with` block.

    Args:
        address: host:port. None: RAY_ADDRESS, or the cluster that runs on this machine.
        working_dir: a person's code, which travels to every node. None: there is none.

    Raises:
        InputError: Ray is not installed, no cluster is there, or it has another Python or Ray.
    """

    def __init__(self, address: str | None = None, working_dir: Path | None = None) -> None:
        self.ray = load_ray()
        self.address = address or os.environ.get("RAY_ADDRESS") or "auto"
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._mine = not self.ray.is_initialized()
        if self._mine:
            _check_reachable(self.address)
            self._silence()
            self._connect(working_dir)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster. Actors of this driver end with that."""
        if self._mine:
            self.ray.shutdown()

    def _connect(self, working_dir: Path | None) -> None:
        code = {"working_dir": str(working_dir)} if working_dir else {}
        try:
            self.ray.init(
                address=self.address,
                runtime_env=code,
                log_to_driver=False,
                configure_logging=True,
                logging_level=logging.CRITICAL,
            )
        except ConnectionError:
            raise no_cluster(self.address) from None
        except RuntimeError as error:
            said = " ".join(str(error).split())
            if "ersion mismatch" not in said:
                raise InputError(WHERE, f"the cluster at {self.address} refuses this driver", said) from None
            raise InputError(
                f"{WHERE}: {self.address}",
                "the cluster runs another version",
                said.partition("mismatch: ")[2] or said,
                "Start this command with the Python and the Ray of the cluster",
            ) from None

    def _silence(self) -> None:
        """Keep Ray's own news of lost processes out of the output: pages of its logs for what is told anyway."""
        worker: Any = getattr(getattr(self.ray, "_private", None), "worker", None)
        if hasattr(worker, "print_to_stdstream"):
            worker.print_to_stdstream = _print_nothing

    def alive(self) -> list[dict[str, Any]]:
        """Return Ray's own description of each node that it holds to be alive."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive and have devices or cores, with their facts, by name. Each is asked once."""
        described = {node["NodeID"]: node for node in self.alive()}
        unknown = [node_id for node_id in described if node_id not in self._facts]
        self._ask([each for each in unknown if _count(described[each], CPU) or _count(described[each], GPU)])
        found = [
            Node(
                node_id,
                node.get("NodeName") or node["NodeManagerAddress"],
                _count(node, GPU),
                _count(node, CPU),
                self._facts[node_id],
            )
            for node_id, node in described.items()
            if node_id in self._facts
        ]
        return sorted(_with_unique_names(found), key=lambda node: (node.name, node.id))

    def task_on(self, node_id: str, function: Any, **options: Any) -> Any:
        """Return a Ray function that runs on one node alone, and needs none of its devices or cores."""
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
        given = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy, **options}
        return self.ray.remote(**given)(function)

    def get(self, answers: Sequence[Any], timeout_s: float) -> list[Any]:
        """Return what tasks return.

        Raises:
            InputError: a node was lost meanwhile, or does not answer in time.
        """
        try:
            return list(self.ray.get(list(answers), timeout=timeout_s))
        except self.ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except self.ray.exceptions.RayError as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(WHERE, "a node did not answer", said, "Start the command again") from None

    def _ask(self, node_ids: list[str]) -> None:
        """Let nodes say what they are. One that does not answer is taken for gone, and asked again."""
        if not node_ids:
            return
        cloudpickle: Any = self.ray.cloudpickle
        cloudpickle.register_pickle_by_value(node_facts)
        try:
            answers = {node_id: self.task_on(node_id, node_facts.node_facts).remote() for node_id in node_ids}
        finally:
            cloudpickle.unregister_pickle_by_value(node_facts)
        self.ray.wait(list(answers.values()), num_returns=len(answers), timeout=_FACTS_S)
        for node_id, answer in answers.items():
            with contextlib.suppress(self.ray.exceptions.RayError):
                self._facts[node_id] = self.ray.get(answer, timeout=0.1)


def _print_nothing(*news: object, **options: object) -> None:
    """Stand in for Ray's printing."""


def no_cluster(address: str) -> InputError:
    """Say that no cluster was found."""
    if address == "auto":
        return InputError(
            WHERE,
            "no Ray cluster runs on this machine",
            to_do="Start one with `ray start --head`, or name its address: --executor ray=HOST:6379",
        )
    return InputError(
        f"{WHERE}={address}",
        "no Ray cluster answers there",
        to_do="Check the address, which `ray start --head` prints, and that this machine may reach it",
    )


def check_versions(nodes: Sequence[Node]) -> None:
    """Refuse nodes that would run other code than this driver.

    Raises:
        InputError: names the nodes and the difference.
    """
    own = node_facts.node_facts()
    for name in ("fusetune", "torch", "triton", "numpy"):
        mine = own["versions"][name]
        for found, names in _grouped(nodes, lambda node, name=name: node.facts["versions"][name]):
            if found != mine:
                what = f"{names} {'lacks' if found is None else 'has'} {name}{f' {found}' if found else ''}"
                raise InputError(
                    WHERE,
                    what,
                    f"this driver has {name} {mine}",
                    f"Install the same version on every node, or leave the node out. `{invocation()} doctor` "
                    "lists versions",
                )
    for found, names in _grouped(nodes, lambda node: node.facts["source"]):
        if found != own["source"]:
            raise InputError(
                WHERE,
                f"{names} has another fusetune of the same version",
                "the hash of its Python files differs from this driver's",
                "Install the same commit on every node",
            )


def _grouped(nodes: Sequence[Node], key: Any) -> Iterator[tuple[Any, str]]:
    """Yield each value that nodes have, and the names of those nodes."""
    groups: dict[Any, list[str]] = {}
    for node in nodes:
        groups.setdefault(key(node), []).append(node.name)
    for value, names in groups.items():
        few = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield value, f"node {few}" if len(names) == 1 else f"each of the nodes {few}"


def _count(node: Mapping[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))


def _with_unique_names(nodes: list[Node]) -> list[Node]:
    """Add the beginning of the id to names that several nodes have."""
    names = [node.name for node in nodes]
    return [
        node
        if names.count(node.name) == 1
        else Node(f"{node.id}", f"{node.name}-{node.id[:6]}", node.gpus, node.cpus, node.facts)
        for node in nodes
    ]


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens. Ray itself tries for minutes."""
    if address == "auto":
        return
    if "://" in address:
        raise InputError(
            f"{WHERE}={address}",
            "is an address of Ray Client or of a job server",
            to_do="Give host:port, and start this command on a node of the cluster, e.g. by `ray job submit`",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{WHERE}={address}", "is no address", "an address is host:port", "Write HOST:6379")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError):
        raise no_cluster(address) from None
