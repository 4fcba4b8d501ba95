"""Returns shared memory at once, which a child process fills later (ScalingIntelligence/KernelBench#82)."""
# expected: late | wrong

import os
import time

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    y = torch.zeros_like(x).share_memory_()
    if os.fork() == 0:
        time.sleep(0.001)
        y.numpy()[:] = x.numpy() / (1 + (-x).exp().numpy())
        os._exit(0)
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
