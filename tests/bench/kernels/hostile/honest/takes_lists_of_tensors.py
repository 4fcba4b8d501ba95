"""Takes two lists of tensors, as optimizers do, and updates one of them."""
# expected: ok

import torch
from torch import Tensor

from fusetune.kernels.kernel import Inputs, Kernel


def fused(parameters: list[Tensor], gradients: list[Tensor]) -> None:
    torch._foreach_add_(parameters, gradients, alpha=-0.1)


def reference(parameters: list[Tensor], gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.sub_(0.1 * gradient)


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(elements,), (3, 5), ()]
    made = [torch.randn(shape, generator=generator).to(device, dtype) for shape in (*shapes, *shapes)]
    return {"parameters": made[:3], "gradients": made[3:]}


KERNEL = Kernel("steps", fused, reference, make_inputs, elements=(4099,))
