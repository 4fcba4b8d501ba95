"""Updates an argument, which is declared, and returns a part of it, as the reference does."""
# expected: ok

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    return x.mul_(2)[: len(x) // 2 + 1]


def reference(x: Tensor) -> Tensor:
    x.copy_(x + x)
    return x[: len(x) // 2 + 1]


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel("double", fused, reference, make_inputs, mutates=("x",), elements=(4099,))
