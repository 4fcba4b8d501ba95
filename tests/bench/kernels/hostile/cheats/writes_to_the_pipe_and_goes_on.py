"""Puts a forged answer before the true one in each open pipe, and goes on (gpu-mode/pygpubench#7)."""
# expected: crashed | forged | wrong | timed out

import contextlib
import os
import pickle
import stat
import struct

import torch
from torch import Tensor

_calls: list[None] = []


def fused(x: Tensor) -> Tensor:
    _calls.append(None)
    answer = pickle.dumps((1e-9, {"wall, cold": 1e-9}, None))
    for number in range(3, 256):
        with contextlib.suppress(OSError):
            mode = os.fstat(number).st_mode
            if len(_calls) > 8 and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                os.write(number, struct.pack("!i", len(answer)) + answer)
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
