"""A `@triton.jit` function with its grid. The reference leaves out what the kernel writes, and its size."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl

from fusetune.kernels import config_grid


@triton.jit
def square(x):
    return x * x


@triton.jit
def squared_difference(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    difference = tl.load(x_ptr + i, mask=i < n) - tl.load(y_ptr + i, mask=i < n)
    tl.store(out_ptr + i, square(difference), mask=i < n)


def grid(meta):
    return (triton.cdiv(meta["n"], meta["BLOCK"]),)


def reference(x, y):
    return (x - y) ** 2


def make_inputs(elements, dtype, device, seed):
    x, y = torch.randn(2, elements, device=device, dtype=dtype)
    return x, y, torch.empty_like(x), elements


configs = config_grid(BLOCK=(256, 1024))
