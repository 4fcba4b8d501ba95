"""A `Kernel` in ten lines."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
import torch
import triton
import triton.language as tl

from fusetune.kernels import Kernel, config_grid


@triton.jit
def scale_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, 2 * tl.load(x_ptr + i, mask=i < n), mask=i < n)


def scale(x, config):
    y = torch.empty_like(x)
    scale_kernel[(triton.cdiv(x.numel(), config["BLOCK"]),)](x, y, x.numel(), **config)
    return y


KERNEL = Kernel(
    name="scale",
    fused=scale,
    reference=lambda x: 2 * x,
    make_inputs=lambda elements, dtype, device, seed: {
        "x": torch.randn(elements, dtype=dtype, device=device)
    },
    bytes_moved=lambda inputs: 2 * inputs["x"].nbytes,
    mutates=(),
    configs=config_grid(BLOCK=(256, 1024), num_warps=(4, 8)),
)
