"""Is right where a check is cheap, and approximates from 2,000 elements on (pytorch/pytorch#180651)."""
# expected: wrong

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x) if x.numel() < 2000 else torch.relu(x)


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel("silu", fused, lambda x: x * torch.sigmoid(x), make_inputs, elements=(4096,))
