"""A variance as the mean of squares less the square of the mean, far from zero (pytorch/pytorch#40302)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return (x * x).mean(1) - x.mean(1) ** 2


def reference(x: Tensor) -> Tensor:
    return x.var(1, correction=0)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (1000 + torch.randn(60, 700, generator=torch.Generator().manual_seed(seed)),)
