"""Which nodes of a cluster a run uses."""

from __future__ import annotations

from typing import Any

import pytest

from fusetune.bench.cluster.choice import choose_nodes
from fusetune.bench.cluster.connection import Node
from fusetune.bench.errors import InputError
from fusetune.bench.spec import Resources


def node(name: str, gpus: int, cpus: int, gpu: str = "", processor: str = "EPYC") -> Node:
    """A node, whose GPUs are there for CUDA where they have a name."""
    found = [
        {"index": str(index), "uuid": f"GPU-{name}-{index}", "name": gpu} for index in range(gpus) if gpu
    ]
    return Node(name, name, gpus, cpus, {"processor": processor, "gpus": found})


H100, A100 = "NVIDIA H100", "NVIDIA A100"


def test_the_kind_with_the_most_devices_is_used_alone_and_the_rest_is_named() -> None:
    nodes = [node("a", 8, 64, H100), node("b", 8, 64, H100), node("c", 8, 64, A100), node("d", 0, 64)]
    choice = choose_nodes(nodes, Resources())
    assert (choice.kind, choice.device, [each.name for each in choice.nodes]) == (H100, "cuda", ["a", "b"])
    assert (choice.devices, choice.most_of_a_node, choice.request.gpus, choice.request.cpus) == (16, 8, 1, 8)
    assert "c (NVIDIA A100, 8 gpus and 64 cpus)" in choice.notes[0]
    assert "d (EPYC, 0 gpus and 64 cpus)" in choice.notes[0]
    assert choose_nodes(nodes, Resources(), kind=A100).nodes[0].name == "c"


@pytest.mark.parametrize(
    ("resources", "devices", "request_"),
    [
        ({}, 4, (1, 2)),
        ({"gpus": 2}, 2, (2, 4)),
        ({"gpus": 0}, 2, (0, 4)),
        ({"cpus": 4}, 2, (1, 4)),
        ({"gpus": 0, "cpus": 1}, 8, (0, 1)),
    ],
)
def test_a_trial_has_what_the_spec_says_or_its_share(
    resources: dict[str, Any], devices: int, request_: tuple[int, int]
) -> None:
    choice = choose_nodes([node("a", 2, 4), node("b", 2, 4)], Resources(**resources))
    assert choice.devices == devices
    assert (choice.request.gpus, choice.request.cpus) == request_
    assert choice.device == "cpu"  # the GPUs are declared, and CUDA has none


def test_device_cpu_leaves_gpus_alone() -> None:
    choice = choose_nodes([node("a", 8, 64, H100)], Resources(), device="cpu")
    assert (choice.device, choice.request.gpus, choice.devices) == ("cpu", 0, 1)


@pytest.mark.parametrize(
    ("nodes", "resources", "kind", "told"),
    [
        ([], {}, None, "the cluster has no node with cores or GPUs"),
        ([node("a", 2, 4)], {"gpus": 3}, None, "no node has room for a trial with 3 gpus"),
        ([node("a", 2, 4)], {"cpus": 5}, None, "the largest of 1 nodes is a, with 2 gpus and 4 cpus"),
        ([node("a", 2, 4, H100)], {}, "NVIDIA H10", "Did you mean 'NVIDIA H100'?"),
    ],
)
def test_what_no_node_can_do_is_refused_with_what_the_cluster_has(
    nodes: list[Node], resources: dict[str, Any], kind: str | None, told: str
) -> None:
    with pytest.raises(InputError) as refused:
        choose_nodes(nodes, Resources(**resources), kind=kind)
    assert told in str(refused.value)
