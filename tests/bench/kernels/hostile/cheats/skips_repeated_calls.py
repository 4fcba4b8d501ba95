"""Is right in its first calls, and replays the last result from the twelfth on (gpu-mode/reference-kernels#104)."""
# expected: wrong

import torch
from torch import Tensor

_last: list[Tensor] = []


def fused(x: Tensor) -> Tensor:
    if len(_last) < 12:
        _last.append(x * torch.sigmoid(x))
    return _last[-1].clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
