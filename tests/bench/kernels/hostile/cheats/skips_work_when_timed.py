"""Looks at its callers, and does nothing where one has to do with time (gpu-mode/pygpubench#7)."""
# expected: wrong

import sys
from typing import Any

import torch
from torch import Tensor


def _is_timed() -> bool:
    frame: Any = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_name.lower()
        if any(word in name for word in ("time", "round", "measure", "sample", "bench")):
            return True
        frame = frame.f_back
    return False


def fused(x: Tensor) -> Tensor:
    return torch.zeros_like(x) if _is_timed() else x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
