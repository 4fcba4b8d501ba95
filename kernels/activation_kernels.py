"""The two `@triton.jit` kernels of every activation, forward and backward, and how they are cut up.

Both run over memory, not over indices: a dense tensor of any layout is one flat row of elements. The length is split
into a multiple of 16 and a tail, because the compiler makes 128-bit accesses only where the mask covers whole vectors.
For the same reason remainders are written as `a - (a // b) * b`: Triton loses track of the alignment through `%`.
One division of 64 bits a program places it in the tensor; inside a block 32 bits are enough.
"""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.activation_functions import FUNCTIONS, ActivationFunction
from kernels.kernel import StaticCase
from kernels.launch import LaunchConfig

_TAIL_SIZE = tl.constexpr(16)
DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def launch_config(dtype: torch.dtype, gated: bool) -> LaunchConfig:
    """Accesses of 128 bits on warps of 32, and on waves of 64 as well where that needs at most 64 registers.

    16 elements of a 16-bit gated pair would need up to 72 a thread (geglu's backward, sm_80), so those have 8.
    """
    return LaunchConfig(1024, 4) if dtype == torch.float32 or gated else LaunchConfig(1024, 2)


@triton.jit
def _load_bias(bias_ptr, start, offsets, mask, channels, inner):
    """The bias of each element: its channel is (position // inner) % channels."""
    runs = start // inner
    within = (start - runs * inner).to(tl.int32) + offsets
    running = (runs - (runs // channels) * channels).to(tl.int32) + within // inner
    channel = running - (running // channels) * channels
    return tl.load(bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _gate_offsets(start, offsets, half):
    """Where a block of results begins in the input, its elements' offsets from there, and their columns."""
    row = start // half
    column = (start - row * half).to(tl.int32) + offsets
    rows_on = column // half
    return start + row * half, offsets + rows_on * half, column - rows_on * half


@triton.jit
def _forward_block(
    x_ptr,
    bias_ptr,
    y_ptr,
    start,
    count,
    channels,
    inner,
    half,
    VALUE: tl.constexpr,
    GATED: tl.constexpr,
    EXACT: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`count` results from position `start` on."""
    offsets = tl.arange(0, SIZE)
    mask = offsets < count
    if GATED:
        base, pair, column = _gate_offsets(start, offsets, half)
        a = tl.load(x_ptr + base + pair, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(x_ptr + base + half + pair, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            a += tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
            b += tl.load(bias_ptr + half + column, mask=mask, other=0.0).to(tl.float32)
        y = VALUE(a, EXACT) * b
    else:
        x = tl.load(x_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            x += _load_bias(bias_ptr, start, offsets, mask, channels, inner)
        y = VALUE(x, EXACT)
    tl.store(y_ptr + start + offsets, y, mask=mask)


@triton.jit
def _backward_block(
    dy_ptr,
    saved_ptr,
    bias_ptr,
    dx_ptr,
    start,
    count,
    channels,
    inner,
    half,
    VALUE: tl.constexpr,
    SLOPE: tl.constexpr,
    GATED: tl.constexpr,
    EXACT: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Gradients of `count` results from position `start` on."""
    offsets = tl.arange(0, SIZE)
    mask = offsets < count
    dy = tl.load(dy_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
    if GATED:
        base, pair, column = _gate_offsets(start, offsets, half)
        a = tl.load(saved_ptr + base + pair, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(saved_ptr + base + half + pair, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            a += tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
            b += tl.load(bias_ptr + half + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + base + pair, SLOPE(a, dy * b, EXACT), mask=mask)
        tl.store(dx_ptr + base + half + pair, dy * VALUE(a, EXACT), mask=mask)
    else:
        saved = tl.load(saved_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            saved += _load_bias(bias_ptr, start, offsets, mask, channels, inner)
        tl.store(dx_ptr + start + offsets, SLOPE(saved, dy, EXACT), mask=mask)


@triton.jit(do_not_specialize=["tail"])
def forward_kernel(
    x_ptr,
    bias_ptr,
    y_ptr,
    n,
    tail,
    channels,
    inner,
    half,
    VALUE: tl.constexpr,
    GATED: tl.constexpr,
    EXACT: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """y = VALUE(x + bias), or VALUE(a + bias_a) * (b + bias_b), over n + tail elements; 16 divides n."""
    start = tl.program_id(0).to(tl.int64) * BLOCK_SIZE
    count = tl.minimum(n - start, BLOCK_SIZE).to(tl.int32)
    _forward_block(
        x_ptr, bias_ptr, y_ptr, start, count, channels, inner, half, VALUE, GATED, EXACT, BLOCK_SIZE
    )
    if HAS_TAIL:  # noqa: SIM102 - this test is made by the compiler, the next one on the GPU
        if tl.program_id(0) == tl.num_programs(0) - 1:
            begin = n.to(tl.int64)
            _forward_block(
                x_ptr, bias_ptr, y_ptr, begin, tail, channels, inner, half, VALUE, GATED, EXACT, _TAIL_SIZE
            )


@triton.jit(do_not_specialize=["tail"])
def backward_kernel(
    dy_ptr,
    saved_ptr,
    bias_ptr,
    dx_ptr,
    n,
    tail,
    channels,
    inner,
    half,
    VALUE: tl.constexpr,
    SLOPE: tl.constexpr,
    GATED: tl.constexpr,
    EXACT: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """dx = SLOPE(saved + bias, dy), over n + tail elements of dy; 16 divides n."""
    start = tl.program_id(0).to(tl.int64) * BLOCK_SIZE
    count = tl.minimum(n - start, BLOCK_SIZE).to(tl.int32)
    _backward_block(
        dy_ptr,
        saved_ptr,
        bias_ptr,
        dx_ptr,
        start,
        count,
        channels,
        inner,
        half,
        VALUE,
        SLOPE,
        GATED,
        EXACT,
        BLOCK_SIZE,
    )
    if HAS_TAIL:  # noqa: SIM102 - this test is made by the compiler, the next one on the GPU
        if tl.program_id(0) == tl.num_programs(0) - 1:
            begin = n.to(tl.int64)
            _backward_block(
                dy_ptr,
                saved_ptr,
                bias_ptr,
                dx_ptr,
                begin,
                tail,
                channels,
                inner,
                half,
                VALUE,
                SLOPE,
                GATED,
                EXACT,
                _TAIL_SIZE,
            )


def forward_case(name: str, dtype: torch.dtype, bias: bool = False) -> StaticCase:
    """The forward kernel of `name` as it is launched on aligned tensors of a length that 16 divides."""
    streams = ("x_ptr", "bias_ptr", "y_ptr") if bias else ("x_ptr", "y_ptr")
    title = f"{name}-bias" if bias else name
    return _case(title, forward_kernel, FUNCTIONS[name], dtype, streams, {"VALUE": FUNCTIONS[name].value})


def backward_case(name: str, dtype: torch.dtype) -> StaticCase:
    """The backward kernel of `name`, likewise, without a bias."""
    row = FUNCTIONS[name]
    functions = {"VALUE": row.value, "SLOPE": row.slope}
    streams = ("dy_ptr", "saved_ptr", "dx_ptr")
    return _case(f"{name}_backward", backward_kernel, row, dtype, streams, functions)


def _case(
    title: str,
    kernel: Any,
    row: ActivationFunction,
    dtype: torch.dtype,
    streams: tuple[str, ...],
    functions: dict[str, Any],
) -> StaticCase:
    """A case with every size that is not 1 left open, and a multiple of 16."""
    config = launch_config(dtype, row.gated)
    bias = "bias_ptr" in streams
    open_sizes = ["n", *(["channels"] if bias else []), *(["half"] if row.gated else [])]
    constants: dict[str, Any] = {} if bias else {"bias_ptr": None}
    constants |= {size: 1 for size in ("channels", "inner", "half") if size not in open_sizes}
    constants |= {"GATED": row.gated, "EXACT": dtype == torch.float32, "HAS_TAIL": False}
    return StaticCase(
        name=f"{title}-{DTYPES[dtype]}",
        jit=kernel,
        signature={
            **dict.fromkeys(streams, f"*{DTYPES[dtype]}"),
            **dict.fromkeys([*open_sizes, "tail"], "i32"),
        },
        constants={**constants, **functions, "BLOCK_SIZE": config.block_size},
        config=config,
        elements=config.block_size,
        aligned=(*streams, *open_sizes),
    )
