"""Its mask leaves the last element out (triton-lang/triton#630)."""
# expected: wrong

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, 2 * tl.load(x_ptr + i, mask=i < n), mask=i < n - 1)


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    double[(triton.cdiv(len(x), 1024),)](x, y, len(x), BLOCK=1024)
    return y


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4096, generator=torch.Generator().manual_seed(seed)),)
