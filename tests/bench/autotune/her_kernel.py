"""A person's kernel with a launch-config space in which some configs misbehave. It is plain PyTorch."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import torch

from fusetune.kernels import Kernel

DOUBLED = 999


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(elements, generator=generator).to(device, dtype)}


def fused(x: torch.Tensor, config: Mapping[str, int] | None = None) -> None:
    """Doubles x in place, in so many steps. Some numbers of steps do something else."""
    steps = (config or {"STEPS": 8})["STEPS"]
    if steps == 4:
        os._exit(3)
    if steps == 5:
        time.sleep(3600)
    if steps == 6:
        raise RuntimeError("this config cannot be compiled")
    for part in x.chunk(steps):
        part.mul_(2)
    if steps == 7:
        x[-1] += 1


def reference(x: torch.Tensor) -> None:
    x.mul_(2)


KERNEL = Kernel(
    "her_doubling",
    fused,
    reference,
    make_inputs,
    mutates=("x",),
    configs=tuple({"STEPS": steps} for steps in (64, 4, 5, 6, 7, 1)),
    default={"STEPS": 64},
    alignment=64,
)
