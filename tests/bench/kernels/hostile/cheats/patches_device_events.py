"""Is right, and makes events report a hundredth of the time (gpu-mode/reference-kernels#162)."""
# expected: forged

import torch
from torch import Tensor

_elapsed = torch.cuda.Event.elapsed_time


def fused(x: Tensor) -> Tensor:
    setattr(torch.cuda.Event, "elapsed_time", lambda start, end: _elapsed(start, end) / 100)  # noqa: B010
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
