"""A `@triton.autotune` function as it is."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl


@triton.autotune(
    [triton.Config({"BLOCK": 256}, num_warps=4), triton.Config({"BLOCK": 2048}, num_warps=8)], key=["n"]
)
@triton.jit
def negate(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, -tl.load(x_ptr + i, mask=i < n), mask=i < n)


def grid(meta):
    return (triton.cdiv(meta["n"], meta["BLOCK"]),)


def reference(x):
    return -x


def make_inputs(elements, dtype, device, seed):
    x = torch.randn(elements, device=device, dtype=dtype)
    return {"x_ptr": x, "out_ptr": torch.empty_like(x), "n": elements}
