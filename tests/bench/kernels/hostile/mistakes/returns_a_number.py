"""Returns a number of Python where a tensor is due (pytorch/executorch#7589, of checks that broadcast)."""
# expected: not a tensor | wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> float:
    return float(x.sum())


def reference(x: Tensor) -> Tensor:
    return x.sum()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
