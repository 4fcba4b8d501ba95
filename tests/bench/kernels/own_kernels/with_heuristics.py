"""A `@triton.heuristics` function, whose reference writes by itself. One number is the grid."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl


@triton.heuristics({"BLOCK": lambda arguments: triton.next_power_of_2(arguments["n"])})
@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.load(x + i, mask=i < n, other=-float("inf"))
    e = tl.exp(row - tl.max(row, 0))
    tl.store(out + i, e / tl.sum(e, 0), mask=i < n)


grid = 1
elements = (1000,)


def reference(x, out, n):
    out.copy_(torch.softmax(x, 0))


def make_inputs(elements, seed):
    return {"x": torch.randn(elements), "out": torch.empty(elements), "n": elements}
