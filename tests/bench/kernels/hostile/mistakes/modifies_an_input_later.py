"""Zeroes its input from the tenth call on (gpu-mode/reference-kernels#104, of calls that are not checked)."""
# expected: mutated

import torch
from torch import Tensor

_calls: list[None] = []


def fused(x: Tensor) -> Tensor:
    _calls.append(None)
    y = x * torch.sigmoid(x)
    if len(_calls) >= 10:
        x.zero_()
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
