"""Writes a forged answer to each open pipe and socket, and leaves (gpu-mode/pygpubench#7)."""
# expected: crashed | forged | wrong

import contextlib
import os
import pickle
import stat
import struct

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    answer = pickle.dumps({"status": "ok", "latency_s": 1e-9, "latencies_s": {"wall, cold": 1e-9}})
    for number in range(3, 256):
        with contextlib.suppress(OSError):
            mode = os.fstat(number).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                os.write(number, struct.pack("!i", len(answer)) + answer)
    os._exit(0)


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
