"""Tensor descriptors that the host makes: blocks are read and written as NumPy cuts them, padded beyond the edge."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def moved(x, y, at, RANK: tl.constexpr):
    """Store the block at (at, 0, ...) of one tensor, plus 1, at the same place of another."""
    if RANK == 1:
        y.store([at], x.load([at]) + 1)
    elif RANK == 2:
        y.store([at, 0], x.load([at, 0]) + 1)
    else:
        y.store([at, 0, 0], x.load([at, 0, 0]) + 1)


@triton.jit
def spread(x, out_ptr, at, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A whole block, padding included, and what the descriptor says of itself."""
    block = x.load([at, 4])
    i = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(out_ptr + i, block)
    tl.store(
        out_ptr + ROWS * COLUMNS, (x.shape[0] * 1000 + x.shape[1] + x.strides[0] * 1000000).to(tl.float32)
    )


@pytest.mark.parametrize("shape", [(20,), (20, 12), (20, 12, 4)], ids=str)
@pytest.mark.parametrize("at", [0, 8, 16, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
def test_blocks_of_any_rank(shape: tuple[int, ...], at: int, dtype: torch.dtype) -> None:
    block = [8, 16, 4][: len(shape)]
    x = torch.arange(float(np.prod(shape))).reshape(shape).to(dtype)
    y = torch.full(shape, -7).to(dtype)
    moved[(1,)](
        TensorDescriptor.from_tensor(x, block), TensorDescriptor.from_tensor(y, block), at, RANK=len(shape)
    )
    expected = np.full(shape, -7, dtype=x.numpy().dtype)
    expected[at : at + 8] = x.numpy()[at : at + 8] + 1
    assert np.array_equal(y.numpy(), expected)


@pytest.mark.parametrize("padding", ["zero", "nan"])
def test_beyond_the_edge_is_padding(padding: str) -> None:
    whole = torch.randn(10, 16)
    x = whole[:, :12]  # rows lie 16 apart
    out = torch.empty(16 * 8 + 1)
    spread[(1,)](TensorDescriptor.from_tensor(x, [16, 8], padding=padding), out, 3, ROWS=16, COLUMNS=8)
    wanted = np.pad(x.numpy()[3:, 4:], ((0, 9), (0, 0)), constant_values=0 if padding == "zero" else np.nan)
    np.testing.assert_array_equal(out[:-1].reshape(16, 8).numpy(), wanted)
    assert out[-1].item() == 10 * 1000 + 12 + 16 * 1000000


@triton.jit
def second_of(pair, out_ptr, SIZE: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, SIZE), pair[1].load([pair[0]]))


def test_a_descriptor_in_a_tuple() -> None:
    x, out = torch.arange(32.0), torch.empty(8)
    second_of[(1,)]((8, TensorDescriptor.from_tensor(x, [8])), out, SIZE=8)
    assert torch.equal(out, x[8:16])


def test_a_descriptor_of_a_tensor_elsewhere_is_refused() -> None:
    x = TensorDescriptor.from_tensor(torch.empty(32, device="meta"), [8])
    y = TensorDescriptor.from_tensor(torch.zeros(32), [8])
    with pytest.raises(ValueError, match="a pointer argument is on meta"):
        moved[(1,)](x, y, 0, RANK=1)
