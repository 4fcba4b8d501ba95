"""One rank of a data parallel training, in a process group whose other ranks are pretended.

torch's group `fake` answers every collective at once and moves nothing. So one process holds what one of N ranks holds,
without the other N - 1: with fake tensors no memory at all, with real ones that of a single rank.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
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


@dataclass(frozen=True)
class OneRank:
    """A model as one rank of a group trains it.

    Args:
        forward: to be called in place of the model.
        without_sharing: context of all forwards of a step but the last.
    """

    forward: nn.Module
    without_sharing: Callable[[], AbstractContextManager[object]] = nullcontext


def rank_of(
    model: nn.Module,
    parallel: Parallel,
    mesh: DeviceMesh,
    called: Container[nn.Module],
    communicated: Callable[[Tensor], Any],
    arrives: Callable[[nn.Module], object] | None = None,
) -> OneRank:
    """Return the model as one rank of the group trains it, as `tuner.parallel.DataParallel` does. FSDP changes it.

    Args:
        model: with parameters on the mesh's device, or where `arrives` takes them from.
        parallel: `ddp` or `fsdp`.
        mesh: of all ranks.
        called: the modules that a forward calls.
        communicated: called with each buffer that DDP sends.
        arrives: as for `tuner.parallel.shard`.
    """
    # These imports take a second, which trainings on one device do not need.
    from fusetune.tuner.parallel import gradients_stay, no_buffers, shard

    if parallel == "fsdp":
        shard(model, mesh, called, arrives)
        return OneRank(model, partial(gradients_stay, model))
    from torch.nn.parallel import DistributedDataParallel

    # The first exchange compares shapes by their values, which fake tensors have not.
    options: dict[str, Any] = {"init_sync": False, no_buffers(): False}
    spread = DistributedDataParallel(model, gradient_as_bucket_view=True, **options)
    # The group's own all-reduce returns work without a result, which DDP refuses. DDP also refuses annotations as text.
    spread.register_comm_hook(None, lambda _, bucket: _answer(bucket.buffer(), communicated))
    vars(spread)["reducer"] = _AsBuilt(spread.reducer)
    return OneRank(spread, spread.no_sync)


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
