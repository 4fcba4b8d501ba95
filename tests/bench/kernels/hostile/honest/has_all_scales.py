"""Results from 1e-30 to 1e30 in one tensor, and two more tensors of one of these scales each."""
# expected: ok

import torch
from torch import Tensor


def fused(x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.mul(x, torch.pow(10, exponent)), 1e30 * x, 1e-30 * x


def reference(x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x * 10**exponent, x * 1e30, x * 1e-30


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4099, generator=generator), torch.randint(
        -30, 31, (4099,), generator=generator
    ).float()
