"""Memory sizes of accelerators by name, for predictions without the device. No torch.

Capacity is the total of torch.cuda.mem_get_info, which PyTorch's out-of-memory messages print ("GPU 0 has a total
capacity of ..."). Drivers differ by about 0.2 GiB, and the table has the lower figure.

Context is a process's memory outside PyTorch: CUDA's context, kernels, cuDNN and cuBLAS handles. Such messages give it
as "this process has ... in use" less PyTorch's reserved memory. The figures are for CUDA 12 with lazy loading. They
differ by about 0.1 GiB between programs.

Workspace is PyTorch's allocation for cuBLAS at the first matrix product. It is 32 MiB from Hopper on and 8.125 MiB
before (ATen/cuda/CublasHandlePool.cpp, getChosenWorkspaceSize).
"""

from __future__ import annotations

from dataclasses import dataclass

from fusetune.bench.errors import InputError

_MIB = 2**20
_GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """Memory and precision of an accelerator.

    Args:
        title: its full name.
        capacity_bytes: total memory that CUDA reports.
        context_bytes: memory of a process outside PyTorch's allocator.
        workspace_bytes: memory that PyTorch's allocator holds for cuBLAS.
        bf16: whether `precision: auto` is bf16 on this device (compute capability 8.0 and above).
    """

    title: str
    capacity_bytes: int
    context_bytes: int
    workspace_bytes: int
    bf16: bool

    @property
    def usable_bytes(self) -> int:
        """Memory that PyTorch's allocator can use for tensors."""
        return self.capacity_bytes - self.context_bytes - self.workspace_bytes


def _card(
    title: str, capacity_gib: float, context_mib: int, *, hopper: bool = False, bf16: bool = True
) -> Accelerator:
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
        InputError: the name is unknown. The message lists the known names and the closest.

    Example:
        >>> accelerator("t4").bf16
        False
    """
    if name not in ACCELERATORS:
        raise InputError.unknown("--device", name, ACCELERATORS)
    return ACCELERATORS[name]
