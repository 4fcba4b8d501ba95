"""Kernels that change tensors which this module keeps, and that notice when those are no longer what they were."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from fusetune.kernels import Kernel

ELEMENTS = 20_000
HERS = [
    torch.randn(2 * ELEMENTS, generator=torch.Generator().manual_seed(seed)).clamp_(min=1e-3)
    for seed in range(8)
]
_COPIES = [tensor.clone() for tensor in HERS]


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
    """Return her own tensors, not copies of them."""
    return {"x": HERS[seed % len(HERS)][:elements]}


def fused(x: torch.Tensor, config: Mapping[str, int] | None = None) -> None:
    """Doubles x in place, in so many steps. Raises where a tensor of hers has changed."""
    if not all(map(torch.equal, HERS, _COPIES)):
        raise RuntimeError("tuning has changed a tensor of hers")
    for part in x.chunk((config or {"STEPS": 256})["STEPS"]):
        part.mul_(2)


def waits(x: torch.Tensor, config: Mapping[str, int] | None = None) -> None:
    """One of its configs is in the middle of a call when the command is ended."""
    if (config or {"STEPS": 1})["STEPS"] == 2:
        time.sleep(3600)
    x.mul_(2)


def reference(x: torch.Tensor) -> None:
    x.mul_(2)


QUICK = Kernel(
    "her_quick",
    fused,
    reference,
    make_inputs,
    mutates=("x",),
    elements=(ELEMENTS,),
    dtypes=(torch.float32,),
    configs=({"STEPS": 256}, {"STEPS": 1}),
    default={"STEPS": 256},
    alignment=64,
)
WAITING = Kernel(
    "her_waiting",
    waits,
    reference,
    make_inputs,
    mutates=("x",),
    elements=(ELEMENTS,),
    dtypes=(torch.float32,),
    configs=({"STEPS": 1}, {"STEPS": 2}),
    default={"STEPS": 1},
    alignment=64,
)
