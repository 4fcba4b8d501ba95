"""Returns the infinity of the other sign, where only its place is compared (gpu-mode/pygpubench#7)."""
# expected: wrong: inf

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.where(x.isinf(), -x, 2 * x)


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    x = torch.randn(4099, generator=torch.Generator().manual_seed(seed))
    x[::100] = float("inf")
    return (x,)
