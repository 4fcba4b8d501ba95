"""Ends the process in mid-run with the exit status of success (gpu-mode/pygpubench#7)."""
# expected: crashed

import os

import torch
from torch import Tensor

_calls: list[None] = []


def fused(x: Tensor) -> Tensor:
    _calls.append(None)
    if len(_calls) > 5:
        os._exit(0)
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
