"""Helion's kernels through the CPU backend: what it writes for Triton, against PyTorch in float64."""

# Kernels of another library have no types here.
# mypy: disallow-untyped-defs=False, ignore-errors=True
from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytestmark = [pytest.mark.libraries, pytest.mark.filterwarnings("ignore")]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, Y, ROW, COLUMN = normal(37, 50), normal(37, 50, seed=1), normal(50, seed=2), normal(50, seed=3)
LEFT, RIGHT, BIAS = normal(40, 70), normal(70, 50, seed=1), normal(50, seed=2)
HEADS, KEYS, VALUES = normal(3, 33, 16), normal(3, 45, 16, seed=1), normal(3, 45, 16, seed=2)
WORDS = torch.randint(37, (29,), generator=torch.Generator().manual_seed(0))
CLASSES = torch.randint(50, (37,), generator=torch.Generator().manual_seed(0))

# Kernel -> the same in PyTorch, and the inputs.
CASES: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]] = {
    "add": (lambda x, y: x + y, (X, ROW)),
    "gelu_of_sum": (lambda x, bias: F.gelu(x + bias), (X, ROW)),
    "gated": (lambda x, y: F.silu(x) * y, (X, Y)),
    "softmax": (lambda x: x.softmax(1), (X,)),
    "online_softmax": (lambda x: x.softmax(1), (X,)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (50,), w, b, 1e-5), (X, ROW, COLUMN)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (50,), w, 1e-6), (X, ROW)),
    "row_sums": (lambda x: x.sum(1), (X,)),
    "column_sums": (lambda x: x.sum(0), (X,)),
    "product": (lambda x, y: x @ y, (LEFT, RIGHT)),
    "product_bias_relu": (lambda x, y, bias: torch.relu(x @ y + bias), (LEFT, RIGHT, BIAS)),
    "batched_product": (lambda x, y: x @ y, (normal(3, 20, 30), normal(3, 30, 17, seed=1))),
    "attention": (F.scaled_dot_product_attention, (HEADS, KEYS, VALUES)),
    "embedding": (lambda words, table: F.embedding(words, table), (WORDS, X)),
    "cross_entropy": (lambda x, t: F.cross_entropy(x, t, reduction="none"), (X, CLASSES)),
    "cumulative_sums": (lambda x: x.cumsum(1), (X,)),
    "transposed": (lambda x: x.t(), (X,)),
    "exponential_gradient": (lambda dy, y: dy * y, (ROW, COLUMN)),
}


@pytest.mark.parametrize("name", CASES)
def test_kernel(name: str) -> None:
    pytest.importorskip("helion")
    kernel = getattr(importlib.import_module("tests.kernels.cpu.helion_kernels"), name)
    exact, inputs = CASES[name]
    wanted = exact(*(x.double() if x.is_floating_point() else x for x in inputs))
    got = kernel(*inputs)
    assert got.dtype == torch.float32
    assert (got.double() - wanted).abs().max() <= 5e-6 * wanted.abs().max()
