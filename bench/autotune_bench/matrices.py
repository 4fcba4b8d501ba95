"""Kernels on tiles of matrices: a product with grouped programs, and the forward pass of attention."""

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

from fusetune.bench.autotune_bench.problem import Config, Problem, Tensors, empty, normal, product


@triton.jit
def _matmul(
    a_ptr,
    b_ptr,
    out_ptr,
    m,
    n,
    k,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """out = a b. Programs go through GROUP rows of tiles, column by column, so that they share what is in the cache."""
    across = tl.cdiv(n, BLOCK_N)
    group = tl.program_id(0) // (GROUP * across)
    first = group * GROUP
    height = min(tl.cdiv(m, BLOCK_M) - first, GROUP)
    within = tl.program_id(0) - group * GROUP * across
    row = (first + within % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (within // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        a = tl.load(
            a_ptr + row[:, None] * k + inner[None, :],
            mask=(row[:, None] < m) & (inner[None, :] < k),
            other=0.0,
        )
        b = tl.load(
            b_ptr + inner[:, None] * n + column[None, :],
            mask=(inner[:, None] < k) & (column[None, :] < n),
            other=0.0,
        )
        total = tl.dot(a, b, total, input_precision="ieee")
    mask = (row[:, None] < m) & (column[None, :] < n)
    tl.store(out_ptr + row[:, None] * n + column[None, :], total, mask=mask)


def matmul(m: int, n: int, k: int) -> Problem:
    """The product of an m x k and a k x n matrix."""

    def make(seed: int) -> Tensors:
        a, b = normal(seed, (m, k), (k, n))
        return {"a": a, "b": b, "out": empty(m, n)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(m, config["BLOCK_M"]) * triton.cdiv(n, config["BLOCK_N"]),)
        return _matmul[grid](t["a"], t["b"], t["out"], m, n, k, **config)

    configs = product(
        BLOCK_M=(4, 8, 16, 32, 64), BLOCK_N=(16, 32, 64, 128), BLOCK_K=(4, 8, 16, 32), GROUP=(1, 4, 8)
    )
    return Problem(
        "matmul", f"{m}x{n}x{k}", configs, make, launch, lambda t: t["a"].double() @ t["b"].double()
    )


@triton.jit
def _attention(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    length,
    scale,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out = softmax(q k^T scale) v of one head, with the softmax kept up as keys come."""
    head = tl.program_id(1) * length * WIDTH
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dim = tl.arange(0, WIDTH)
    place = row[:, None] * WIDTH + dim[None, :]
    q = tl.load(q_ptr + head + place, mask=row[:, None] < length, other=0.0) * scale
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    result = tl.zeros((BLOCK_M, WIDTH), tl.float32)
    for start in range(0, length, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        inside = key[:, None] < length
        k = tl.load(k_ptr + head + key[:, None] * WIDTH + dim[None, :], mask=inside, other=0.0)
        v = tl.load(v_ptr + head + key[:, None] * WIDTH + dim[None, :], mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        scores = tl.where(key[None, :] < length, scores, float("-inf"))
        new = tl.maximum(largest, tl.max(scores, 1))
        p = tl.exp(scores - new[:, None])
        faded = tl.exp(largest - new)
        total = total * faded + tl.sum(p, 1)
        result = tl.dot(p, v, result * faded[:, None], input_precision="ieee")
        largest = new
    tl.store(out_ptr + head + place, result / total[:, None], mask=row[:, None] < length)


def attention(heads: int, length: int, width: int) -> Problem:
    """Attention of all keys, for each of some heads."""
    shape = (heads, length, width)

    def make(seed: int) -> Tensors:
        q, k, v = normal(seed, shape, shape, shape)
        return {"q": q, "k": k, "v": v, "out": empty(*shape)}

    def launch(t: Tensors, config: Config) -> Any:
        grid = (triton.cdiv(length, config["BLOCK_M"]), heads)
        tensors = (t["q"], t["k"], t["v"], t["out"])
        return _attention[grid](*tensors, length, width**-0.5, WIDTH=width, **config)

    def reference(t: Tensors) -> torch.Tensor:
        q, k, v = (t[name].double() for name in "qkv")
        return F.scaled_dot_product_attention(q, k, v)

    configs = product(BLOCK_M=(4, 8, 16, 32, 64), BLOCK_N=(8, 16, 32, 64, 128))
    return Problem("attention", f"{heads}x{length}x{width}", configs, make, launch, reference)
