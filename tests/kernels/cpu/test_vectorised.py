"""What the backend does for speed: runs of contiguous lanes, vector functions, blocked products, few threads."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import math
import platform
import re

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tests.kernels.cpu.compiled_code import X86, assembly, flags_for

reads_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 assembly")


@triton.jit
def add_row(x_ptr, row_ptr, y_ptr, n, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(y_ptr + i, x + tl.load(row_ptr + i % COLUMNS, mask=i < n), mask=i < n)


@triton.jit
def places(row_ptr, picked_ptr, quotient_ptr, remainder_ptr, first, n, columns, BLOCK: tl.constexpr):
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i = first + lane
    mask = lane < n
    tl.store(picked_ptr + lane, tl.load(row_ptr + i % columns, mask=mask), mask=mask)
    tl.store(quotient_ptr + lane, i // columns, mask=mask)
    tl.store(remainder_ptr + lane, i % columns, mask=mask)


@triton.jit
def per_channel(bias_ptr, y_ptr, n, inner, channels, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(bias_ptr + (i // inner) % channels, mask=i < n), mask=i < n)


@triton.jit
def triangle(row_ptr, y_ptr, width, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = i // width
    tl.store(y_ptr + i, tl.load(row_ptr + i % width) + tl.load(row_ptr + i % (row + 1)))


@triton.jit
def powers(x_ptr, e_ptr, two_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    tl.store(e_ptr + i, tl.exp(x))
    tl.store(two_ptr + i, tl.exp2(x))


@triton.jit
def product(
    a_ptr, b_ptr, c_ptr, WIDE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, COLUMNS: tl.constexpr
):
    i, k, j = tl.arange(0, ROWS), tl.arange(0, DEPTH), tl.arange(0, COLUMNS)
    a = tl.load(a_ptr + i[:, None] * DEPTH + k[None, :])
    b = tl.load(b_ptr + k[:, None] * COLUMNS + j[None, :])
    c_ptrs = c_ptr + i[:, None] * COLUMNS + j[None, :]
    tl.store(c_ptrs, tl.dot(a, b, tl.load(c_ptrs), out_dtype=WIDE))


@triton.jit
def add_one(x_ptr, n, TURNS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    for _ in range(TURNS):
        x += 1
    tl.store(x_ptr + i, x, mask=i < n)


@triton.jit
def running(x_ptr, y_ptr, turned_ptr, TURNS: tl.constexpr, BLOCK: tl.constexpr):
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for turn in range(TURNS):
        x = tl.load(x_ptr + turn * BLOCK * BLOCK + i * BLOCK + j)
        tl.store(y_ptr + turn * BLOCK * BLOCK + i * BLOCK + j, total - x)
        tl.store(turned_ptr + turn * BLOCK * BLOCK + i * BLOCK + j, tl.trans(total))
        total += x * x


@triton.jit
def in_place(x_ptr, y_ptr, TURNS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(TURNS):
        left = tl.load(x_ptr + i)
        tl.store(x_ptr + i + 1, left)
        total += left
    tl.store(y_ptr + i, total)


@reads_x86
def test_along_a_row_what_a_remainder_addresses_is_loaded_by_vectors() -> None:
    x, row = torch.randn(4096), torch.randn(384)
    y = torch.empty_like(x)
    kernel = add_row[(4,)](x, row, y, 4096, COLUMNS=384, BLOCK=1024)
    assert torch.equal(y, x + row.repeat(11)[:4096])
    for target, register in (("avx2", "ymm"), ("avx512", "zmm")):
        text = assembly(kernel.asm["c"], flags_for(*X86[target]))
        assert "gather" not in text
        assert not re.search(r"v?divp[sd]", text)  # one division a run, none a lane
        assert re.search(rf"v?addps\s+[^%\n]*\(%r\w+.*\),.* %{register}", text)


@pytest.mark.parametrize("columns", [1, 3, 31, 32, 33, 100, 1024, 5000])
@pytest.mark.parametrize("first", [0, 7, 123_456])
def test_runs_begin_and_end_where_the_quotient_changes(first: int, columns: int) -> None:
    n = 3000
    row = torch.randn(columns)
    picked, quotient, remainder = torch.zeros(n), torch.zeros(n).int(), torch.zeros(n).int()
    places[(3,)](row, picked, quotient, remainder, first, n, columns, BLOCK=1024)
    i = np.arange(first, first + n)
    assert np.array_equal(quotient.numpy(), i // columns)
    assert np.array_equal(remainder.numpy(), i % columns)
    assert np.array_equal(picked.numpy(), row.numpy()[i % columns])


def test_quotients_of_negative_places_go_towards_zero() -> None:
    n, columns = 300, 64
    row = torch.randn(2 * columns)
    picked, quotient, remainder = torch.zeros(n), torch.zeros(n).int(), torch.zeros(n).int()
    places[(1,)](row[columns:], picked, quotient, remainder, -150, n, columns, BLOCK=512)
    i = np.arange(-150, n - 150)
    wanted = np.fmod(i, columns)
    assert np.array_equal(quotient.numpy(), np.trunc(i / columns))
    assert np.array_equal(remainder.numpy(), wanted)
    assert np.array_equal(picked.numpy(), row.numpy()[columns + wanted])


@pytest.mark.parametrize(("inner", "channels"), [(1, 64), (49, 3), (64, 48), (1000, 2)])
def test_quotients_of_quotients_are_right(inner: int, channels: int) -> None:
    n = 5000
    bias, y = torch.randn(channels), torch.zeros(n)
    per_channel[(5,)](bias, y, n, inner, channels, BLOCK=1024)
    assert torch.equal(y, bias[torch.arange(n) // inner % channels])


def test_a_divisor_may_itself_be_a_quotient() -> None:
    row, y = torch.randn(64), torch.empty(1024)
    triangle[(1,)](row, y, 64, BLOCK=1024)
    i = torch.arange(1024)
    assert torch.equal(y, row[i % 64] + row[i % (i // 64 + 1)])


def test_powers_of_what_is_no_number_or_endless() -> None:
    special = [-math.inf, math.inf, math.nan, -0.0, 0.0, 1.0, -104.5, 89.0]
    x = torch.tensor([*special, *torch.linspace(-90, 80, 56).tolist()])
    e, two = torch.empty_like(x), torch.empty_like(x)
    powers[(1,)](x, e, two, BLOCK=64)
    for got, wanted in ((e, torch.exp(x.double())), (two, torch.exp2(x.double()))):
        torch.testing.assert_close(got, wanted.float(), rtol=4 * 2.0**-23, atol=2.0**-149, equal_nan=True)
    assert e[:2].tolist() == two[:2].tolist() == [0.0, math.inf]


@pytest.mark.parametrize("shape", [(16, 16, 16), (1, 32, 16), (2, 4, 8), (64, 16, 32), (8, 1, 1)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "total", "wide"),
    [
        (torch.float32, torch.float32, tl.float32),
        (torch.float64, torch.float64, tl.float64),
        (torch.bfloat16, torch.float32, tl.float32),
        (torch.int8, torch.int32, tl.int32),
    ],
    ids=str,
)
def test_products_of_tiles_of_any_shape(
    dtype: torch.dtype, total: torch.dtype, wide: tl.dtype, shape: tuple[int, int, int]
) -> None:
    rows, depth, columns = shape
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randint(-9, 9, size, generator=generator).to(dtype)
        for size in ((rows, depth), (depth, columns))
    )
    c = torch.randint(-9, 9, (rows, columns), generator=generator).to(total)
    wanted = c.double() + a.double() @ b.double()
    product[(1,)](a, b, c, WIDE=wide, ROWS=rows, DEPTH=depth, COLUMNS=columns)
    assert torch.equal(c.double(), wanted)  # small integers: every sum is exact


@reads_x86
@pytest.mark.parametrize(
    ("target", "features"), [("avx2", "avx avx2 fma"), ("avx512", "avx avx2 fma avx512f")]
)
def test_a_product_keeps_its_sums_in_registers(
    target: str, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("compiler", "lowering.dot"):
        monkeypatch.setattr(f"fusetune.kernels.cpu.{module}.cpu_features", lambda: features)
    product.device_caches.clear()
    a, b, c = (torch.randn(32, 32) for _ in range(3))
    kernel = product[(1,)](a, b, c, WIDE=tl.float32, ROWS=32, DEPTH=32, COLUMNS=32)
    product.device_caches.clear()
    text = assembly(kernel.asm["c"], flags_for(*X86[target]))
    bodies = re.findall(r"(?m)^\.L\w+:.*\n((?:[ \t].*\n)+?)\tj", text)
    multiplying = [body for body in bodies if len(re.findall(r"(?:fn?madd|mulp)\w+\s", body)) >= 8]
    assert multiplying
    assert not any(re.search(r"mov[ua]p[sd]\s+%[xyz]mm\d+, ", body) for body in multiplying)


def test_what_a_loop_stores_of_its_sums_is_what_they_were_before_this_turn() -> None:
    x = torch.randn(5, 16, 16)
    y, turned = torch.empty_like(x), torch.empty_like(x)
    running[(1,)](x, y, turned, TURNS=5, BLOCK=16, enable_fp_fusion=False)
    total = torch.zeros(16, 16)
    for turn in range(5):
        assert torch.equal(y[turn], total - x[turn])
        assert torch.equal(turned[turn], total.T)
        total += x[turn] * x[turn]


def test_sums_are_of_what_was_loaded_before_the_store() -> None:
    x, y = torch.arange(65.0), torch.empty(64)
    wanted, moved = torch.zeros(64), x.clone()
    for _ in range(3):
        wanted += moved[:64]
        moved[1:] = moved[:64].clone()
    in_place[(1,)](x, y, TURNS=3, BLOCK=64)
    assert torch.equal(y, wanted)
    assert torch.equal(x, moved)


@pytest.mark.parametrize(("turns", "block", "least"), [(0, 1024, 8), (0, 16384, 2), (0, 64, 128)])
def test_small_grids_stay_on_one_thread(turns: int, block: int, least: int) -> None:
    x = torch.zeros(100)
    kernel = add_one[(2,)](x, 100, TURNS=turns, BLOCK=block)
    found = re.search(r"team = programs < (\d+) \?", kernel.asm["c"])
    assert found is not None
    assert int(found[1]) == least


@pytest.mark.parametrize("programs", [1, 2, 7, 8, 100])
def test_every_program_runs_once_on_any_number_of_threads(programs: int) -> None:
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            x = torch.zeros(programs * 1024 - 5)
            add_one[(programs,)](x, len(x), TURNS=1, BLOCK=1024)
            assert torch.equal(x, torch.ones_like(x))
    finally:
        torch.set_num_threads(threads)
