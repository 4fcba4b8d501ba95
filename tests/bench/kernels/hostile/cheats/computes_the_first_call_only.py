"""Computes in its first call, and replays that result in all others (tensara/tensara#238)."""
# expected: wrong

import torch
from torch import Tensor

_results: list[Tensor] = []


def fused(x: Tensor) -> Tensor:
    if not _results:
        _results.append(x * torch.sigmoid(x))
    return _results[0].clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
