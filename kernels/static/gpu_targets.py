"""The GPUs that kernels are compiled for without one, and the number of warps that fit on each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusetune.errors import InvalidValueError
from fusetune.kernels.triton_inside import GPUTarget


@dataclass(frozen=True)
class _Limits:
    """The capacity of one streaming multiprocessor (compute unit on AMD).

    On NVIDIA the registers are those of the whole multiprocessor, allocated to warps in units of 256. On AMD they are
    those of one lane of one of its four SIMDs, allocated in units of 8.
    """

    warps: int
    blocks: int
    registers: int
    shared_bytes: int


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". AMD CDNA3 and CDNA4 ISA guides.
_LIMITS = {
    "sm_80": _Limits(64, 32, 65536, 164 << 10),
    "sm_86": _Limits(48, 16, 65536, 100 << 10),
    "sm_89": _Limits(48, 24, 65536, 100 << 10),
    "sm_90": _Limits(64, 32, 65536, 228 << 10),
    "sm_100": _Limits(64, 32, 65536, 228 << 10),
    "gfx942": _Limits(32, 16, 512, 64 << 10),
    "gfx950": _Limits(32, 16, 512, 160 << 10),
}
TARGETS = tuple(_LIMITS)


def gpu_target(target: str) -> GPUTarget:
    """Return Triton's description of one of `TARGETS`.

    Raises:
        ValueError: an unknown target.

    Example:
        >>> gpu_target("gfx942").warp_size
        64
    """
    if target not in _LIMITS:
        raise InvalidValueError.unknown("target", target, TARGETS, in_order=True)
    if target.startswith("sm_"):
        return GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    return GPUTarget("hip", target, 64)


def occupancy(target: str, registers: int, shared_bytes: int, num_warps: int) -> float:
    """Return the resident warps of a multiprocessor over those that it can hold.

    Args:
        target: one of `TARGETS`.
        registers: per thread.
        shared_bytes: of a program.
        num_warps: of a program.

    Example:
        >>> occupancy("sm_90", registers=40, shared_bytes=0, num_warps=4)
        0.75

    Source: CUDA Occupancy Calculator.
    """
    limits = _LIMITS[target]
    if target.startswith("sm_"):
        per_warp = _round_up(max(registers, 1) * 32, 256)
        # Each of the four schedulers has its own quarter of the registers.
        warps = limits.registers // per_warp // 4 * 4
        shared_of_block = shared_bytes + 1024  # CUDA reserves 1 KiB of every block
    else:
        warps = 4 * min(limits.warps // 4, limits.registers // _round_up(max(registers, 1), 8))
        shared_of_block = shared_bytes
    blocks = min(limits.blocks, limits.warps // num_warps, warps // num_warps)
    if shared_of_block:
        blocks = min(blocks, limits.shared_bytes // shared_of_block)
    return blocks * num_warps / limits.warps


def _round_up(value: int, unit: int) -> int:
    """Return the least multiple of `unit` that is not below `value`."""
    return math.ceil(value / unit) * unit
