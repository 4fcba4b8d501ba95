"""Stops its own process, so that no clock of its own runs (tile-ai/tilelang#2838, of candidates that do not end)."""
# expected: timed out

import os
import signal

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSTOP)
    return x * x


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
