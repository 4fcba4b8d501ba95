"""Raises SystemExit, which `except Exception` does not catch (gpu-mode/pygpubench#7)."""
# expected: crashed | does not build

import sys

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    sys.exit(0)


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
