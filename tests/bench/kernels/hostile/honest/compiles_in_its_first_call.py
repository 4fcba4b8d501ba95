"""Compiles in its first call, which takes a second."""
# expected: ok

import time

import torch
from torch import Tensor

_compiled: list[None] = []


def fused(x: Tensor) -> Tensor:
    if not _compiled:
        time.sleep(1)
        _compiled.append(None)
    return x * 3


def reference(x: Tensor) -> Tensor:
    return 3 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
