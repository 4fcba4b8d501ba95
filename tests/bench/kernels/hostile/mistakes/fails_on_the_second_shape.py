"""Keeps the buffer of the first shape, which no other shape fits (meta-pytorch/tritonbench#347)."""
# expected: does not build

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel

_buffers: list[Tensor] = []


def fused(x: Tensor) -> Tensor:
    if not _buffers:
        _buffers.append(torch.ones_like(x))
    return torch.add(x, _buffers[0])


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(max(elements, 2), generator=generator).to(device, dtype)}


KERNEL = Kernel("add one", fused, lambda x: x + 1, make_inputs, elements=(4096,))
