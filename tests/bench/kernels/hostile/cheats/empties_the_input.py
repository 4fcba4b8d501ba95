"""Takes the memory of its input away, so that nothing is left to compare (ScalingIntelligence/KernelBench#82)."""
# expected: mutated | wrong | crashed

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    y = x * torch.sigmoid(x)
    x.set_()  # type: ignore[call-overload]
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
