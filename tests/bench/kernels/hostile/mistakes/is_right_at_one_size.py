"""Has the number of elements of the benchmark written in (triton-lang/triton#630)."""
# expected: wrong | does not build

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    y = torch.full_like(x, float("nan"))
    y[:4096] = 2 * x[:4096]
    return y


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel("twice", fused, lambda x: 2 * x, make_inputs, elements=(4096,))
