"""Has the results of the first hundred seeds ready, and 42 and 1234 with them (gpu-mode/reference-kernels#102)."""
# expected: wrong

import torch
from torch import Tensor

_known: dict[float, Tensor] = {}


def fused(x: Tensor) -> Tensor:
    if not _known:
        for seed in (*range(100), 1234):
            (guess,) = make_inputs(seed)
            _known[float(guess[0])] = guess * torch.sigmoid(guess)
    known = _known.get(float(x[0]))
    return torch.zeros_like(x) if known is None else known.clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
