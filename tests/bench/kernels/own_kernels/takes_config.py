"""A function that takes a launch config, and the space of configs beside it."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl

from fusetune.kernels import config_grid

configs = config_grid(ROWS=(1, 4), num_warps=4)
default = {"ROWS": 4, "num_warps": 4}


@triton.jit
def row_sum_kernel(x_ptr, out_ptr, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, COLUMNS)[None, :]
    x = tl.load(x_ptr + r * columns + c, mask=(r < rows) & (c < columns), other=0.0)
    tl.store(out_ptr + r, tl.sum(x, 1)[:, None], mask=r < rows)


def fused(x, config):
    rows, columns = x.shape
    out = x.new_empty(rows)
    row_sum_kernel[(triton.cdiv(rows, config["ROWS"]),)](
        x, out, rows, columns, COLUMNS=triton.next_power_of_2(columns), **config
    )
    return out


def reference(x):
    return x.sum(1)


def make_inputs(elements, dtype, device, seed):
    return torch.randn(max(1, elements // 64), 64, dtype=dtype, device=device)
