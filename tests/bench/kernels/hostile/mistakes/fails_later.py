"""Runs out of something in its fifteenth call (pytorch/helion#2686, of searches that lose everything)."""
# expected: does not build | crashed

import torch
from torch import Tensor

_calls: list[None] = []


def fused(x: Tensor) -> Tensor:
    _calls.append(None)
    if len(_calls) >= 15:
        raise RuntimeError("no more handles")
    return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
