"""Adds squares in fp16, of which 65,504 is the largest (microsoft/onnxruntime#29043)."""
# expected: wrong: inf
# dtype: float16

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return (x * x).sum(1, dtype=torch.float16).sqrt()


def reference(x: Tensor) -> Tensor:
    return (x * x).float().sum(1).sqrt().to(x.dtype) if x.dtype == torch.float16 else (x * x).sum(1).sqrt()


def make_inputs(seed: int) -> tuple[Tensor]:
    x = 8 * torch.randn(16, 2000, generator=torch.Generator().manual_seed(seed))
    return (x.half(),)
