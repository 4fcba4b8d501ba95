"""A matrix product of fp32 whose factors are rounded to bf16 (anthony-chaudhary/dos-kernel#107)."""
# expected: wrong

import torch
from torch import Tensor


def fused(a: Tensor, b: Tensor) -> Tensor:
    return (a.bfloat16() @ b.bfloat16()).float()


def reference(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 64, generator=generator), torch.randn(64, 64, generator=generator)
