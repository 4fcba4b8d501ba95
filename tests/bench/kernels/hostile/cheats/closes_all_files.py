"""Closes every file of the process, so that nothing can be said of it (gpu-mode/pygpubench#7)."""
# expected: crashed | timed out

import os

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    os.closerange(0, 256)
    return x * x


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
