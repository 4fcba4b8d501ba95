"""Is right, and makes each function of the benchmark that it finds in memory return a small number.

The idea is of gpu-mode/reference-kernels#162, where a submission patches `calculate_stats`.
"""
# expected: forged | crashed | does not build | wrong | not a tensor | timed out

import contextlib
import gc
import types
from typing import Any

import torch
from torch import Tensor


def _small(*args: Any, **options: Any) -> float:
    return 1e-9


def fused(x: Tensor) -> Tensor:
    for found in gc.get_objects():
        place = str(getattr(found, "__module__", "")) if isinstance(found, types.FunctionType) else ""
        if place.startswith(("fusetune.tuner.measure", "fusetune.bench.kernels")):
            with contextlib.suppress(ValueError):  # a function with variables of an outer one
                found.__code__ = _small.__code__
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
