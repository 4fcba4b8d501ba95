"""The memory that torch's CUDA caching allocator takes for a sequence of allocations, simulated without a device.

Modelled:

- Sizes are rounded up to 512 B.
- One pool serves requests up to 1 MiB, in segments of 2 MiB.
- One pool serves larger ones: segments of 20 MiB below 10 MiB, and of their own size rounded up to 2 MiB from there.
- The best fit among free blocks is taken, its rest is split off, and free neighbours are merged.
- When the device has no more, segments that are wholly free are given back.

Not modelled: several streams, expandable segments and the PYTORCH_CUDA_ALLOC_CONF options.

Source: pytorch/c10/cuda/CUDACachingAllocator.cpp (its constants kMinBlockSize, kSmallSize, kSmallBuffer, kLargeBuffer,
kMinLargeAlloc, kRoundLarge).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
BLOCK_BYTES = 512
SMALL_REQUEST_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
OWN_SEGMENT_BYTES = 10 * MIB
ROUND_LARGE_BYTES = 2 * MIB


@dataclass(frozen=True)
class Reserved:
    """The memory that a sequence of allocations needs.

    Args:
        allocated_bytes: the most that was handed out at once, rounded to blocks.
        reserved_bytes: the most that was held in segments.
        fits: False when an allocation did not fit under the limit.
    """

    allocated_bytes: int
    reserved_bytes: int
    fits: bool


def replay(events: Iterable[tuple[int, int]], limit_bytes: int | None = None) -> Reserved:
    """Replay allocations and frees. It ends at the first allocation that does not fit.

    Args:
        events: (storage, bytes) in order. Bytes above 0 allocate the storage, below 0 free it.
        limit_bytes: what the segments may hold together. None: no limit.

    Example:
        >>> replay([(0, 100), (1, 3 * 2**20), (0, -100), (1, -3 * 2**20)])
        Reserved(allocated_bytes=3146240, reserved_bytes=23068672, fits=True)
    """
    allocator = _Allocator(limit_bytes)
    peak = 0
    for storage, size in events:
        if size < 0:
            allocator.free(storage)
        elif not allocator.allocate(storage, size):
            return Reserved(peak, allocator.most_reserved_bytes, False)
        peak = max(peak, allocator.allocated_bytes)
    return Reserved(peak, allocator.most_reserved_bytes, True)


class _Block:
    """A stretch of a segment, and its neighbours."""

    __slots__ = ("address", "after", "before", "free", "size", "small")

    def __init__(self, address: int, size: int, small: bool) -> None:
        self.address = address
        self.size = size
        self.small = small
        self.free = True
        self.before: _Block | None = None
        self.after: _Block | None = None

    @property
    def key(self) -> tuple[int, int]:
        """The order in which free blocks are tried."""
        return (self.size, self.address)


class _Allocator:
    """The pools and what is in use."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.allocated_bytes = 0
        self.most_reserved_bytes = 0
        self._limit_bytes = limit_bytes
        self._reserved_bytes = 0
        self._next_address = 0
        self._used: dict[int, _Block] = {}
        # For each pool the free blocks by size and address. The keys are sorted, the blocks found by address.
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._by_address: dict[int, _Block] = {}

    def allocate(self, storage: int, request_bytes: int) -> bool:
        """Hand out a block. False when there is no room for one."""
        size = _round_up(request_bytes, BLOCK_BYTES)
        small = size <= SMALL_REQUEST_BYTES
        block = self._take_best_fit(size, small) or self._new_segment(size, small)
        if block is None:
            return False
        rest = block.size - size
        if rest >= BLOCK_BYTES if small else rest > SMALL_REQUEST_BYTES:
            self._split(block, size)
        block.free = False
        self._used[storage] = block
        self.allocated_bytes += block.size
        return True

    def free(self, storage: int) -> None:
        """Take a block back, and merge it with the free ones beside it."""
        block = self._used.pop(storage)
        self.allocated_bytes -= block.size
        block.free = True
        before, after = block.before, block.after
        if after is not None and after.free:
            self._forget(after)
            block.size += after.size
            block.after = after.after
            if block.after is not None:
                block.after.before = block
        if before is not None and before.free:
            self._forget(before)
            before.size += block.size
            before.after = block.after
            if before.after is not None:
                before.after.before = before
            block = before
        self._keep(block)

    def _take_best_fit(self, size: int, small: bool) -> _Block | None:
        """Return the smallest free block that is large enough, taken out of its pool."""
        keys = self._free[small]
        place = bisect.bisect_left(keys, (size, -1))
        if place == len(keys):
            return None
        block = self._by_address[keys[place][1]]
        self._forget(block)
        return block

    def _new_segment(self, size: int, small: bool) -> _Block | None:
        """Take a segment from the device, if need be after giving back those that are free."""
        if small:
            segment = SMALL_SEGMENT_BYTES
        elif size < OWN_SEGMENT_BYTES:
            segment = LARGE_SEGMENT_BYTES
        else:
            segment = _round_up(size, ROUND_LARGE_BYTES)
        if self._limit_bytes is not None and self._reserved_bytes + segment > self._limit_bytes:
            self._give_back()
            if self._reserved_bytes + segment > self._limit_bytes:
                return None
        self._reserved_bytes += segment
        self.most_reserved_bytes = max(self.most_reserved_bytes, self._reserved_bytes)
        block = _Block(self._next_address, segment, small)
        self._next_address += segment
        return block

    def _split(self, block: _Block, size: int) -> None:
        """Cut a block to `size` and keep the rest as free."""
        rest = _Block(block.address + size, block.size - size, block.small)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after = rest
        block.size = size
        self._keep(rest)

    def _give_back(self) -> None:
        """Return the segments that are one free block to the device."""
        for block in list(self._by_address.values()):
            if block.before is None and block.after is None:
                self._forget(block)
                self._reserved_bytes -= block.size

    def _keep(self, block: _Block) -> None:
        """Put a free block into its pool."""
        bisect.insort(self._free[block.small], block.key)
        self._by_address[block.address] = block

    def _forget(self, block: _Block) -> None:
        """Take a free block out of its pool."""
        keys = self._free[block.small]
        del keys[bisect.bisect_left(keys, block.key)]
        del self._by_address[block.address]


def _round_up(size: int, unit: int) -> int:
    """Return the least multiple of `unit` that is at least `size`, and at least one."""
    return max(1, -(-size // unit)) * unit
