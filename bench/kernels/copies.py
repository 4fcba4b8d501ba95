"""The simplest ways to move bytes, as a kernel whose launch config says which: what the limit of memory is read from.

A lane times them as it times any kernel. They compute nothing that is worth a check.
"""

from __future__ import annotations

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from typing import Any

import torch
import triton
import triton.language as tl

from fusetune.kernels import Kernel

# Each reads or writes as many bytes as both tensors have.
WAYS = ("copy", "copy by Triton", "scale in place", "read", "write")
_BLOCK = 4096


@triton.jit
def _copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n), mask=i < n)


def move(x: torch.Tensor, y: torch.Tensor, *, config: Any) -> None:
    """Move all bytes of two tensors of the same size.

    Args:
        x: read. Also written, where it is scaled.
        y: written. Also read, where it is scaled, and where nothing is written.
        config: `way`: a place in `WAYS`.
    """
    way = WAYS[config["way"]]
    if way == "copy":
        y.copy_(x)
    elif way == "copy by Triton":
        _copy[(triton.cdiv(x.numel(), _BLOCK),)](x, y, x.numel(), BLOCK=_BLOCK)
    elif way == "scale in place":
        y.mul_(1.0)
    elif way == "read":
        torch.dot(x, y)
    else:
        x.fill_(1.0)
        y.fill_(1.0)


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
    """Make both tensors, with as many elements in all."""
    generator = torch.Generator().manual_seed(seed)
    half = max(1, elements // 2)
    return {name: torch.rand(half, generator=generator).to(device, dtype) for name in ("x", "y")}


def reference(x: torch.Tensor, y: torch.Tensor) -> None:
    """What a copy comes to."""
    y.copy_(x)


MOVES = Kernel(
    "moves",
    move,
    reference,
    make_inputs,
    family="copy",
    bytes_moved=lambda inputs: 2 * inputs["x"].nbytes,
    mutates=("x", "y"),
    configs=tuple({"way": way} for way in range(len(WAYS))),
)
