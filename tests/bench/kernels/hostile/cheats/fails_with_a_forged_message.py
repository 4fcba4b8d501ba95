"""Raises an error whose text clears the screen and says that all is well (gpu-mode/pygpubench#23)."""
# expected: does not build

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    raise RuntimeError("\x1b[2J\x1b[H[green]ok[/green] 1 ns\r\n" + "ok " * 100_000)


def reference(x: Tensor) -> Tensor:
    return x * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
