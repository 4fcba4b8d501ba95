"""The group of processes that share a training: joining it, leaving it, and how far a process has come in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from fusetune.tuner.parallel.sharding import shard

# Numbers that the host decides by go through gloo on every device, so that no process waits for its GPU.
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
# The first process alone finds a rate or looks into layers, which may take minutes.
TIMEOUT_S = 1800.0


@contextmanager
def joined(device: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Join the group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), and leave it.

    After an error nothing is left: leaving waits for the others, who may wait for this one. The process is to end then.

    Args:
        device: `cpu` (gloo) or `cuda` (nccl). On CUDA the device number LOCAL_RANK becomes the current one.
        timeout_s: seconds that a process waits for the others before it raises an error.
    """
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(_BACKENDS[device], timeout=timedelta(seconds=timeout_s))
    yield
    dist.destroy_process_group()


def warm_up(device: str, parallel: str) -> None:
    """Take a step of a tiny shared model, which loads what a first exchange of gradients needs.

    Args:
        device: `cpu` or `cuda`.
        parallel: `ddp` or `fsdp`.
    """
    model: nn.Module = nn.Linear(1, 1).to(device)
    if parallel == "fsdp":
        shard(model, init_device_mesh(device, (dist.get_world_size(),)), {model})
    else:
        model = DistributedDataParallel(model)
    model(torch.ones(1, 1, device=device)).sum().backward()


def operations_entered() -> int | None:
    """Return the number of collective operations that this process has entered. None: not known.

    It waits for nobody, so any thread may call it. Of a group that waits, the process with the fewest is waited for.
    """
    if not dist.is_initialized() or dist.group.WORLD is None:
        return None
    count = getattr(dist.group.WORLD, "_get_sequence_number_for_group", None)
    try:
        return None if count is None else int(count())
    except RuntimeError:  # a backend that does not count
        return None
