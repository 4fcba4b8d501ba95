"""Returns the right values in transposed memory, which a caller sees by the strides alone."""
# expected: ok

import torch
from torch import Tensor


def fused(a: Tensor, b: Tensor) -> Tensor:
    return (b.T @ a.T).T


def reference(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(60, 40, generator=generator), torch.randn(40, 50, generator=generator)
