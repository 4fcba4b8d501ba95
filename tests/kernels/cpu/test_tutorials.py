"""The kernels that Triton's tutorials describe, written from their description: they run and match PyTorch."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch.nn import functional as F


@triton.jit
def add(x_ptr, y_ptr, sum_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_ptr + i, mask=inside)
    y = tl.load(y_ptr + i, mask=inside)
    tl.store(sum_ptr + i, x + y, mask=inside)


def test_vector_add() -> None:
    x, y, total = torch.randn(98_432), torch.randn(98_432), torch.empty(98_432)
    add[lambda meta: (triton.cdiv(98_432, meta["BLOCK"]),)](x, y, total, 98_432, BLOCK=1024)
    assert torch.equal(total, x + y)


@triton.jit
def softmax(y_ptr, x_ptr, rows, columns, BLOCK: tl.constexpr):
    for row in tl.range(tl.program_id(0), rows, tl.num_programs(0)):
        i = tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * columns + i, mask=i < columns, other=-float("inf"))
        numerator = tl.exp(x - tl.max(x, axis=0))
        tl.store(y_ptr + row * columns + i, numerator / tl.sum(numerator, axis=0), mask=i < columns)


def test_fused_softmax() -> None:
    x = torch.randn(123, 781)
    y = torch.empty_like(x)
    softmax[(8,)](y, x, 123, 781, BLOCK=1024)
    torch.testing.assert_close(y, torch.softmax(x, 1))


@triton.jit
def matmul(
    a_ptr,
    b_ptr,
    c_ptr,
    M,
    N,
    K,
    a_row,
    a_column,
    b_row,
    b_column,
    c_row,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Blocks in groups of rows, so that neighbours share what they load; pointers move along K."""
    program = tl.program_id(0)
    across = tl.cdiv(N, BLOCK_N)
    group = program // (GROUP * across)
    first = group * GROUP
    rows = min(tl.cdiv(M, BLOCK_M) - first, GROUP)
    m = first + (program % (GROUP * across)) % rows
    n = (program % (GROUP * across)) // rows
    i = (m * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    j = (n * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    k = tl.arange(0, BLOCK_K)
    a_ptrs = a_ptr + i[:, None] * a_row + k[None, :] * a_column
    b_ptrs = b_ptr + k[:, None] * b_row + j[None, :] * b_column
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for done in range(0, K, BLOCK_K):
        a = tl.load(a_ptrs, mask=k[None, :] < K - done, other=0.0)
        b = tl.load(b_ptrs, mask=k[:, None] < K - done, other=0.0)
        total = tl.dot(a, b, total)
        a_ptrs += BLOCK_K * a_column
        b_ptrs += BLOCK_K * b_row
    i = m * BLOCK_M + tl.arange(0, BLOCK_M)
    j = n * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.where(total >= 0, total, 0.01 * total).to(c_ptr.dtype.element_ty)
    tl.store(c_ptr + i[:, None] * c_row + j[None, :], c, mask=(i[:, None] < M) & (j[None, :] < N))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_product(dtype: torch.dtype, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(100, 70, generator=generator).to(dtype)
    b = torch.randn(90, 70, generator=generator).to(dtype).t()
    b = b if transposed else b.contiguous()
    c = torch.empty(100, 90, dtype=dtype)
    matmul[(triton.cdiv(100, 32) * triton.cdiv(90, 64),)](
        a, b, c, 100, 90, 70, *a.stride(), *b.stride(), 90, BLOCK_M=32, BLOCK_N=64, BLOCK_K=32, GROUP=8
    )  # fmt: skip
    expected = F.leaky_relu(a.double() @ b.double(), 0.01)
    rounding = {torch.float32: 2.0**-20, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
    torch.testing.assert_close(c.double(), expected, rtol=rounding, atol=1e-5)


@triton.jit
def dropout(x_ptr, y_ptr, n, p, seed, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = tl.rand(seed, i) > p
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(y_ptr + i, tl.where(keep, x / (1 - p), 0.0), mask=i < n)


def test_dropout_that_keeps_no_mask() -> None:
    x, first, again, other = torch.randn(10_007), *(torch.empty(10_007) for _ in range(3))
    for y, seed in ((first, 123), (again, 123), (other, 512)):
        dropout[(10,)](x, y, 10_007, 0.3, seed, BLOCK=1024)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    kept = first != 0
    torch.testing.assert_close(first[kept], x[kept] / 0.7)
    assert abs(kept.float().mean().item() - 0.7) < 5 * (0.21 / 10_007) ** 0.5


@triton.jit
def layer_norm(x_ptr, y_ptr, w_ptr, b_ptr, mean_ptr, rstd_ptr, N, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    x_ptr += row * N
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, N, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + i, mask=i < N, other=0.0)
    mean = tl.sum(total, axis=0) / N
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, N, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.where(i < N, tl.load(x_ptr + i, mask=i < N, other=0.0) - mean, 0.0)
        squares += x * x
    rstd = 1 / tl.sqrt(tl.sum(squares, axis=0) / N + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    for start in range(0, N, BLOCK):
        i = start + tl.arange(0, BLOCK)
        w = tl.load(w_ptr + i, mask=i < N)
        b = tl.load(b_ptr + i, mask=i < N)
        x = tl.load(x_ptr + i, mask=i < N, other=0.0)
        tl.store(y_ptr + row * N + i, (x - mean) * rstd * w + b, mask=i < N)


@triton.jit
def layer_norm_dx(
    dx_ptr, dy_ptr, dw_ptr, db_ptr, x_ptr, w_ptr, mean_ptr, rstd_ptr, lock_ptr, N,
    GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of one row; those of weight and bias are added up in GROUPS buffers, each behind a lock."""
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    inside = i < N
    group = row % GROUPS
    lock_ptr += group
    x = tl.load(x_ptr + row * N + i, mask=inside, other=0)
    dy = tl.load(dy_ptr + row * N + i, mask=inside, other=0)
    w = tl.load(w_ptr + i, mask=inside)
    rstd = tl.load(rstd_ptr + row)
    normed = tl.where(inside, (x - tl.load(mean_ptr + row)) * rstd, 0.0)
    wdy = tl.where(inside, w * dy, 0.0)
    along = tl.sum(normed * wdy, axis=0) / N
    mean = tl.sum(wdy, axis=0) / N
    tl.store(dx_ptr + row * N + i, (wdy - (normed * along + mean)) * rstd, mask=inside)
    dw_ptrs = dw_ptr + group * N + i
    db_ptrs = db_ptr + group * N + i
    dw = dy * normed
    db = dy
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    if tl.load(lock_ptr + GROUPS) == 0:
        tl.atomic_xchg(lock_ptr + GROUPS, 1)
    else:
        dw += tl.load(dw_ptrs, mask=inside)
        db += tl.load(db_ptrs, mask=inside)
    tl.store(dw_ptrs, dw, mask=inside)
    tl.store(db_ptrs, db, mask=inside)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def column_sums(x_ptr, y_ptr, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, M, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        inside = (i[:, None] < M) & (j[None, :] < N)
        total += tl.load(x_ptr + i[:, None] * N + j[None, :], mask=inside, other=0.0)
    tl.store(y_ptr + j, tl.sum(total, axis=0), mask=j < N)


@pytest.mark.parametrize("threads", [1, 2])
def test_layer_norm_forward_and_backward(threads: int) -> None:
    M, N, groups = 151, 300, 64
    x, w, b = (torch.randn(*shape, requires_grad=True) for shape in ((M, N), (N,), (N,)))
    dy = torch.randn(M, N)
    y, dx, mean, rstd = torch.empty(M, N), torch.empty(M, N), torch.empty(M), torch.empty(M)
    locks = torch.zeros(2 * groups, dtype=torch.int32)
    partial = torch.zeros(2, groups, N)
    sums = torch.empty(2, N)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layer_norm[(M,)](x, y, w, b, mean, rstd, N, 1e-5, BLOCK=128)
        layer_norm_dx[(M,)](
            dx, dy, partial[0], partial[1], x, w, mean, rstd, locks, N, GROUPS=groups, BLOCK=512
        )
        for part, total in zip(partial, sums, strict=True):
            column_sums[(triton.cdiv(N, 128),)](part, total, groups, N, BLOCK_M=32, BLOCK_N=128)
    finally:
        torch.set_num_threads(before)
    expected = F.layer_norm(x, (N,), w, b, 1e-5)
    expected.backward(dy)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dx, x.grad)
    torch.testing.assert_close(sums[0], w.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[1], b.grad, rtol=1e-5, atol=1e-5)
