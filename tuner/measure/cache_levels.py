"""The levels of memory, and how the last-level cache is emptied of what a call will read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_ROOT = Path("/")
_CACHES = "sys/devices/system/cpu/cpu0/cache"
# Where nothing says how large a cache is: exceeds the last-level cache of most CPUs, and the L2 of most GPUs.
FALLBACK_BYTES = 64 << 20
_UNITS = {"K": 10, "M": 20, "G": 30}
_TIMES = 2  # of the last-level cache: what a flush touches


@dataclass(frozen=True)
class CacheLevel:
    """One level of memory.

    Args:
        name: `L1`, `L2`, `L3`.
        size_bytes: what it holds.
    """

    name: str
    size_bytes: int


def cpu_caches(root: Path = _ROOT) -> tuple[CacheLevel, ...]:
    """Return the data caches of the first core, smallest first. Empty where Linux's sysfs does not say.

    Args:
        root: the root of the file system.

    Example:
        >>> all(level.name.startswith("L") for level in cpu_caches())
        True
    """
    sizes: dict[str, int] = {}
    for index in sorted((root / _CACHES).glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                number, unit = (size[:-1], _UNITS[size[-1]]) if size[-1:] in _UNITS else (size, 0)
                sizes[f"L{int(level)}"] = int(number) << unit
        except (OSError, ValueError):
            continue
    return tuple(CacheLevel(name, sizes[name]) for name in sorted(sizes) if sizes[name] > 0)


def caches_of(device: torch.device | str) -> tuple[CacheLevel, ...]:
    """Return the caches of a device that its working sets may lie in, smallest first. Of a GPU its L2 alone.

    Args:
        device: `cpu` or `cuda`.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return cpu_caches()
    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
    return (CacheLevel("L2", size),) if size else ()


def level_of(working_set_bytes: int, caches: Sequence[CacheLevel]) -> str:
    """Name the smallest level of memory that holds a working set.

    Example:
        >>> level_of(40_000, [CacheLevel("L1", 32_768), CacheLevel("L2", 524_288)])
        'L2'
        >>> level_of(10**9, [CacheLevel("L1", 32_768)])
        'DRAM'
    """
    return next((level.name for level in caches if working_set_bytes <= level.size_bytes), "DRAM")


class CacheFlush:
    """Fills the last-level cache with other data: twice its size is read and written.

    It runs on torch's threads, so the caches that cores have for themselves are filled too. What a GPU was told to
    keep in its L2 is let go first.

    Args:
        device: `cpu` or `cuda`.
        caches: of the device, smallest first. None: those that are found.

    Attributes:
        size_bytes: of the buffer.

    Example:
        >>> flush = CacheFlush("cpu", [CacheLevel("L3", 4096)])
        >>> flush()
        >>> flush.size_bytes
        8192
    """

    def __init__(self, device: torch.device | str, caches: Sequence[CacheLevel] | None = None) -> None:
        device = torch.device(device)
        caches = caches_of(device) if caches is None else caches
        self.size_bytes = _TIMES * (caches[-1].size_bytes if caches else FALLBACK_BYTES)
        self._buffer = torch.zeros(self.size_bytes // 4, dtype=torch.int32, device=device)
        self._let_go = _persisting_reset() if device.type == "cuda" else None

    def __call__(self) -> None:
        """Flush. On a GPU the work is queued, and nothing waits for it."""
        if self._let_go is not None:
            self._let_go()
        self._buffer.add_(1)


def _persisting_reset() -> Callable[[], object] | None:
    """The driver's call after which no line stays in L2 because a kernel asked for it."""
    try:
        reset = ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache
    except (OSError, AttributeError):
        return None
    return lambda: reset()
