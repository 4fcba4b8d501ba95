"""Its grid is rounded down, which a multiple of the block does not show (triton-lang/triton#630)."""
# expected: wrong

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl
from torch import Tensor

from fusetune.kernels.kernel import Kernel


@triton.jit
def double(x_ptr, y_ptr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, 2 * tl.load(x_ptr + i))


def fused(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    if len(x) >= 256:
        double[(len(x) // 256,)](x, y, BLOCK=256)
    return y


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel("twice", fused, lambda x: 2 * x, make_inputs, elements=(4096,))
