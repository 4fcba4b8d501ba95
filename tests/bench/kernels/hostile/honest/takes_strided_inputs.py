"""Takes a transposed matrix, every second row of another, and an expanded vector."""
# expected: ok

import torch
from torch import Tensor


def fused(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.addcmul(x, y, z)


def reference(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x + y * z


def make_inputs(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(70, 60, generator=generator).T
    y = torch.randn(120, 70, generator=generator)[::2]
    return x, y, torch.randn(70, generator=generator).expand(60, 70)
