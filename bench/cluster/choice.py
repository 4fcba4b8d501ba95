"""Which nodes of a cluster a run uses: those of one kind, with room for a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusetune.bench.cluster.connection import WHERE, Node
from fusetune.bench.cluster.ray_executor import Request
from fusetune.bench.errors import InputError
from fusetune.bench.spec import Resources
from fusetune.closest_name import closest


@dataclass(frozen=True)
class Choice:
    """The nodes that a run uses.

    Args:
        kind: of their devices.
        device: `cpu` or `cuda`.
        request: what each trial reserves.
        nodes: of that kind, with room for a trial.
        notes: on what is left out, a sentence each.
    """

    kind: str
    device: str
    request: Request
    nodes: tuple[Node, ...]
    notes: tuple[str, ...] = ()

    @property
    def devices(self) -> int:
        """Trials at once."""
        return sum(map(self.request.slots, self.nodes))

    @property
    def most_of_a_node(self) -> int:
        """The most trials at once that a node runs."""
        return max(map(self.request.slots, self.nodes))

    def takes(self, node: Node) -> bool:
        """Whether a node that joins later can be used too."""
        return node.kind == self.kind and self.request.slots(node) > 0

    def described(self) -> str:
        """Return what run.json says."""
        devices, nodes = self.devices, len(self.nodes)
        return (
            f"ray: {devices} device{'' if devices == 1 else 's'} on {nodes} node{'' if nodes == 1 else 's'}, "
            f"{self.kind}"
        )


def choose_nodes(
    nodes: Sequence[Node],
    resources: Resources,
    *,
    kind: str | None = None,
    needs_gpus: int = 1,
    device: str = "auto",
) -> Choice:
    """Choose the nodes of one kind, because times of different kinds are never compared.

    Args:
        nodes: of the cluster.
        resources: of a trial, as the spec has them.
        kind: of the devices. None: the one that can run the most trials at once.
        needs_gpus: GPUs of a trial where `resources` does not say.
        device: of the spec: with `cpu`, GPUs are left alone.

    Raises:
        InputError: there are no nodes, none of that kind, or none with room for a trial.

    Example:
        >>> facts = {"processor": "A"}
        >>> choose_nodes([Node("1", "a", 2, 4, facts), Node("2", "b", 2, 4, facts)], Resources()).described()
        'ray: 4 devices on 2 nodes, A'
    """
    if not nodes:
        raise InputError(
            WHERE,
            "the cluster has no node with cores or GPUs",
            to_do="Add one with `ray start --address=HEAD`",
        )
    kinds = list(dict.fromkeys(node.kind for node in nodes))
    if kind is not None and kind not in kinds:
        near = closest(kind, kinds)
        raise InputError(
            "executor.kind",
            f"no node has '{kind}'",
            f"the cluster has {', '.join(kinds)}",
            f"Did you mean '{near}'?" if near else "Use one of these",
        )
    choices = []
    for each in kinds if kind is None else [kind]:
        of_kind = [node for node in nodes if node.kind == each]
        request = request_for(of_kind, resources, needs_gpus=needs_gpus, device=device)
        fitting = tuple(node for node in of_kind if request.slots(node) > 0)
        if fitting:
            on_cuda = device != "cpu" and request.gpus > 0 and all(node.has_cuda for node in fitting)
            choices.append(Choice(each, "cuda" if on_cuda else "cpu", request, fitting))
    if not choices:
        raise _impossible(nodes, resources, needs_gpus)
    best = max(choices, key=lambda choice: (choice.device == "cuda", choice.devices))
    others = [node for node in nodes if node not in best.nodes]
    notes = []
    if others:
        told = ", ".join(f"{node.name} ({node.kind}, {_has(node)})" for node in others[:4])
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        notes.append(f"not used: {told}{more}. A run uses one kind of device, with room for a trial")
    return Choice(best.kind, best.device, best.request, best.nodes, tuple(notes))


def request_for(nodes: Sequence[Node], resources: Resources, *, needs_gpus: int, device: str) -> Request:
    """Return what a trial reserves on nodes of one kind: what the spec says, else its share of a node.

    A trial has the GPUs that it needs, and its share of the cores. Without GPUs it has a whole node, as on one machine.
    """
    gpus = resources.gpus
    if gpus is None:
        gpus = needs_gpus if device != "cpu" and all(node.gpus for node in nodes) else 0
    if resources.cpus is not None:
        return Request(gpus, resources.cpus)
    shares = [node.cpus // max(1, node.gpus // gpus) if gpus else node.cpus for node in nodes]
    return Request(gpus, min(shares))


def _impossible(nodes: Sequence[Node], resources: Resources, needs_gpus: int) -> InputError:
    asked = [
        f"{count} {name}"
        for name, count in (("gpus", resources.gpus or needs_gpus), ("cpus", resources.cpus))
        if count is not None
    ]
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus))
    return InputError(
        "resources",
        f"no node has room for a trial with {' and '.join(asked)}",
        f"the largest of {len(nodes)} nodes is {largest.name}, with {_has(largest)}",
        "Ask for less, or add such a node",
    )


def _has(node: Node) -> str:
    return f"{node.gpus} gpus and {node.cpus} cpus"
