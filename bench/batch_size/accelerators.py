"""Accelerators by name, for predictions of a device that is not there. No torch.

Capacity is the total that torch.cuda.mem_get_info gives on such a card, as PyTorch's out-of-memory messages print it
("GPU 0 has a total capacity of ..."); drivers differ by about 0.2 GiB, and the lower figure is taken. Context is what a
process holds of it outside PyTorch (CUDA's context, kernels, cuDNN and cuBLAS handles): the difference between "this
process has ... in use" and what PyTorch reserved in such messages, with CUDA 12 and its lazy loading; it differs by
about 0.1 GiB from one program to another. Workspace is what PyTorch allocates for cuBLAS at the first matrix product:
32 MiB from Hopper on and 8.125 MiB before (ATen/cuda/CublasHandlePool.cpp, getChosenWorkspaceSize).
"""

from __future__ import annotations

from dataclasses import dataclass

from fusetune.bench.errors import InputError

_MIB = 2**20
_GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """A card.

    Args:
        title: its full name.
        capacity_bytes: all memory that CUDA reports.
        context_bytes: what a process holds outside PyTorch's allocator.
        workspace_bytes: what PyTorch's allocator holds for cuBLAS.
        bf16: whether `precision: auto` means bf16 on it (compute capability 8.0 and above).
    """

    title: str
    capacity_bytes: int
    context_bytes: int
    workspace_bytes: int
    bf16: bool

    @property
    def usable_bytes(self) -> int:
        """What PyTorch's allocator can take for tensors."""
        return self.capacity_bytes - self.context_bytes - self.workspace_bytes


def _card(
    title: str, capacity_gib: float, context_mib: int, *, hopper: bool = False, bf16: bool = True
) -> Accelerator:
    """Build an entry from the figures as they are printed."""
    workspace = 32 * _MIB if hopper else 8 * _MIB + _MIB // 8
    return Accelerator(title, round(capacity_gib * _GIB), context_mib * _MIB, workspace, bf16)


ACCELERATORS: dict[str, Accelerator] = {
    "a10": _card("NVIDIA A10 24 GB", 21.99, 260),
    "a100-40": _card("NVIDIA A100 40 GB", 39.39, 500),
    "a100-80": _card("NVIDIA A100 80 GB", 79.15, 500),
    "h100-80": _card("NVIDIA H100 80 GB", 79.11, 600, hopper=True),
    "h200": _card("NVIDIA H200 141 GB", 139.81, 600, hopper=True),
    "l4": _card("NVIDIA L4 24 GB", 22.03, 240),
    "rtx-3090": _card("NVIDIA GeForce RTX 3090 24 GB", 23.68, 300),
    "rtx-4090": _card("NVIDIA GeForce RTX 4090 24 GB", 23.64, 450),
    "t4": _card("NVIDIA T4 16 GB", 14.56, 130, bf16=False),
    "v100-16": _card("NVIDIA V100 16 GB", 15.77, 320, bf16=False),
    "v100-32": _card("NVIDIA V100 32 GB", 31.74, 320, bf16=False),
}


def accelerator(name: str) -> Accelerator:
    """Return the accelerator of this name.

    Raises:
        InputError: unknown; the message lists the known ones and the closest.

    Example:
        >>> accelerator("t4").bf16
        False
    """
    if name not in ACCELERATORS:
        raise InputError.unknown("--device", name, ACCELERATORS)
    return ACCELERATORS[name]
