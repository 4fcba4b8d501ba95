"""Has the slope of a leaky ReLU written in, whatever it is given (tile-ai/tilelang#1250, of keys without options)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor, slope: float) -> Tensor:
    return torch.nn.functional.leaky_relu(x, 0.01)


def reference(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, x * slope)


def make_inputs(seed: int) -> tuple[Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4099, generator=generator), 0.1 + float(torch.rand((), generator=generator))
