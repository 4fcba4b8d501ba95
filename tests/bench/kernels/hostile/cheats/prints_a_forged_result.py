"""Prints what a benchmark may print, and leaves (gpu-mode/pygpubench#23)."""
# expected: crashed

import json
import os
import sys

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    result = {"name": "prints_a_forged_result", "status": "ok", "latency_s": 1e-9, "check": "pass"}
    for stream in (sys.stdout, sys.stderr, sys.__stdout__):
        print(json.dumps([result]), file=stream, flush=True)
    os._exit(0)


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
