"""Configs that need no timing: their machine code cannot be good, or is that of another config. Pure.

On a CPU, `num_warps` and `num_stages` often change nothing in the machine code. Such configs are timed once. On a GPU a
config is dropped where

    it spills           registers lie in memory, while another config spills less than half as much
    it is narrow        its widest access is narrower than 16 bytes, and another config's is wider
    it needs too much   shared memory above the limit of a program
    too few bytes       occupancy x warps x 32 x bytes of an access is below what keeps memory busy, and another config
                        has enough

The last is Little's law: a multiprocessor needs latency x bandwidth bytes under way. By the data sheets and measured
latencies of A100 and H100, about 500 to 800 cycles at 9 to 18 bytes a cycle and multiprocessor, these are 5 to 15 KB.
Half of the lower end is asked for, because loads of one thread overlap, which this count leaves out. So nothing is
dropped that is merely not ideal. A config is never dropped where all are alike, and the default never is.

Source: Volkov 2010, "Better performance at lower occupancy".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusetune.bench.kernels import CompiledFacts

_WIDEST = 16
_BYTES_UNDER_WAY = 2_500.0
_MOST_WARPS = {"sm_86": 48, "sm_89": 48, "gfx942": 32, "gfx950": 32}
_SHARED_BYTES = {
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_89": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "gfx942": 64 << 10,
    "gfx950": 160 << 10,
}


@dataclass(frozen=True)
class Screened:
    """Which configs are timed, by index.

    Args:
        kept: those that race, in their order.
        same_as: index -> the kept config that has the same machine code.
        dropped: index -> why, as a clause.
    """

    kept: tuple[int, ...]
    same_as: Mapping[int, int]
    dropped: Mapping[int, str]


def screen(facts: Mapping[int, CompiledFacts], default: int) -> Screened:
    """Choose what is timed.

    Args:
        facts: by index of the config. Those that did not compile are not among them.
        default: index of the config that is shipped. It is always kept.

    Example:
        >>> found = screen({0: CompiledFacts("a"), 1: CompiledFacts("b"), 2: CompiledFacts("a")}, default=2)
        >>> found.kept, found.same_as
        ((2, 1), {0: 2})
    """
    first: dict[str, int] = {}
    same_as: dict[int, int] = {}
    distinct: list[int] = []
    for index in sorted(facts, key=lambda index: (index != default, index)):
        code = facts[index].code
        if code and code in first:
            same_as[index] = first[code]
        else:
            distinct.append(index)
            if code:
                first[code] = index
    dropped = {}
    for index in distinct:
        why = _why_not(facts[index], [facts[other] for other in distinct])
        if why and index != default:
            dropped[index] = why
    kept = tuple(index for index in distinct if index not in dropped)
    if not kept:  # the default did not compile, and each of the others has its fault
        kept, dropped = tuple(distinct), {}
    return Screened(kept, same_as, dropped)


def _why_not(one: CompiledFacts, others: list[CompiledFacts]) -> str | None:
    """Why a config cannot be good beside the others, or None."""
    limit = _SHARED_BYTES.get(one.arch)
    if limit is not None and one.shared_bytes is not None and one.shared_bytes > limit:
        return f"it needs {one.shared_bytes} bytes of shared memory, and {one.arch} has {limit}"
    fewest = min((other.spills for other in others if other.spills is not None), default=0)
    if one.spills is not None and one.spills > 0 and one.spills > 2 * fewest:
        return f"{one.spills} registers spill, and another config has {fewest}"
    widest = max((other.widest_bytes or 0 for other in others), default=0)
    if one.widest_bytes is not None and one.widest_bytes < min(widest, _WIDEST):
        return f"its accesses have {one.widest_bytes} bytes, and another config's have {widest}"
    under_way = _bytes_under_way(one)
    most = max((_bytes_under_way(other) or 0.0 for other in others), default=0.0)
    if under_way is not None and under_way < _BYTES_UNDER_WAY <= most:
        return f"{under_way:.0f} bytes are under way in a multiprocessor, and memory needs {_BYTES_UNDER_WAY:.0f}"
    return None


def _bytes_under_way(one: CompiledFacts) -> float | None:
    """Bytes that the resident warps of a multiprocessor load at once, by one access each."""
    if not one.arch or one.registers is None or not one.widest_bytes:
        return None
    from fusetune.kernels.static import TARGETS, occupancy

    if one.arch not in TARGETS:
        return None
    resident = occupancy(one.arch, one.registers, one.shared_bytes or 0, one.num_warps)
    lanes = 64 if one.arch.startswith("gfx") else 32
    return resident * _MOST_WARPS.get(one.arch, 64) * lanes * one.widest_bytes
