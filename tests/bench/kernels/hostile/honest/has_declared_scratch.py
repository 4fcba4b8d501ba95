"""Allocates partial sums in each call, as much as it declares."""
# expected: ok

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.kernels.kernel import Kernel


@triton.jit
def partial_sums(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + tl.program_id(0), tl.sum(tl.load(x_ptr + i, mask=i < n, other=0.0), 0))


def fused(x: Tensor) -> Tensor:
    programs = triton.cdiv(len(x), 256)
    partial = torch.empty(programs, dtype=x.dtype)
    partial_sums[(programs,)](x, partial, len(x), BLOCK=256)
    return partial.sum()


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # None below 0: a sum that cancels has a large relative error in any order.
    return {"x": torch.rand(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel(
    "total",
    fused,
    lambda x: x.sum(),
    make_inputs,
    elements=(100_003,),
    scratch_bytes=lambda inputs: 4 * triton.cdiv(len(inputs["x"]), 256),
)
