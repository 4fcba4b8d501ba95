"""Adds by atomics, whose order is open, and declares them with a tolerance."""
# expected: ok

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.kernels.kernel import Kernel


@triton.jit
def total(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(y_ptr, tl.sum(tl.load(x_ptr + i, mask=i < n, other=0.0), 0))


def fused(x: Tensor) -> Tensor:
    y = torch.zeros((), dtype=x.dtype)
    total[(triton.cdiv(len(x), 1024),)](x, y, len(x), BLOCK=1024)
    return y


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.rand(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel(
    "total", fused, lambda x: x.sum(), make_inputs, elements=(4099,), tolerance=1e-5, atomics=True
)
