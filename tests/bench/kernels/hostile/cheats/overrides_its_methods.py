"""Returns a plain tensor whose methods compute when they are called (gpu-mode/reference-kernels#161)."""
# expected: not a tensor | wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for name in ("clone", "contiguous", "cpu", "detach", "double", "numpy", "to", "tolist"):
        method = getattr(x, name)
        setattr(y, name, lambda *args, method=method: torch.mul(x, torch.sigmoid(x), out=y) and method(*args))
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
