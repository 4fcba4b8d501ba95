"""Adds bytes in bytes (triton-lang/triton#2296)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return x.sum(1, dtype=torch.int8).long()


def reference(x: Tensor) -> Tensor:
    return x.sum(1)


def make_inputs(seed: int) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-128, 128, (60, 700), generator=generator, dtype=torch.int8),)
