"""Is right, and makes each median, mean and minimum a thousandth (gpu-mode/reference-kernels#162)."""
# expected: forged

import statistics

import torch
from torch import Tensor

_median, _mean = statistics.median, statistics.mean


def fused(x: Tensor) -> Tensor:
    statistics.median = lambda data: _median(data) / 1000
    statistics.mean = lambda data: _mean(data) / 1000
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
