"""Returns within branches, and what branches and loops share: against plain Python."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

ROWS, COLUMNS = 5, 16


@triton.jit
def leaves_early(x_ptr, n, SIZE: tl.constexpr):
    row = tl.program_id(0)
    at = row * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + at)
    if row >= n:
        return
    if row == 2:
        tl.store(x_ptr + at, x * 2)
        return
    y = tl.exp(x)
    if row == 1:
        y = y + 1
        if n == 3:
            return
    else:
        y = y - 1
    tl.store(x_ptr + at, y)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9])
def test_a_return_within_a_branch_ends_the_program(n: int) -> None:
    def expected(row: int, x: torch.Tensor) -> torch.Tensor:
        if row >= n or (row == 1 and n == 3):
            return x
        if row == 2:
            return x * 2
        return x.exp() + 1 if row == 1 else x.exp() - 1

    x = torch.arange(float(ROWS * COLUMNS)).reshape(ROWS, COLUMNS) / 50
    wanted = torch.stack([expected(row, x[row]) for row in range(ROWS)])
    leaves_early[(ROWS,)](x, n, SIZE=COLUMNS)
    torch.testing.assert_close(x, wanted)


@triton.jit(noinline=True)
def several_returns(x):
    if x > 3:
        return x * 2
    y = x + 1
    if y == 2:
        return y
    return y * 3


@triton.jit
def calls_it(x_ptr, turns, SIZE: tl.constexpr):
    x = tl.load(x_ptr)
    for _ in range(turns):
        x = several_returns(x)
    tl.store(x_ptr + tl.arange(0, SIZE), x)


@pytest.mark.parametrize("start", [-1.0, 0.0, 0.5, 1.0, 5.0])
def test_a_function_that_is_not_inlined_may_return_early(start: float) -> None:
    def step(x: float) -> float:
        return x * 2 if x > 3 else 2.0 if x == 1 else (x + 1) * 3

    x = torch.full((COLUMNS,), start)
    assert "cf.cond_br" in calls_it[(1,)](x, 3, SIZE=COLUMNS).asm["ttir"]
    assert x.tolist() == [step(step(step(start)))] * COLUMNS


@triton.jit
def reduces_in_a_return(x_ptr, total_ptr, limit, SIZE: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, SIZE))
    largest = tl.max(x, 0)
    shifted = tl.exp(x - largest)
    if largest > limit:
        tl.store(total_ptr, tl.sum(shifted, 0))
        return
    for _ in range(2):
        shifted = shifted * x
    if largest == limit:
        shifted = tl.cumsum(shifted, 0)
    tl.store(x_ptr + tl.arange(0, SIZE), shifted)


@pytest.mark.parametrize("limit", [0.0, 1.0, 2.0])
def test_tiles_live_across_blocks(limit: float) -> None:
    x = torch.linspace(-1, 1, COLUMNS)
    before, total = x.clone(), torch.zeros(1)
    reduces_in_a_return[(1,)](x, total, limit, SIZE=COLUMNS)
    shifted = (before - 1).exp()
    if limit < 1:
        torch.testing.assert_close(total[0], shifted.sum())
        assert torch.equal(x, before)
    else:
        wanted = shifted * before * before
        torch.testing.assert_close(x, wanted.cumsum(0) if limit == 1 else wanted)
        assert total.item() == 0


@triton.jit
def scanned_here_and_there(y_ptr, n, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE) + n
    if n > 3:
        tl.store(y_ptr + SIZE + tl.arange(0, SIZE), tl.cumsum(i, 0))
    for _ in range(n):
        tl.atomic_add(y_ptr + 2 * SIZE + tl.arange(0, SIZE), i)
    tl.store(y_ptr + tl.arange(0, SIZE), tl.cumsum(i, 0))


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_tile_worked_out_in_a_branch_that_did_not_run_is_worked_out_again(n: int) -> None:
    y = torch.zeros(3, COLUMNS, dtype=torch.int32)
    scanned_here_and_there[(1,)](y, n, SIZE=COLUMNS)
    i = torch.arange(COLUMNS, dtype=torch.int32) + n
    assert torch.equal(y[0], i.cumsum(0).int())
    assert torch.equal(y[1], i.cumsum(0).int() * int(n > 3))
    assert torch.equal(y[2], i * n)


@triton.jit
def far_away(x_ptr, stride, turns, SIZE: tl.constexpr):
    at = x_ptr + tl.arange(0, SIZE)
    for _ in range(turns):
        tl.store(at, tl.load(at) + 1)
        at += stride


def test_a_pointer_that_a_loop_moves_goes_beyond_32_bits() -> None:
    # Reserved, not backed by memory: only the pages that are touched are.
    x = torch.empty((3 << 31) + COLUMNS, dtype=torch.int8)
    places = [turn * 2**30 for turn in range(7)]
    for place in places:
        x[place : place + COLUMNS] = 5
    far_away[(1,)](x, 2**30, 7, SIZE=COLUMNS)
    for place in places:
        assert x[place : place + COLUMNS].tolist() == [6] * COLUMNS
