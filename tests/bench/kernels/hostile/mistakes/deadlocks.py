"""Takes a lock that it already holds (tile-ai/tilelang#2838)."""
# expected: timed out

import threading

import torch
from torch import Tensor

_lock = threading.Lock()


def fused(x: Tensor) -> Tensor:
    with _lock, _lock:
        return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
