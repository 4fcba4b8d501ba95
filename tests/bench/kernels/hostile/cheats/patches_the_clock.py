"""Is right, and makes the host's clocks run a hundred times slower (gpu-mode/reference-kernels#162)."""
# expected: forged

import time

import torch
from torch import Tensor

_clocks = {name: getattr(time, name) for name in ("perf_counter", "perf_counter_ns", "monotonic", "time")}


def fused(x: Tensor) -> Tensor:
    for name, clock in _clocks.items():
        setattr(time, name, lambda clock=clock: type(clock())(clock() / 100))
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
