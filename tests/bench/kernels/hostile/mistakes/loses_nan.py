"""A ReLU that makes zeros of NaN (apache/tvm#19579)."""
# expected: wrong: NaN

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def relu(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(y_ptr + i, tl.where(x > 0, x, 0.0), mask=i < n)


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    relu[(triton.cdiv(len(x), 1024),)](x, y, len(x), BLOCK=1024)
    return y


def reference(x: Tensor) -> Tensor:
    return torch.relu(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    x = torch.randn(4099, generator=torch.Generator().manual_seed(seed))
    x[::100] = float("nan")
    return (x,)
