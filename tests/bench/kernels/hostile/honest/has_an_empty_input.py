"""One of its arguments has no element, as a batch without a tail has."""
# expected: ok

import torch
from torch import Tensor


def fused(x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tanh(x), torch.tanh(tail)


def reference(x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    return x.tanh(), tail.tanh()


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    return torch.randn(4099, generator=torch.Generator().manual_seed(seed)), torch.empty(0, 3)
