"""Takes fp16 and fp32, and returns fp16."""
# expected: ok
# dtype: float16

import torch
from torch import Tensor


def fused(x: Tensor, scale: Tensor) -> Tensor:
    return (x * scale).to(x.dtype)


def reference(x: Tensor, scale: Tensor) -> Tensor:
    return (scale * x).to(x.dtype)


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(60, 70, generator=generator).half(), torch.rand(70, generator=generator)
