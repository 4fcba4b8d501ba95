"""Blocks all signals that can be blocked, and loops (tile-ai/tilelang#2838)."""
# expected: timed out

import signal

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        signal.sigpending()


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
