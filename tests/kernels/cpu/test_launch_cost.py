"""What a launch costs the host, counted in calls; `make perf` prints microseconds."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def scale(x_ptr, y_ptr, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * factor, mask=i < n)


def calls_of_a_launch() -> tuple[Counter[str], int]:
    """What our side of a launch calls that is written in C, and how many Python functions it goes through."""
    x, y = torch.ones(100), torch.empty(100)
    compiled = scale[(1,)](x, y, 100, 2.0, BLOCK=128)
    run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
    in_c: Counter[str] = Counter()
    in_python = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal in_python
        if event == "c_call" and argument is not sys.setprofile:
            in_c[argument.__name__] += 1
        elif event == "call":
            in_python += 1

    sys.setprofile(note)
    run(1, 1, 1, 0, function, metadata, None, None, None, x, y, 100, 2.0, 128)
    sys.setprofile(None)
    assert torch.equal(y, 2 * x)
    return in_c, in_python


def test_a_launch_is_one_python_function_and_eight_calls_out_of_it() -> None:
    in_c, in_python = calls_of_a_launch()
    assert in_python == 1  # the one that was written for the signature
    # Storages are asked for to see that they do not overlap. The shared object itself is called besides: a profiler
    # does not see ctypes.
    assert in_c == Counter(data_ptr=2, untyped_storage=2, nbytes=2, get_num_threads=1, pack=1)


def test_a_bound_launch_packs_nothing_and_follows_the_number_of_threads() -> None:
    x, y = torch.ones(100), torch.empty(100)
    compiled = scale[(1,)](x, y, 100, 2.0, BLOCK=128)
    seen: list[tuple[int, bytes]] = []

    def function(gx: int, gy: int, gz: int, threads: int, packed: bytes) -> None:
        seen.append((threads, packed))
        compiled.function(gx, gy, gz, threads, packed)

    arguments = (x, y, 100, 2.0, 128)
    anew, alone = (compiled.run.bind(1, 1, 1, function, one, *arguments) for one in (False, True))
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            anew()
            alone()
    finally:
        torch.set_num_threads(before)
    assert [threads for threads, _ in seen] == [1, 1, 2, 1]
    assert seen[0][1] is seen[2][1]
    x.fill_(3)
    alone()
    assert torch.equal(y, 2 * x)
