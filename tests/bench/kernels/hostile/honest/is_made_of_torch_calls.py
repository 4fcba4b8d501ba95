"""A chain of torch's own functions, which allocates what its declaration says."""
# expected: ok

import torch
from torch import Tensor

from fusetune.kernels.kernel import Kernel


def fused(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


KERNEL = Kernel(
    "gelu",
    fused,
    torch.nn.functional.gelu,
    make_inputs,
    elements=(4099,),
    scratch_bytes=lambda inputs: 4 * inputs["x"].nbytes,
)
