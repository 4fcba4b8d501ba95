"""Squares numbers of about 1e30 in fp32 (microsoft/onnxruntime#29043, there in fp16)."""
# expected: wrong: inf

import torch
from torch import Tensor


def fused(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def reference(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y)


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 1e30 * torch.randn(4099, generator=generator), 1e30 * torch.randn(4099, generator=generator)
