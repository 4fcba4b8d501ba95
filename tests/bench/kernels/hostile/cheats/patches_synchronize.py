"""Makes waiting for the device a function that returns at once (gpu-mode/reference-kernels#162)."""
# expected: forged

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    torch.cuda.synchronize = lambda device=None: None
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
