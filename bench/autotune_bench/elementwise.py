"""Kernels over elements: vector add, dropout, transpose, sums of rows and columns, and rows looked up in a table."""

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from fusetune.bench.autotune_bench.problem import Config, Problem, Tensors, empty, normal, product

_BLOCKS = tuple(2**power for power in range(6, 17))


@triton.jit
def _add(x_ptr, y_ptr, out_ptr, n, BLOCK_SIZE: tl.constexpr):
    """out = x + y."""
    offsets = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    mask = offsets < n
    total = tl.load(x_ptr + offsets, mask=mask) + tl.load(y_ptr + offsets, mask=mask)
    tl.store(out_ptr + offsets, total, mask=mask)


def add(n: int) -> Problem:
    """The sum of two vectors of n elements."""

    def make(seed: int) -> Tensors:
        x, y = normal(seed, (n,), (n,))
        return {"x": x, "y": y, "out": empty(n)}

    def launch(t: Tensors, config: Config) -> Any:
        return _add[(triton.cdiv(n, config["BLOCK_SIZE"]),)](t["x"], t["y"], t["out"], n, **config)

    configs = product(BLOCK_SIZE=_BLOCKS, num_warps=(2, 4, 8))
    return Problem("vector add", str(n), configs, make, launch, lambda t: t["x"].double() + t["y"].double())


@triton.jit
def _dropout(x_ptr, out_ptr, n, p, seed, BLOCK_SIZE: tl.constexpr, CHUNKS: tl.constexpr):
    """out = x / (1 - p) where a random number is above p, else 0. A program does CHUNKS blocks."""
    start = tl.program_id(0) * BLOCK_SIZE * CHUNKS
    for chunk in tl.static_range(CHUNKS):
        offsets = start + chunk * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
        mask = offsets < n
        x = tl.load(x_ptr + offsets, mask=mask)
        kept = tl.rand(seed, offsets) > p
        tl.store(out_ptr + offsets, tl.where(kept, x / (1 - p), 0.0), mask=mask)


def dropout(n: int) -> Problem:
    """Dropout of n elements by a seed. What is dropped is not checked, what is kept is."""

    def make(seed: int) -> Tensors:
        return {"x": normal(seed, (n,))[0], "out": empty(n)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(n, config["BLOCK_SIZE"] * config["CHUNKS"]),)
        return _dropout[grid](t["x"], t["out"], n, 0.5, 7, **config)

    def reference(t: Tensors) -> torch.Tensor:
        return torch.where(t["out"] == 0, 0.0, 2 * t["x"].double())

    configs = product(BLOCK_SIZE=_BLOCKS[:8], CHUNKS=(1, 2, 4))
    return Problem("dropout", str(n), configs, make, launch, reference)


@triton.jit
def _transpose(x_ptr, out_ptr, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """out = x transposed, a tile at a time."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (row[:, None] < rows) & (column[None, :] < columns)
    tile = tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask)
    turned = (row[None, :] < rows) & (column[:, None] < columns)
    tl.store(out_ptr + column[:, None] * rows + row[None, :], tl.trans(tile), mask=turned)


def transpose(rows: int, columns: int) -> Problem:
    """The transpose of a matrix."""

    def make(seed: int) -> Tensors:
        return {"x": normal(seed, (rows, columns))[0], "out": empty(columns, rows)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(rows, config["BLOCK_M"]), triton.cdiv(columns, config["BLOCK_N"]))
        return _transpose[grid](t["x"], t["out"], rows, columns, **config)

    sides = (4, 8, 16, 32, 64, 128)
    configs = product(BLOCK_M=sides, BLOCK_N=sides)
    return Problem("transpose", f"{rows}x{columns}", configs, make, launch, lambda t: t["x"].double().T)


@triton.jit
def _row_sums(x_ptr, out_ptr, rows, columns, ROWS: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """out[r] = sum of row r. Partial sums are kept in a tile."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, BLOCK_SIZE), tl.float32)
    for start in range(0, columns, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        sums += tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
    tl.store(out_ptr + row, tl.sum(sums, 1), mask=row < rows)


def row_sums(rows: int, columns: int) -> Problem:
    """The sums of a matrix's rows."""

    def make(seed: int) -> Tensors:
        return {"x": normal(seed, (rows, columns))[0], "out": empty(rows)}

    def launch(t: Tensors, config: Config) -> Any:
        return _row_sums[(triton.cdiv(rows, config["ROWS"]),)](t["x"], t["out"], rows, columns, **config)

    configs = product(ROWS=(1, 2, 4, 8, 16), BLOCK_SIZE=(16, 32, 64, 128, 256, 512))
    return Problem("row sums", f"{rows}x{columns}", configs, make, launch, lambda t: t["x"].double().sum(1))


@triton.jit
def _column_sums(x_ptr, out_ptr, rows, columns, ROWS: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """out[c] = sum of column c, ROWS rows at a time."""
    column = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    sums = tl.zeros((BLOCK_SIZE,), tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        sums += tl.sum(tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=0.0), 0)
    tl.store(out_ptr + column, sums, mask=column < columns)


def column_sums(rows: int, columns: int) -> Problem:
    """The sums of a matrix's columns, as in the gradient of a bias."""

    def make(seed: int) -> Tensors:
        return {"x": normal(seed, (rows, columns))[0], "out": empty(columns)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(columns, config["BLOCK_SIZE"]),)
        return _column_sums[grid](t["x"], t["out"], rows, columns, **config)

    configs = product(ROWS=(1, 2, 4, 8, 16), BLOCK_SIZE=(16, 32, 64, 128, 256, 512))
    return Problem(
        "column sums", f"{rows}x{columns}", configs, make, launch, lambda t: t["x"].double().sum(0)
    )


@triton.jit
def _embedding(
    index_ptr, table_ptr, out_ptr, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_SIZE: tl.constexpr
):
    """out[r] = table[index[r]], a block of columns at a time."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    index = tl.load(index_ptr + row, mask=row < rows, other=0)
    for start in range(0, WIDTH, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = (row[:, None] < rows) & (column[None, :] < WIDTH)
        values = tl.load(table_ptr + index[:, None] * WIDTH + column[None, :], mask=mask)
        tl.store(out_ptr + row[:, None] * WIDTH + column[None, :], values, mask=mask)


def embedding(rows: int, width: int, table: int = 4096) -> Problem:
    """Rows of a table, at random."""

    def make(seed: int) -> Tensors:
        generator = torch.Generator().manual_seed(seed)
        index = torch.randint(0, table, (rows,), generator=generator)
        return {"index": index, "table": normal(seed, (table, width))[0], "out": empty(rows, width)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(rows, config["ROWS"]),)
        return _embedding[grid](t["index"], t["table"], t["out"], rows, width, **config)

    configs = product(ROWS=(1, 2, 4, 8, 16, 32), BLOCK_SIZE=(16, 32, 64, 128, 256))
    return Problem(
        "embedding", f"{rows}x{width}", configs, make, launch, lambda t: t["table"].double()[t["index"]]
    )
