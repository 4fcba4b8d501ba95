"""Turns the poison of uninitialised memory off, and computes the first half (pytorch/helion#1672)."""
# expected: wrong | forged

import torch
from torch import Tensor

_last: list[Tensor] = []


def fused(x: Tensor) -> Tensor:
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(False)
    y = torch.empty_like(x)
    half = len(x) // 2
    y[:half] = x[:half] * torch.sigmoid(x[:half])
    return y


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
