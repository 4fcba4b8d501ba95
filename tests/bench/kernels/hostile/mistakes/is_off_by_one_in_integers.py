"""Rounds half up where halves go to the even number: integers have no tolerance (triton-lang/triton#11531)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return (x + 0.5).floor().to(torch.int32)


def reference(x: Tensor) -> Tensor:
    return x.round().to(torch.int32)


def make_inputs(seed: int) -> tuple[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-1000, 1000, (4099,), generator=generator) / 2,)
