"""Adds tiles of different shapes, which Triton refuses when it compiles (triton-lang/triton#6803)."""
# expected: does not build

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i) + tl.arange(0, 2 * BLOCK))


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    double[(1,)](x, y, len(x), BLOCK=1024)
    return y


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4096, generator=torch.Generator().manual_seed(seed)),)
