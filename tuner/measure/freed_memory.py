"""Freed memory stays with the process, so that tensors made on the clock cost no page faults (CPU)."""

from __future__ import annotations

import ctypes
import resource

import torch

# Numbers of mallopt's parameters, from malloc.h of glibc. One arena: those of other threads hold 64 MiB at most.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_NEVER = -1
_PAGE = 4096


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, and take large blocks from there too. Return whether it can (glibc).

    Without it a tensor above 32 MiB is mapped anew in every call. Each of its pages is then faulted in on the clock,
    which can take 10 times as long as the kernel. It holds for the whole process and is never undone.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, 1 << 20), (_M_ARENA_MAX, 1))
    taken = [mallopt(parameter, value) == 1 for parameter, value in wanted]
    return all(taken)


def give_back_freed_memory() -> bool:
    """Return what is freed to the system, once. Return whether there was any (glibc).

    What `keep_freed_memory` asked for holds on. The next tensors cost page faults again.

    Example:
        >>> give_back_freed_memory() in (True, False)
        True
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and trim(0) == 1


def fault_in(size_bytes: int) -> None:
    """Have a free block of so many bytes at hand, each page of which is there. Needs `keep_freed_memory`.

    An aligned block cannot take the place of a freed one of the same size, for the C library looks for a larger one.
    So what was freed by the last call does not serve the next, but this block does.

    Example:
        >>> fault_in(100_000)
    """
    torch.empty(size_bytes + _PAGE, dtype=torch.uint8)[::_PAGE].zero_()


def page_faults() -> int:
    """Return how many pages this process has had mapped so far without reading a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
