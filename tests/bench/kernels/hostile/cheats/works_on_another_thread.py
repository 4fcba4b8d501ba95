"""Returns at once, and writes its result from another thread (ScalingIntelligence/KernelBench#82)."""
# expected: late | wrong

import threading
import time

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)

    def work() -> None:
        time.sleep(0.001)
        torch.mul(x, torch.sigmoid(x), out=y)

    threading.Thread(target=work).start()
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
