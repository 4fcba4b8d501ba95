"""Every kernel of the suite, compiled for the CPU, gives what its plain-PyTorch twin gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kernels import KERNELS, FusedAdamW, FusedSGD
from kernels.launch import as_if_on_gpu

QUICK = ("adam", "sgd", "gelu_tanh", "silu_backward", "swiglu_backward")
# Of the largest value: a few roundings in the working precision, one in the result's.
_ERRORS = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def check(name: str, dtype: torch.dtype, elements: int) -> None:
    kernel = KERNELS[name]
    inputs, same = (kernel.make_inputs(elements, dtype, torch.device("cpu"), 0) for _ in range(2))
    with as_if_on_gpu():
        got: Any = kernel.fused(**inputs)
    expected: Any = kernel.reference(**same)
    if kernel.mutates:
        got, expected = ([each[key] for key in kernel.mutates] for each in (inputs, same))
    pairs = list(zip(tensors(got), tensors(expected), strict=True))
    assert pairs
    for one, other in pairs:
        scale = float(other.double().abs().max())
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=_ERRORS[dtype] * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", QUICK)
def test_shipped_kernels_match_their_twins(name: str, dtype: torch.dtype) -> None:
    check(name, dtype, 1000)


@pytest.mark.exhaustive
@pytest.mark.parametrize("elements", [1, 1000, 4096, 100_003])
@pytest.mark.parametrize("dtype", list(_ERRORS), ids=str)
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_matches_its_twin(name: str, dtype: torch.dtype, elements: int) -> None:
    if dtype == torch.float32 or elements % 2 == 0 or "glu" not in name:
        check(name, dtype, elements - elements % 2 + 2 * (elements == 1) if "glu" in name else elements)


@pytest.mark.parametrize(
    ("fused", "plain", "options"),
    [
        (FusedAdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
        (FusedSGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ],
)
def test_a_model_is_trained_alike(fused: Any, plain: Any, options: dict[str, Any]) -> None:
    def train(make: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.Tanh(), torch.nn.Linear(33, 3))
        optimizer = make(model.parameters(), **options)
        x = torch.randn(64, 7)
        for _ in range(10):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    with as_if_on_gpu():
        compiled = train(fused)
    for one, other in zip(compiled, train(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
