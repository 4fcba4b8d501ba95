"""Lanes whose mask is clear never touch memory: tensors end where a page begins that nobody may touch."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from tests.kernels.cpu.guard_pages import guarded

ROOT = Path(__file__).parents[3]


@triton.jit
def masked_copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n), mask=i < n)


@triton.jit
def masked_sum(x_ptr, y_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    tl.store(y_ptr, tl.sum(tl.load(x_ptr + i, mask=i < n, other=0).to(tl.float32), 0))


@triton.jit
def every_third(x_ptr, y_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    mask = (i < n) & (i % 3 == 0)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=mask, other=7), mask=mask)


@triton.jit
def corner(x_ptr, y_ptr, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    mask = (i < rows) & (j < columns)
    x = tl.load(x_ptr + i * columns + j, mask=mask, other=0)
    tl.store(y_ptr + i * columns + j, x, mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, torch.int64], ids=str)
@pytest.mark.parametrize("elements", [1, 13, 127])
def test_nothing_beyond_the_mask_is_touched(elements: int, dtype: torch.dtype) -> None:
    with guarded(elements, dtype) as x, guarded(elements, dtype) as y:
        x.copy_(torch.arange(elements) % 100)
        masked_copy[(2,)](x, y, elements, BLOCK=128)
        assert torch.equal(x, y)
        total = torch.zeros(1)
        masked_sum[(1,)](x, total, elements, BLOCK=256)
        assert total.item() == x.float().sum().item()
        y.zero_()
        every_third[(1,)](x, y, elements, BLOCK=256)
        assert torch.equal(y, torch.where(torch.arange(elements) % 3 == 0, x, torch.zeros_like(x)))


def test_nothing_beyond_a_mask_of_two_dimensions_is_touched() -> None:
    with guarded(5 * 7, torch.float32) as x, guarded(5 * 7, torch.float32) as y:
        x.copy_(torch.arange(35.0))
        corner[(1,)](x, y, 5, 7, ROWS=8, COLUMNS=16)
        assert torch.equal(x, y)


@pytest.mark.parametrize("place", ["data_ptr() + 64", "data_ptr() - 4"])
def test_the_guard_pages_are_guarded(place: str) -> None:
    code = (
        "import ctypes, torch\nfrom tests.kernels.cpu.guard_pages import guarded\n"
        f"with guarded(8, torch.float32, at_start={'-' in place}) as x:\n    ctypes.string_at(x.{place}, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode < 0  # killed by a signal


@triton.jit
def two_stores(x_ptr, y_ptr, z_ptr, total_ptr, n, SUMMED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    mask = i < n
    y = tl.exp(tl.load(x_ptr + i, mask=mask, other=0.0))
    tl.store(y_ptr + i, y, mask=mask)
    tl.debug_barrier()
    tl.store(z_ptr + i, 2 * y, mask=mask)
    if SUMMED:
        tl.store(total_ptr, tl.sum(y, 0))


@pytest.mark.parametrize("elements", [1, 13, 127, 128])
def test_a_tile_for_masked_stores_alone_is_worked_out_in_their_lanes_alone(elements: int) -> None:
    with guarded(elements, torch.float32) as x, guarded(elements, torch.float32) as y:
        x.copy_(torch.linspace(-2, 2, elements))
        z, total = torch.full((256,), 5.0), torch.zeros(1)
        loops = {}
        for summed in (False, True):
            kernel = two_stores[(1,)](x, y, z, total, elements, SUMMED=summed, BLOCK=256)
            loops[summed] = kernel.asm["c"].count("#pragma omp simd")
            torch.testing.assert_close(y, x.exp(), rtol=1e-6, atol=0)
            torch.testing.assert_close(z[:elements], 2 * x.exp(), rtol=1e-6, atol=0)
            assert (z[elements:] == 5).all()
        # e^0 is 1 in the lanes beyond the mask: a sum needs them, so there they are worked out, in a loop more.
        assert total.item() == pytest.approx(x.exp().sum().item() + 256 - elements, rel=1e-5)
        assert loops[False] == 2
        assert loops[True] > 3


@triton.jit
def where_mask(x_ptr, y_ptr, z_ptr, factor, end, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """The sum that is compared wraps around from row to row, and the first store is made in every lane."""
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    x = tl.load(x_ptr + i * COLUMNS + j, mask=i * factor + j < end, other=-1)
    tl.store(y_ptr + i * COLUMNS + j, x)
    tl.store(z_ptr + i * COLUMNS + j, x, mask=i * factor < end)


@triton.jit
def stored_where(y_ptr, start, end, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    tl.store(y_ptr + i, 1, mask=start + i < end)


@triton.jit
def loaded_where(x_ptr, y_ptr, start, end, WIDE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.arange(0, BLOCK)
    place = start + i
    if WIDE:
        place = place.to(tl.int64) * 1
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=place <= end, other=0))


def test_sums_that_wrap_around_are_compared_as_they_are() -> None:
    rows, columns = 8, 16
    factors, ends = (-1103515245, 1103515245, 2**31 - 5, 7), (0, 1000, 2**31 - 1, -(2**31))
    for factor, end in itertools.product(factors, ends):
        x, y, z = torch.rand(rows, columns), torch.zeros(rows, columns), torch.zeros(rows, columns)
        where_mask[(1,)](x, y, z, factor, end, ROWS=rows, COLUMNS=columns)
        i, j = torch.arange(rows, dtype=torch.int32)[:, None], torch.arange(columns, dtype=torch.int32)
        in_row = i * torch.tensor(factor, dtype=torch.int32)
        want = torch.where(in_row + j < end, x, -1.0)
        assert torch.equal(y, want), (factor, end)
        assert torch.equal(z, torch.where(in_row < end, want, 0.0)), (factor, end)


@pytest.mark.parametrize("wide", [False, True])
def test_sums_that_wrap_around_within_a_tile_are_compared_as_they_are(wide: bool) -> None:
    starts, ends = (2**31 - 8, -(2**31), 0, 2**31 - 16), (-1, 2**31 - 1, -(2**31), 5, 2**31 - 4)
    for start, end in itertools.product(starts, ends):
        x, y = torch.rand(16), torch.zeros(16)
        loaded_where[(1,)](x, y, start, end, WIDE=wide, BLOCK=16)
        place = torch.tensor(start, dtype=torch.int32) + torch.arange(16, dtype=torch.int32)
        assert torch.equal(y, torch.where(place <= end, x, 0.0)), (start, end)


def test_a_store_under_a_mask_that_is_set_again_is_refused_by_its_line() -> None:
    y = torch.zeros(16, dtype=torch.int32)
    with pytest.raises(AssertionError, match=r"test_masks\.py:\d+: .* wraps around within a tile"):
        stored_where[(1,)](y, 2**31 - 8, 0, BLOCK=16)
    stored_where[(1,)](y, 2**31 - 16, 2**31 - 8, BLOCK=16)
    assert y.tolist() == [1] * 8 + [0] * 8
