"""Returns the transpose of a square matrix, whose shape and sum are right (triton-lang/triton#3952)."""
# expected: wrong

import torch
from torch import Tensor


def fused(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b).T.contiguous()


def reference(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 64, generator=generator), torch.randn(64, 64, generator=generator)
