"""The one place that decides which way a kernel takes, and that launches it.

triton        compiled for the GPU that holds the tensors (or recorded, see `kernels.recorder`)
interpreter   Triton's own interpreter, with TRITON_INTERPRET=1 set before this package is imported: slow and exact
torch         the plain PyTorch twin, for tensors that no Triton backend can reach
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from triton.runtime.interpreter import InterpretedFunction

Path = Literal["triton", "interpreter", "torch"]

_recording: ContextVar[bool] = ContextVar("recording", default=False)


@dataclass(frozen=True)
class LaunchConfig:
    """How a kernel is cut up: elements of a program, warps that share them, stages of its software pipeline."""

    block_size: int
    num_warps: int
    num_stages: int = 1


def path_of(kernel: Any, device: torch.device) -> Path:
    """Say which way `kernel` takes for tensors on `device`.

    Args:
        kernel: a `@triton.jit` function.
        device: where its tensors are.
    """
    if _recording.get():
        return "triton"
    if isinstance(kernel, InterpretedFunction):
        return "interpreter"
    return "triton" if device.type == "cuda" else "torch"


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, config: LaunchConfig, **constants: Any
) -> None:
    """Launch `kernel` on `grid` programs; nothing is launched on an empty grid.

    Args:
        kernel: a `@triton.jit` function whose `path_of` is not torch. It takes BLOCK_SIZE as a constexpr.
        grid: number of programs along each axis.
        arguments: tensors and numbers, in the kernel's order.
        config: the launch config.
        constants: the kernel's other constexprs.
    """
    if 0 in grid:
        return
    kernel[grid](
        *arguments,
        BLOCK_SIZE=config.block_size,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        **constants,
    )


@contextmanager
def as_if_on_gpu() -> Iterator[None]:
    """Let every kernel take the triton path, whatever holds the tensors: for a stand-in driver that records."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)
