"""Is right, and sets torch to eight threads where it was given one (gpu-mode/reference-kernels#162, of settings)."""
# expected: forged

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    torch.set_num_threads(8)
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
