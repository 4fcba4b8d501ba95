"""Returns one number where each element has its own (pytorch/executorch#7589)."""
# expected: wrong: shape

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return x.mean()


def reference(x: Tensor) -> Tensor:
    return x.mean().expand(x.shape).clone()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
