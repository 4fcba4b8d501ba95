"""Makes its step in place twice, as a kernel that is tuned on the caller's tensors does (triton-lang/triton#5339)."""
# expected: wrong

import torch
from torch import Tensor

_tuned: list[None] = []


def fused(parameter: Tensor, gradient: Tensor) -> None:
    if not _tuned:
        _tuned.append(None)
        parameter.sub_(0.1 * gradient)
    parameter.sub_(0.1 * gradient)


def reference(parameter: Tensor, gradient: Tensor) -> None:
    parameter.sub_(0.1 * gradient)


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4099, generator=generator), torch.randn(4099, generator=generator)
