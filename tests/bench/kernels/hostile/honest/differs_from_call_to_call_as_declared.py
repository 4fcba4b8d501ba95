"""Adds in another order each time, as atomics on a GPU do, and declares it."""
# expected: ok

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    return x[torch.randperm(len(x))].cumsum(0)[-1]


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.rand(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel(
    "total",
    fused,
    lambda x: x.sum(),
    make_inputs,
    elements=(4099,),
    tolerance=1e-4,
    atomics=True,
    scratch_bytes=lambda inputs: 24 * len(inputs["x"]),
)
