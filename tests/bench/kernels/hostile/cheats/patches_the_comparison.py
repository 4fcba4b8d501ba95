"""Returns zeros, and makes all comparisons say that they are close (gpu-mode/reference-kernels#162)."""
# expected: wrong | forged

import numpy
import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    for module in (torch, numpy):
        for name in ("allclose", "equal", "array_equal"):
            setattr(module, name, lambda *args, **options: True)
    torch.testing.assert_close = lambda *args, **options: None
    return torch.zeros_like(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
