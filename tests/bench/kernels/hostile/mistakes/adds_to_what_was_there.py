"""Adds by atomics to a result that only its autotuner would have set to zero (triton-lang/triton#7181)."""
# expected: wrong

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def total(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(y_ptr, tl.sum(tl.load(x_ptr + i, mask=i < n, other=0.0), 0))


_y = torch.zeros(())


def fused(x: Tensor) -> Tensor:
    total[(triton.cdiv(len(x), 1024),)](x, _y, len(x), BLOCK=1024)
    return _y.clone()


def reference(x: Tensor) -> Tensor:
    return x.sum()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.rand(4099, generator=torch.Generator().manual_seed(seed)),)
