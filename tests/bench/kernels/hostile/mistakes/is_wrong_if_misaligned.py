"""Rounds addresses down to 16 bytes, as a vector access does (triton-lang/triton#1330)."""
# expected: wrong | crashed

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    lanes = x.data_ptr() % 16 // x.element_size()
    start = max(0, x.storage_offset() - lanes)
    return 2 * x.as_strided(x.shape, x.stride(), start)


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel("twice", fused, lambda x: 2 * x, make_inputs, elements=(4096,))
