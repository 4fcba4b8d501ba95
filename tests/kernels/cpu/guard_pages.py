"""Tensors that end, or begin, where a page lies that nobody may touch."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_NO_ACCESS, _READ_WRITE = 0, 3


@contextmanager
def guarded(elements: int, dtype: torch.dtype, at_start: bool = False) -> Iterator[torch.Tensor]:
    """A tensor between two pages that may not be touched, right before the second, or right behind the first.

    Args:
        elements, dtype: of the tensor.
        at_start: the first element is the first behind a guard; otherwise the last is the last before one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    size = -(-elements * dtype.itemsize // page) * page
    area = mmap.mmap(-1, size + 2 * page)
    start = ctypes.addressof((ctypes.c_char * len(area)).from_buffer(area))
    guards = [ctypes.c_void_p(start), ctypes.c_void_p(start + page + size)]
    for guard in guards:
        assert libc.mprotect(guard, page, _NO_ACCESS) == 0
    offset = page if at_start else page + size - elements * dtype.itemsize
    yield torch.frombuffer(area, dtype=dtype, count=elements, offset=offset)
    for guard in guards:
        assert libc.mprotect(guard, page, _READ_WRITE) == 0
