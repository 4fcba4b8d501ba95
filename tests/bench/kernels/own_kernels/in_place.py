"""An update in place: `mutates` and `bytes_moved` are found. A tolerance is said by a variable."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl

tolerance = 1e-6


@triton.jit
def momentum_kernel(p_ptr, g_ptr, v_ptr, rate, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = 0.9 * tl.load(v_ptr + i, mask=i < n) + tl.load(g_ptr + i, mask=i < n)
    tl.store(v_ptr + i, v, mask=i < n)
    tl.store(p_ptr + i, tl.load(p_ptr + i, mask=i < n) - rate * v, mask=i < n)


def fused(parameter, gradient, velocity, rate):
    n = parameter.numel()
    momentum_kernel[(triton.cdiv(n, 512),)](parameter, gradient, velocity, rate, n, BLOCK=512)


def reference(parameter, gradient, velocity, rate):
    velocity.mul_(0.9).add_(gradient)
    parameter.sub_(velocity, alpha=rate)


def make_inputs(elements, dtype, seed):
    p, g, v = torch.randn(3, elements, dtype=dtype)
    return {"parameter": p, "gradient": g, "velocity": v, "rate": 0.125}
