"""Subtracts the maximum in place before it takes a softmax (unslothai/unsloth#5001)."""
# expected: mutated

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    x -= x.amax(1, keepdim=True)
    e = x.exp()
    return e.div_(e.sum(1, keepdim=True))


def reference(x: Tensor) -> Tensor:
    return torch.softmax(x, 1)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(64, 65, generator=torch.Generator().manual_seed(seed)),)
