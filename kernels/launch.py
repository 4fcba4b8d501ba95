"""The one place that decides which way a kernel takes, and that launches it.

triton        compiled for the GPU that holds the tensors (or recorded, see `kernels.recorder`)
triton-cpu    compiled for the CPU by `kernels.cpu`, where no GPU is
interpreter   Triton's own interpreter, with TRITON_INTERPRET=1 set before Triton is imported: slow, to debug kernels
torch         the plain PyTorch twin, for tensors that no Triton backend can reach
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from triton.backends import backends
from triton.runtime import driver
from triton.runtime.interpreter import InterpretedFunction

from kernels.cpu import why_not

Path = Literal["triton", "triton-cpu", "interpreter", "torch"]
PATHS: tuple[Path, ...] = ("triton", "triton-cpu", "interpreter", "torch")

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
    if not _recording.get() and isinstance(kernel, InterpretedFunction):
        return "interpreter"
    return path_on(device)


def path_on(device: torch.device) -> Path:
    """Say which way kernels take that are not interpreted."""
    if _recording.get() or device.type == "cuda":
        return "triton"
    return "triton-cpu" if device.type == "cpu" and compiles_for_cpu() else "torch"


def compiles_for_cpu() -> bool:
    """Say whether kernels on CPU tensors run compiled: Triton's active driver is the CPU's."""
    return why_not_on_cpu() is None and isinstance(driver.active, backends["cpu"].driver)


@functools.cache
def why_not_on_cpu() -> str | None:
    """Return why Triton cannot compile for this machine's CPU, or None where it can; a GPU's driver goes first."""
    if "cpu" not in backends:
        return (
            "Triton does not know its backend for CPUs; `pip install` registers it, a bare checkout does not."
        )
    return why_not()


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
