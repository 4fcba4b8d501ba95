"""Imports a module that is not there (triton-lang/triton#6803)."""
# expected: does not build: no_such_module

import torch
from no_such_module import fast_silu  # type: ignore[import-not-found]
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return fast_silu(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
