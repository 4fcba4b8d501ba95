"""Takes its arguments by keyword alone, tensors and numbers."""
# expected: ok

import torch
from torch import Tensor

from fusetune.kernels.kernel import Inputs, Kernel


def fused(*, x: Tensor, weight: float, steps: int, flag: bool) -> Tensor:
    return torch.mul(x, weight * steps if flag else weight)


def reference(*, x: Tensor, weight: float, steps: int, flag: bool) -> Tensor:
    return x * (weight * (steps if flag else 1))


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(elements, generator=generator).to(device, dtype)
    return {"x": x, "weight": 0.1, "steps": 3, "flag": seed % 2 == 0}


KERNEL = Kernel("weigh", fused, reference, make_inputs, elements=(4099,))
