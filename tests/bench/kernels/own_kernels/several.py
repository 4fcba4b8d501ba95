"""Several kernels in one file."""

# mypy: disallow-untyped-defs=False
import torch

from fusetune import Kernel


def make_inputs(elements, dtype, device, seed):
    return {"x": torch.randn(elements, dtype=dtype, device=device)}


TWICE = Kernel("twice", lambda x: x + x, lambda x: 2 * x, make_inputs)
HALF = Kernel("half", lambda x: x / 2, lambda x: 0.5 * x, make_inputs, dtypes=(torch.float32, torch.float16))
AGAIN = TWICE
