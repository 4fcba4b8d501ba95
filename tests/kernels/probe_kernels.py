"""Small kernels whose machine code is known, to test the tools that read it."""

# Triton: constexprs in capitals, arguments without types.
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from fusetune.kernels.kernel import StaticCase
from fusetune.kernels.launch import LaunchConfig


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK_SIZE: tl.constexpr):
    i = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    x = tl.load(x_ptr + i, mask=i < n)
    y = tl.load(y_ptr + i, mask=i < n)
    tl.store(out_ptr + i, x + y, mask=i < n)


@triton.jit
def scaled_kernel(x_ptr, scale_ptr, out_ptr, n, BLOCK_SIZE: tl.constexpr):
    i = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    scale = tl.load(scale_ptr)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(out_ptr + i, x * scale, mask=i < n)


@triton.jit
def two_ways_kernel(x_ptr, out_ptr, n, contiguous, BLOCK_SIZE: tl.constexpr):
    i = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    if contiguous > 7:
        x = tl.load(x_ptr + i, mask=i < n)
        tl.store(out_ptr + i, x + 1, mask=i < n)
    else:
        strided = tl.load(x_ptr + i * 3, mask=i < n)
        tl.store(out_ptr + i * 3, tl.exp(strided) + 1, mask=i < n)


@triton.jit
def sum_kernel(x_ptr, out_ptr, BLOCK_SIZE: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK_SIZE))
    tl.store(out_ptr, tl.sum(x, 0))


@triton.jit
def nvidia_only_kernel(x_ptr, out_ptr, BLOCK_SIZE: tl.constexpr):
    i = tl.arange(0, BLOCK_SIZE)
    x = tl.load(x_ptr + i)
    y = tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )
    tl.store(out_ptr + i, y)


def add_case(
    dtype: str = "fp32", out_dtype: str = "", block_size: int = 1024, aligned: bool = True
) -> StaticCase:
    """Elementwise addition; two streams in, one out."""
    return StaticCase(
        f"add-{dtype}",
        add_kernel,
        {"x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}", "out_ptr": f"*{out_dtype or dtype}", "n": "i32"},
        {"BLOCK_SIZE": block_size},
        LaunchConfig(block_size, 4),
        block_size,
        ("x_ptr", "y_ptr", "out_ptr", "n") if aligned else (),
        16 if aligned else 0,
    )


def scaled_case() -> StaticCase:
    """One stream in, one out, and a scalar that the program shares."""
    return StaticCase(
        "scaled",
        scaled_kernel,
        {"x_ptr": "*fp32", "scale_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32"},
        {"BLOCK_SIZE": 1024},
        LaunchConfig(1024, 4),
        1024,
        ("x_ptr", "out_ptr", "n"),
    )


def two_ways_case() -> StaticCase:
    """A vector branch and a strided one."""
    return StaticCase(
        "two-ways",
        two_ways_kernel,
        {"x_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32", "contiguous": "i32"},
        {"BLOCK_SIZE": 1024},
        LaunchConfig(1024, 4),
        1024,
        ("x_ptr", "out_ptr", "n"),
    )


def sum_case() -> StaticCase:
    """A reduction over a program's warps: it needs shared memory and a barrier."""
    return StaticCase(
        "sum",
        sum_kernel,
        {"x_ptr": "*fp32", "out_ptr": "*fp32"},
        {"BLOCK_SIZE": 1024},
        LaunchConfig(1024, 4),
        1024,
        ("x_ptr",),
    )


def nvidia_only_case() -> StaticCase:
    """Inline PTX, which AMD's compiler cannot read."""
    return StaticCase(
        "nvidia-only",
        nvidia_only_kernel,
        {"x_ptr": "*fp32", "out_ptr": "*fp32"},
        {"BLOCK_SIZE": 1024},
        LaunchConfig(1024, 4),
        1024,
        ("x_ptr", "out_ptr"),
    )
