"""Has a pool of threads of its own, and returns when they are done."""
# expected: ok

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_pool = ThreadPoolExecutor(2)


def fused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    half = len(x) // 2
    list(_pool.map(lambda part: torch.mul(x[part], 2, out=y[part]), (slice(half), slice(half, None))))
    return y


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
