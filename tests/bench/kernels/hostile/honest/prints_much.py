"""Prints a megabyte in each of its first calls, as a forgotten trace does."""
# expected: ok

import torch
from torch import Tensor

_calls: list[None] = []


def fused(x: Tensor) -> Tensor:
    if len(_calls) < 4:
        _calls.append(None)
        print("x" * 1_000_000)
    return 2 * x


def reference(x: Tensor) -> Tensor:
    return x + x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
