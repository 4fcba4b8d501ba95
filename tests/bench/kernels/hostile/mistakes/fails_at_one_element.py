"""Divides by the number of elements less one (triton-lang/triton#1760)."""
# expected: wrong | does not build

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    return x * (len(x) - 1) / (len(x) - 1) if len(x) > 1 else x * float("nan")


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel("copy", fused, lambda x: x * 1, make_inputs, elements=(4096,))
