"""`fused(*inputs)` and `reference(*inputs)`: no names at all. The inputs have the size that is asked for."""

# mypy: disallow-untyped-defs=False
import torch


def fused(*inputs):
    return torch.addcmul(*inputs)


def reference(*inputs):
    x, y, z = inputs
    return x + y * z


def make_inputs(elements, dtype, device, seed):
    torch.manual_seed(seed)
    return [torch.randn(elements, device=device, dtype=dtype) for _ in range(3)]
