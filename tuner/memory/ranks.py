"""One rank of a data parallel training, in a process group whose other ranks are pretended.

torch's group `fake` answers every collective at once and moves nothing. So one process holds what one of N ranks holds,
without the other N - 1: with fake tensors no memory at all, with real ones that of a single rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fusetune.errors import StateError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Parallel = Literal["ddp", "fsdp"]


@contextmanager
def pretended_group(ranks: int, device: torch.device) -> Iterator[DeviceMesh | None]:
    """Be rank 0 of so many within the block, which has the largest share of everything. One rank needs no group.

    Args:
        ranks: 1 or more.
        device: whose type the mesh of all ranks has, which is yielded. None for one rank.

    Raises:
        StateError: this process is in a group already.
    """
    if ranks == 1:
        yield None
        return
    if dist.is_initialized():
        raise StateError("", "this process is a rank of a group, so it cannot pretend to be one of another")
    # These imports take a second, which trainings on one device do not need.
    from torch.distributed.device_mesh import init_device_mesh

    # Importing it registers the group. torch has no public name for it.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        # Outside any fake mode, for a mesh reads the values of its tensor.
        yield init_device_mesh(device.type, (ranks,))
    finally:
        dist.destroy_process_group()


def rank_of(
    model: nn.Module, parallel: Parallel, mesh: DeviceMesh, communicated: Callable[[Tensor], Any]
) -> nn.Module:
    """Return the model as one rank of the group trains it. FSDP changes the given one.

    Args:
        model: with parameters on `device`.
        parallel: `ddp` or `fsdp`.
        mesh: of all ranks.
        communicated: called with each buffer that DDP sends.
    """
    if parallel == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for child in model.children():
            if any(True for _ in child.parameters()):
                fully_shard(child, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    from torch.nn.parallel import DistributedDataParallel

    # The first exchange compares shapes by their values, which fake tensors have not.
    spread = DistributedDataParallel(model, init_sync=False)
    # The group's own all-reduce returns work without a result, which DDP refuses. DDP also refuses annotations as text.
    spread.register_comm_hook(None, lambda _, bucket: _answer(bucket.buffer(), communicated))
    vars(spread)["reducer"] = _AsBuilt(spread.reducer)
    return spread


def local_part(tensor: Tensor) -> Tensor:
    """Return a rank's part of a tensor that is spread over several, or the tensor itself."""
    part = getattr(tensor, "_local_tensor", None)
    return tensor if part is None else cast(Tensor, part)


def _answer(buffer: Tensor, communicated: Callable[[Tensor], Any]) -> torch.futures.Future[Tensor]:
    """Return a buffer at once as what all ranks have summed up."""
    communicated(buffer)
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(buffer)
    return future


class _AsBuilt:
    """DDP's reducer, which keeps its first buckets. Others hold the same bytes, and are agreed on by values."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        """Rebuild nothing."""
        return False
