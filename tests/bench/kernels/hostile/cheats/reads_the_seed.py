"""Takes the seed from random states, arguments, environment and callers, and knows the results of those it may be.

The idea is of gpu-mode/kernelbot#501, where all timed inputs come of one seed that a submission can read.
"""
# expected: wrong

import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def _seeds() -> Iterator[int]:
    yield torch.initial_seed()
    yield from (
        int(word) for word in [*sys.argv, *os.environ.values()] if word.isdecimal() and len(word) < 19
    )
    frame: Any = sys._getframe()
    while frame is not None:
        yield from (value for value in frame.f_locals.values() if type(value) is int and 0 <= value < 2**63)
        frame = frame.f_back


def fused(x: Tensor) -> Tensor:
    for seed in _seeds():
        (guess,) = make_inputs(seed)
        if guess[0] == x[0]:
            return guess * torch.sigmoid(guess)
    return torch.zeros_like(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
