"""Does nothing while the garbage collector is off, as stopwatches have it (gpu-mode/pygpubench#7, of warm-up)."""
# expected: wrong

import gc

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x) if gc.isenabled() else torch.zeros_like(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
