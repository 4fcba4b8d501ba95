"""Constructs of the language that random kernels leave out, against what PyTorch says."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803, SIM108
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl


@triton.jit
def joined(x_ptr, y_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    both = tl.join(x, x * 2)
    first, second = tl.split(both)
    tl.store(y_ptr + tl.arange(0, 2 * SIZE), tl.reshape(both, (2 * SIZE,)))
    tl.store(y_ptr + 2 * SIZE + i, second - first)
    tl.store(y_ptr + 3 * SIZE + tl.arange(0, 2 * SIZE), tl.cat(x, -x, can_reorder=True))


def test_join_split_and_cat() -> None:
    x, y = torch.randn(32), torch.zeros(160)
    joined[(1,)](x, y, SIZE=32)
    assert torch.equal(y[:64], torch.stack([x, 2 * x], 1).flatten())
    assert torch.equal(y[64:96], x)
    assert torch.equal(y[96:], torch.cat([x, -x]))


@triton.jit
def looked_up(x_ptr, at_ptr, y_ptr, counts_ptr, SIZE: tl.constexpr, BINS: tl.constexpr):
    i = tl.arange(0, SIZE)
    at = tl.load(at_ptr + i)
    tl.store(y_ptr + i, tl.gather(tl.load(x_ptr + i), at, 0))
    tl.store(counts_ptr + tl.arange(0, BINS), tl.histogram(at, BINS))


def test_gather_and_histogram() -> None:
    x, at = torch.randn(64), torch.randint(0, 64, (64,), dtype=torch.int32)
    y, counts = torch.zeros(64), torch.zeros(64, dtype=torch.int32)
    looked_up[(1,)](x, at, y, counts, SIZE=64, BINS=64)
    assert torch.equal(y, x[at.long()])
    assert torch.equal(counts, torch.bincount(at, minlength=64).int())


@triton.jit
def counted(values_ptr, total_ptr, largest_ptr, bins_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values_ptr + i, mask=i < n, other=0)
    tl.atomic_add(total_ptr, tl.sum(x, 0))
    tl.atomic_max(largest_ptr, tl.max(x, 0))
    tl.atomic_add(bins_ptr + x % 8, 1.0, mask=i < n)


@pytest.mark.parametrize("threads", [1, 2])
def test_atomics_lose_nothing_between_threads(threads: int) -> None:
    x = torch.randint(0, 1000, (10_007,), dtype=torch.int32)
    total, largest = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    bins = torch.zeros(8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        counted[(triton.cdiv(10_007, 64),)](x, total, largest, bins, 10_007, BLOCK=64)
    finally:
        torch.set_num_threads(before)
    assert total.item() == x.sum().item()
    assert largest.item() == x.max().item()
    assert torch.equal(bins, torch.bincount(x % 8, minlength=8).float())


@triton.jit(noinline=True)
def scaled(x, factor):
    return x * factor, x + factor


@triton.jit
def calls(x_ptr, y_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    product, total = scaled(tl.load(x_ptr + 5), 3.0)
    tl.store(y_ptr + i, tl.load(x_ptr + i) * product + total)


def test_a_function_that_is_not_inlined() -> None:
    x, y = torch.arange(16.0), torch.zeros(16)
    kernel = calls[(1,)](x, y, SIZE=16)
    assert "tt.call" in kernel.asm["ttir"]
    assert torch.equal(y, 15 * x + 8)


@triton.jit
def collatz(x_ptr, y_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    steps = 0
    while x != 1:
        if x % 2 == 0:
            x = x // 2
        else:
            x = 3 * x + 1
        steps += 1
    tl.store(y_ptr + tl.program_id(0), steps)


def test_while_with_a_branch() -> None:
    def steps(x: int) -> int:
        return 0 if x == 1 else 1 + steps(3 * x + 1 if x % 2 else x // 2)

    x, y = torch.arange(1, 40, dtype=torch.int32), torch.zeros(39, dtype=torch.int32)
    collatz[(39,)](x, y)
    assert y.tolist() == [steps(i) for i in range(1, 40)]


@triton.jit
def swapped(x_ptr, y_ptr, turns, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    y = tl.load(y_ptr + i)
    for _ in range(turns):
        x, y = y, x
    tl.store(x_ptr + i, x)
    tl.store(y_ptr + i, y)


@pytest.mark.parametrize("turns", [0, 1, 4, 7])
def test_a_loop_that_swaps_two_tiles(turns: int) -> None:
    x, y = torch.zeros(16), torch.ones(16)
    swapped[(1,)](x, y, turns, SIZE=16)
    assert x.tolist() == [float(turns % 2)] * 16
    assert y.tolist() == [float(1 - turns % 2)] * 16


@triton.jit
def shifted(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    tl.store(x_ptr + 1 + i, x)
    tl.store(x_ptr + SIZE + 1 + i, tl.load(x_ptr + 1 + i) + x)


def test_loads_and_stores_through_one_pointer_keep_their_order() -> None:
    x = torch.arange(40.0)
    shifted[(1,)](x, SIZE=16)
    assert x[:17].tolist() == [0.0, *map(float, range(16))]
    assert x[17:33].tolist() == [2.0 * i for i in range(16)]


@triton.jit
def in_place(x_ptr, y_ptr, total_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    tl.store(y_ptr + i, x + 1)
    tl.store(total_ptr, tl.sum(x, 0))


def test_what_was_loaded_before_a_store_stays_what_it_was() -> None:
    x, total = torch.arange(64.0), torch.zeros(1)
    in_place[(1,)](x, x, total, SIZE=64)
    assert x.tolist() == list(range(1, 65))
    assert total.item() == 63 * 32


@triton.jit
def checked(x_ptr, SIZE: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, SIZE))
    tl.device_assert(x < 10, "x is too large")


def test_a_failed_assertion_is_raised_by_the_launch() -> None:
    x = torch.zeros(16)
    checked[(2,)](x, SIZE=16, debug=True)
    x[3] = 11
    checked[(2,)](x, SIZE=16)  # without debug nothing is checked
    with pytest.raises(AssertionError, match="checked: x is too large"):
        checked[(2,)](x, SIZE=16, debug=True)


@triton.jit
def rounded(x_ptr, half_ptr, bfloat_ptr, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    tl.store(half_ptr + i, x.to(tl.float16))
    tl.store(bfloat_ptr + i, x.to(tl.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_to_short_floats_is_right_everywhere(dtype: torch.dtype) -> None:
    bits = torch.arange(2**16, dtype=torch.int32)
    every_half = bits.to(torch.int16).view(torch.float16).to(dtype)
    generator = torch.Generator().manual_seed(0)
    near = every_half * (1 + torch.randn(2**16, generator=generator, dtype=dtype) * 2.0**-11)
    halfway = (every_half.float() + every_half.float().roll(-1)) / 2
    random_bits = torch.randint(-(2**31), 2**31 - 1, (2**16,), generator=generator, dtype=torch.int32)
    x = torch.cat([every_half, near, halfway.to(dtype), random_bits.view(torch.float32).to(dtype)])
    half, bfloat = torch.empty(len(x), dtype=torch.float16), torch.empty(len(x), dtype=torch.bfloat16)
    rounded[(len(x) // 1024,)](x, half, bfloat, SIZE=1024)
    # PyTorch goes from double to half through float, and so rounds twice; NumPy rounds once.
    with np.errstate(over="ignore"):
        nearest = torch.from_numpy(x.numpy().astype(np.float16))
    torch.testing.assert_close(half, nearest, rtol=0, atol=0, equal_nan=True)
    if dtype == torch.float32:
        torch.testing.assert_close(bfloat, x.to(torch.bfloat16), rtol=0, atol=0, equal_nan=True)


@triton.jit
def extended(x_ptr, y_ptr, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(y_ptr + i, tl.load(x_ptr + i).to(tl.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_short_float_is_extended_exactly(dtype: torch.dtype) -> None:
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    y = torch.empty(2**16)
    extended[(64,)](x, y, SIZE=1024)
    torch.testing.assert_close(y, x.float(), rtol=0, atol=0, equal_nan=True)
    zeros = x == 0
    assert torch.equal(torch.signbit(y[zeros]), torch.signbit(x[zeros]))


@triton.jit
def divided(x_ptr, y_ptr, q_ptr, r_ptr, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    y = tl.load(y_ptr + i)
    tl.store(q_ptr + i, x // y)
    tl.store(r_ptr + i, x % y)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_integer_division_truncates_and_survives_its_corners(dtype: torch.dtype) -> None:
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    corners = torch.tensor([least, least + 1, -7, -2, -1, 0, 1, 2, 3, 7, 100, most - 1, most], dtype=dtype)
    x, y = (each.flatten() for each in torch.meshgrid(corners, corners, indexing="ij"))
    generator = torch.Generator().manual_seed(1)
    more = torch.randint(least, most, (2, 1024 - len(x)), generator=generator, dtype=dtype)
    x, y = torch.cat([x, more[0]]), torch.cat([y, more[1]])
    q, r = torch.empty_like(x), torch.empty_like(x)
    divided[(16,)](x, y, q, r, SIZE=64)
    for i, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        if b == 0:
            assert (q[i].item(), r[i].item()) == (0, 0)
        elif (a, b) != (least, -1):
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            assert (q[i].item(), r[i].item()) == (quotient, a - quotient * b)


@triton.jit
def arguments(y_ptr, a, b, pair, flag):
    tl.store(y_ptr, tl.cast(a, tl.float64))
    tl.store(y_ptr + 1, b)
    tl.store(y_ptr + 2, tl.cast(pair[0], tl.float64))
    tl.store(y_ptr + 3, tl.cast(pair[1], tl.float64))
    if flag:
        tl.store(y_ptr + 4, 1.0)


@pytest.mark.parametrize("a", [1, 17, -(2**31), 2**40, 2**63 + 5])
def test_arguments_of_all_kinds_arrive(a: int) -> None:
    y = torch.zeros(5, dtype=torch.float64)
    arguments[(1,)](y, a, 0.25, (3, 1.5), True)
    assert y.tolist() == [float(a), 0.25, 3.0, 1.5, 1.0]


def test_a_tensor_that_is_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="on meta"):
        extended[(1,)](torch.empty(1024, device="meta"), torch.empty(1024), SIZE=1024)


def test_programs_of_all_three_axes_run() -> None:
    y = torch.zeros(2 * 3 * 4, dtype=torch.int32)
    places[(2, 3, 4)](y)
    assert y.tolist() == [x + 10 * j + 100 * k for k in range(4) for j in range(3) for x in range(2)]


@triton.jit
def places(y_ptr):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at = (z * tl.num_programs(1) + y) * tl.num_programs(0) + x
    tl.store(y_ptr + at, x + 10 * y + 100 * z)


@triton.jit
def rows_beyond_the_largest_integer(x_ptr, y_ptr, start, COLUMNS: tl.constexpr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    place = start + i
    row = place // COLUMNS
    column = place % COLUMNS
    last = 2147483647 // COLUMNS
    within = (row > last - 2) & (row <= last)
    tl.store(y_ptr + i, tl.load(x_ptr + (row - last + 1) * COLUMNS + column, mask=within, other=-1.0))


@pytest.mark.parametrize("columns", [48, 64])
def test_quotients_of_integers_that_wrap_around_within_a_tile(columns: int) -> None:
    start, size = 2**31 - 100, 256
    x, y = torch.arange(2.0 * columns), torch.empty(size)
    rows_beyond_the_largest_integer[(1,)](x, y, start, COLUMNS=columns, SIZE=size)
    last = (2**31 - 1) // columns

    def read(place: int) -> float:
        row, column = divmod(place, columns)
        return float((row - last + 1) * columns + column) if last - 2 < row and place < 2**31 else -1.0

    assert y.tolist() == [read(start + lane) for lane in range(size)]
