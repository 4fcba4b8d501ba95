"""Which modules hold their parameters sharded, by torch's `fully_shard`."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


def shard(
    model: nn.Module,
    mesh: DeviceMesh,
    called: Container[nn.Module],
    arrives: Callable[[nn.Module], object] | None = None,
) -> None:
    """Split a model's parameters among the processes, block by block: a block is whole only while it runs.

    A block is a child of the model, or of a Sequential or ModuleList in it. Parameters that several blocks share
    belong to the model as a whole, and so do those of modules that are never called.

    Args:
        model: on its device, or in the host's memory. From there `fully_shard` brings one block after the other to the
            device, where it is whole only until it is split. Its parameters become DTensors, so the optimizer is made
            afterwards.
        mesh: of the processes that share it.
        called: the modules that a forward calls.
        arrives: called with each block, and with the model at last, before they are split.

    Mutates: the model.
    """
    for block in (*blocks(model, called), model):
        if arrives is not None:
            arrives(block)
        fully_shard(block, mesh=mesh)


def blocks(model: nn.Module, called: Container[nn.Module]) -> list[nn.Module]:
    """Return the modules that are sharded one by one.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        >>> [type(block).__name__ for block in blocks(model, set(model.modules()))]
        ['Linear', 'Linear', 'Linear']
    """
    found = list(_blocks(model, called))
    owners: dict[int, int] = {}
    for block in found:
        for parameter in block.parameters():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [block for block in found if all(owners[id(parameter)] == 1 for parameter in block.parameters())]


def _blocks(model: nn.Module, called: Container[nn.Module]) -> Iterator[nn.Module]:
    for child in model.children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            yield from _blocks(child, called)
        elif child in called and any(True for _ in child.parameters()):
            yield child
