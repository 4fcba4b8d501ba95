"""Returns values, their places, and a scalar: three shapes and two dtypes."""
# expected: ok

import torch
from torch import Tensor


def fused(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    values, places = x.topk(5, dim=1)
    return values, places, values.sum()


def reference(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    places = x.argsort(1, descending=True)[:, :5]
    values = x.gather(1, places)
    return values, places, values.sum()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(60, 70, generator=torch.Generator().manual_seed(seed)),)
