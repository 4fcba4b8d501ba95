"""Its module dies while it is imported (triton-lang/triton#6803, of one config that ends a search)."""
# expected: crashed

import os
import signal

import torch
from torch import Tensor

os.kill(os.getpid(), signal.SIGSEGV)


def fused(x: Tensor) -> Tensor:
    return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
