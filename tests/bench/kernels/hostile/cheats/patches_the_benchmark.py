"""Is right, and replaces each function of the benchmark that it finds in memory by one that returns a small number.

The idea is of gpu-mode/reference-kernels#162, where a submission patches `calculate_stats`.
"""
# expected: forged | crashed | does not build

import sys
import types

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    for name, module in list(sys.modules.items()):
        if name.startswith(("fusetune.tuner.measure", "fusetune.bench.kernels")):
            for key, value in list(vars(module).items()):
                if isinstance(value, types.FunctionType):
                    setattr(module, key, lambda *args, **options: 1e-9)
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
