"""A softmax that does not subtract the maximum, at logits of about 100 (deepspeedai/DeepSpeed#581)."""
# expected: wrong: NaN

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    e = x.exp()
    return e.div_(e.sum(1, keepdim=True))


def reference(x: Tensor) -> Tensor:
    return torch.softmax(x, 1)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (100 * torch.randn(60, 70, generator=torch.Generator().manual_seed(seed)),)
