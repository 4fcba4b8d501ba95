"""Kernels over the rows of a matrix: softmax, layer norm, RMS norm and cross entropy."""

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

from fusetune.bench.autotune_bench.problem import Config, Problem, Tensors, empty, normal, product

_EPS = 1e-5
_SPACE = product(ROWS=(1, 2, 4, 8), BLOCK_SIZE=(16, 32, 64, 128, 256, 512, 1024), num_warps=(4, 8))


@triton.jit
def _softmax(x_ptr, out_ptr, rows, columns, ROWS: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """out = exp(x - max) / sum, by one pass for maximum and sum, and one for the results."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, columns, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        x = tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=float("-inf"))
        new = tl.maximum(largest, tl.max(x, 1))
        shift = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(largest - shift) + tl.sum(tl.exp(x - shift[:, None]), 1)
        largest = new
    for start in range(0, columns, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        x = tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
        y = tl.exp(x - largest[:, None]) / total[:, None]
        tl.store(out_ptr + row[:, None] * columns + column[None, :], y, mask=mask)


def softmax(rows: int, columns: int) -> Problem:
    """Softmax of each row."""

    def make(seed: int) -> Tensors:
        return {"x": normal(seed, (rows, columns))[0], "out": empty(rows, columns)}

    def launch(t: Tensors, config: Config) -> Any:
        return _softmax[(triton.cdiv(rows, config["ROWS"]),)](t["x"], t["out"], rows, columns, **config)

    return Problem("softmax", f"{rows}x{columns}", _SPACE, make, launch, lambda t: t["x"].double().softmax(1))


@triton.jit
def _norm(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    rows,
    columns,
    eps,
    CENTRED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """out = (x - mean) / sqrt(var + eps) * weight + bias, or without mean and bias."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, BLOCK_SIZE), tl.float32)
    squares = tl.zeros((ROWS, BLOCK_SIZE), tl.float32)
    for start in range(0, columns, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        x = tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
        if CENTRED:
            sums += x
        squares += x * x
    mean = tl.sum(sums, 1) / columns
    scale = 1.0 / tl.sqrt(tl.sum(squares, 1) / columns - mean * mean + eps)
    for start in range(0, columns, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        x = tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
        weight = tl.load(weight_ptr + column, mask=column < columns, other=0.0)
        y = (x - mean[:, None]) * scale[:, None] * weight[None, :]
        if CENTRED:
            y += tl.load(bias_ptr + column, mask=column < columns, other=0.0)[None, :]
        tl.store(out_ptr + row[:, None] * columns + column[None, :], y, mask=mask)


def _norm_problem(family: str, rows: int, columns: int, centred: bool) -> Problem:
    """Layer norm, or RMS norm."""

    def make(seed: int) -> Tensors:
        x, weight, bias = normal(seed, (rows, columns), (columns,), (columns,))
        return {"x": x, "weight": weight, "bias": bias, "out": empty(rows, columns)}

    def launch(t: Tensors, config: Config) -> Any:
        tensors = (t["x"], t["weight"], t["bias"], t["out"])
        grid = (triton.cdiv(rows, config["ROWS"]),)
        return _norm[grid](*tensors, rows, columns, _EPS, CENTRED=centred, **config)

    def reference(t: Tensors) -> torch.Tensor:
        x, weight, bias = (t[name].double() for name in ("x", "weight", "bias"))
        normed: torch.Tensor
        if centred:
            normed = F.layer_norm(x, (columns,), weight, bias, _EPS)
        else:
            normed = x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt() * weight
        return normed

    return Problem(family, f"{rows}x{columns}", _SPACE, make, launch, reference)


def layer_norm(rows: int, columns: int) -> Problem:
    """Layer norm of each row."""
    return _norm_problem("layer norm", rows, columns, centred=True)


def rms_norm(rows: int, columns: int) -> Problem:
    """RMS norm of each row."""
    return _norm_problem("rms norm", rows, columns, centred=False)


@triton.jit
def _cross_entropy(x_ptr, target_ptr, out_ptr, rows, columns, ROWS: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """out[r] = log of the sum of exp(x[r]), minus x[r, target[r]]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, columns, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        mask = inside[:, None] & (column[None, :] < columns)
        x = tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=float("-inf"))
        new = tl.maximum(largest, tl.max(x, 1))
        shift = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(largest - shift) + tl.sum(tl.exp(x - shift[:, None]), 1)
        largest = new
    target = tl.load(target_ptr + row, mask=inside, other=0)
    chosen = tl.load(x_ptr + row * columns + target, mask=inside, other=0.0)
    tl.store(out_ptr + row, largest + tl.log(total) - chosen, mask=inside)


def cross_entropy(rows: int, columns: int) -> Problem:
    """The cross entropy of each row with a class."""

    def make(seed: int) -> Tensors:
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(0, columns, (rows,), generator=generator)
        return {"x": normal(seed, (rows, columns))[0], "target": target, "out": empty(rows)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(rows, config["ROWS"]),)
        return _cross_entropy[grid](t["x"], t["target"], t["out"], rows, columns, **config)

    def reference(t: Tensors) -> torch.Tensor:
        return F.cross_entropy(t["x"].double(), t["target"], reduction="none")

    return Problem("cross entropy", f"{rows}x{columns}", _SPACE, make, launch, reference)
