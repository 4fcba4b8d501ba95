"""The `@triton.jit` kernels of every activation, forward and backward, and the split of their work into programs.

The kernels run over memory, not over indices: a dense tensor of any layout is one flat row of elements. The length is
split into a multiple of 16 and a tail, because the compiler makes 128-bit accesses only where the mask covers whole
vectors. For the same reason remainders are written as `a - (a // b) * b`: Triton's analysis loses the alignment at
`%`. A program computes its place in the tensor by one division. Inside a block 32 bits suffice. POSITION is the type
of an element's place in the tensor, COLUMN that of its place in a row. They have 32 bits wherever these suffice,
because NVIDIA divides 64-bit integers by a function call.
"""

# Triton: constexprs in capitals (N803).
# ruff: noqa: N803
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from fusetune.kernels.activations.functions import FUNCTIONS, ActivationFunction
from fusetune.kernels.kernel import StaticCase
from fusetune.kernels.launch import LaunchConfig

_TAIL_SIZE = tl.constexpr(16)
DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def launch_config(dtype: torch.dtype, gated_backward: bool) -> LaunchConfig:
    """Accesses of 128 bits on warps of 32, and on waves of 64 as well where that needs at most 64 registers.

    16 elements a thread in a 16-bit gated pair's backward would need 76 (geglu, sm_80), so those have 8.
    """
    return LaunchConfig(1024, 4) if dtype == torch.float32 or gated_backward else LaunchConfig(1024, 2)


@triton.jit
def _load_bias(bias_ptr, start, offsets, mask, channels, inner, COLUMN: tl.constexpr):
    """The bias of each element: its channel is (position // inner) % channels."""
    runs = start // inner
    within = (start - runs * inner).to(COLUMN) + offsets
    running = (runs - (runs // channels) * channels).to(COLUMN) + within // inner
    channel = running - (running // channels) * channels
    return tl.load(bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _gate_offsets(start, offsets, half, COLUMN: tl.constexpr):
    """The first place of a block of results in the input, its elements' offsets from there, and their columns."""
    row = start // half
    column = (start - row * half).to(COLUMN) + offsets
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
    parameters,
    VALUE: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMN: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`count` results from position `start` on."""
    offsets = tl.arange(0, SIZE)
    mask = offsets < count
    if GATED:
        base, pair, column = _gate_offsets(start, offsets, half, COLUMN)
        a = tl.load(x_ptr + base + pair, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(x_ptr + base + half + pair, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            a += tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
            b += tl.load(bias_ptr + half + column, mask=mask, other=0.0).to(tl.float32)
        y = VALUE(a, PRECISION, *parameters) * b
    else:
        x = tl.load(x_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            x += _load_bias(bias_ptr, start, offsets, mask, channels, inner, COLUMN)
        y = VALUE(x, PRECISION, *parameters)
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
    parameters,
    VALUE: tl.constexpr,
    SLOPE: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMN: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Gradients of `count` results from position `start` on."""
    offsets = tl.arange(0, SIZE)
    mask = offsets < count
    dy = tl.load(dy_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
    if GATED:
        base, pair, column = _gate_offsets(start, offsets, half, COLUMN)
        a = tl.load(saved_ptr + base + pair, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(saved_ptr + base + half + pair, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            a += tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
            b += tl.load(bias_ptr + half + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + base + pair, SLOPE(a, dy * b, PRECISION, *parameters), mask=mask)
        tl.store(dx_ptr + base + half + pair, dy * VALUE(a, PRECISION, *parameters), mask=mask)
    else:
        saved = tl.load(saved_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            saved += _load_bias(bias_ptr, start, offsets, mask, channels, inner, COLUMN)
        tl.store(dx_ptr + start + offsets, SLOPE(saved, dy, PRECISION, *parameters), mask=mask)


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
    parameters,
    VALUE: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    POSITION: tl.constexpr,
    COLUMN: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """y = VALUE(x + bias), or VALUE(a + bias_a) * (b + bias_b), over n + tail elements, where 16 divides n."""
    start = tl.program_id(0).to(POSITION) * BLOCK_SIZE
    count = tl.minimum(n - start, BLOCK_SIZE).to(tl.int32)
    _forward_block(
        x_ptr,
        bias_ptr,
        y_ptr,
        start,
        count,
        channels,
        inner,
        half,
        parameters,
        VALUE,
        GATED,
        PRECISION,
        COLUMN,
        BLOCK_SIZE,
    )
    if HAS_TAIL:  # noqa: SIM102 - the compiler evaluates this test, the GPU the next one
        if tl.program_id(0) == tl.num_programs(0) - 1:
            begin = n.to(POSITION)
            _forward_block(
                x_ptr,
                bias_ptr,
                y_ptr,
                begin,
                tail,
                channels,
                inner,
                half,
                parameters,
                VALUE,
                GATED,
                PRECISION,
                COLUMN,
                _TAIL_SIZE,
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
    parameters,
    VALUE: tl.constexpr,
    SLOPE: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    POSITION: tl.constexpr,
    COLUMN: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """dx = SLOPE(saved + bias, dy), over n + tail elements of dy, where 16 divides n."""
    start = tl.program_id(0).to(POSITION) * BLOCK_SIZE
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
        parameters,
        VALUE,
        SLOPE,
        GATED,
        PRECISION,
        COLUMN,
        BLOCK_SIZE,
    )
    if HAS_TAIL:  # noqa: SIM102 - the compiler evaluates this test, the GPU the next one
        if tl.program_id(0) == tl.num_programs(0) - 1:
            begin = n.to(POSITION)
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
                parameters,
                VALUE,
                SLOPE,
                GATED,
                PRECISION,
                COLUMN,
                _TAIL_SIZE,
            )


@triton.jit
def backward_rows_kernel(
    dy_ptr,
    saved_ptr,
    bias_ptr,
    dx_ptr,
    sums_ptr,
    rows,
    columns,
    parameters,
    SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
    POSITION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """dx = SLOPE(saved + bias, dy) on ROWS rows, whose sum is added to a row of sums_ptr.

    For a CPU: it runs along the rows, through memory once and in order, and the sums stay in L1 or L2.
    """
    first = tl.program_id(0).to(POSITION) * ROWS
    sums = sums_ptr + tl.program_id(0).to(POSITION) * columns
    count = tl.minimum(rows - first, ROWS).to(tl.int32)
    for row in range(count):
        start = (first + row) * columns
        for begin in range(0, columns, BLOCK_SIZE):
            column = begin + tl.arange(0, BLOCK_SIZE)
            mask = column < columns
            dy = tl.load(dy_ptr + start + column, mask=mask, other=0.0).to(tl.float32)
            saved = tl.load(saved_ptr + start + column, mask=mask, other=0.0).to(tl.float32)
            if bias_ptr is not None:
                saved += tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
            dx = SLOPE(saved, dy, PRECISION, *parameters)
            tl.store(dx_ptr + start + column, dx, mask=mask)
            tl.store(sums + column, tl.load(sums + column, mask=mask) + dx, mask=mask)


def index_types(elements: int, longest: int) -> dict[str, Any]:
    """The narrowest types that hold every place in the larger tensor, and in a row of `longest` elements.

    The margin is for the last block, which may extend beyond the tensor's end under its mask.

    Example:
        >>> index_types(2**20, 2**10)
        {'POSITION': triton.language.int32, 'COLUMN': triton.language.int32}
    """
    fits = 2**31 - 2**16
    return {
        "POSITION": tl.int32 if elements <= fits else tl.int64,
        "COLUMN": tl.int32 if longest <= fits else tl.int64,
    }


def precision(row: ActivationFunction, dtype: torch.dtype, approximate: bool) -> str:
    """PRECISION for results of `dtype`, where `approximate` is allowed."""
    if dtype == torch.float32:
        return "fp32"
    return "approximate" if approximate and dtype in row.approximate_ulp else "16-bit"


def forward_case(
    name: str, dtype: torch.dtype, *, bias: bool = False, approximate: bool = False
) -> StaticCase:
    """The forward kernel of `name`, launched on aligned tensors of a length that 16 divides."""
    streams = ("x_ptr", "bias_ptr", "y_ptr") if bias else ("x_ptr", "y_ptr")
    title = f"{name}-bias" if bias else name
    functions = {"VALUE": FUNCTIONS[name].value}
    return _case(title, forward_kernel, FUNCTIONS[name], dtype, streams, functions, approximate)


def backward_case(name: str, dtype: torch.dtype, *, approximate: bool = False) -> StaticCase:
    """The backward kernel of `name`, likewise, without a bias."""
    row = FUNCTIONS[name]
    functions = {"VALUE": row.value, "SLOPE": row.slope}
    streams = ("dy_ptr", "saved_ptr", "dx_ptr")
    return _case(f"{name}_backward", backward_kernel, row, dtype, streams, functions, approximate)


def _case(
    title: str,
    kernel: Any,
    row: ActivationFunction,
    dtype: torch.dtype,
    streams: tuple[str, ...],
    functions: dict[str, Any],
    approximate: bool,
) -> StaticCase:
    """A case whose sizes, except those of 1, are variable and multiples of 16."""
    config = launch_config(dtype, row.gated and kernel is backward_kernel)
    bias = "bias_ptr" in streams
    open_sizes = ["n", *(["channels"] if bias else []), *(["half"] if row.gated else [])]
    constants: dict[str, Any] = {} if bias else {"bias_ptr": None}
    constants |= {size: 1 for size in ("channels", "inner", "half") if size not in open_sizes}
    constants |= {"GATED": row.gated, "PRECISION": precision(row, dtype, approximate), "HAS_TAIL": False}
    constants |= {**index_types(1, 1), **functions, "BLOCK_SIZE": config.block_size}
    signature: dict[str, Any] = {
        **dict.fromkeys(streams, f"*{DTYPES[dtype]}"),
        **dict.fromkeys([*open_sizes, "tail"], "i32"),
        "parameters": ("fp32",) * len(row.parameters),
    }
    return StaticCase(
        name=f"{title}-{'approximate-' if approximate else ''}{DTYPES[dtype]}",
        jit=kernel,
        signature=signature,
        constants=constants,
        config=config,
        elements=config.block_size,
        aligned=(*streams, *open_sizes),
    )
