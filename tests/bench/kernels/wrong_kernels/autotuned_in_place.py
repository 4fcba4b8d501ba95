"""Wrong: an update in place under `@triton.autotune`, whose search repeats it on the same tensor."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl


@triton.autotune([triton.Config({"BLOCK": 256}), triton.Config({"BLOCK": 1024})], key=["n"])
@triton.jit
def double(x_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + i, 2 * tl.load(x_ptr + i, mask=i < n), mask=i < n)


def grid(meta):
    return (triton.cdiv(meta["n"], meta["BLOCK"]),)


def reference(x_ptr, n):
    x_ptr.mul_(2)


def make_inputs(elements, dtype, device, seed):
    generator = torch.Generator().manual_seed(seed)
    return {"x_ptr": torch.randn(elements, generator=generator).to(device, dtype), "n": elements}
