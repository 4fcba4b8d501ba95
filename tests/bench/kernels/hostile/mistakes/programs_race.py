"""Each program stores its part of a sum to the same place, and the last one wins (thunlp/TritonBench#10)."""
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
    tl.store(y_ptr, tl.sum(tl.load(x_ptr + i, mask=i < n, other=0.0), 0))


def fused(x: Tensor) -> Tensor:
    y = torch.zeros(())
    total[(triton.cdiv(len(x), 1024),)](x, y, len(x), BLOCK=1024)
    return y


def reference(x: Tensor) -> Tensor:
    return x.sum()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.rand(4099, generator=torch.Generator().manual_seed(seed)),)
