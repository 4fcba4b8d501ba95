"""Returns float64 where fp32 is due, as an upcast leads to (pytorch/helion#1038)."""
# expected: wrong: float64

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return 2 * x.double()


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
