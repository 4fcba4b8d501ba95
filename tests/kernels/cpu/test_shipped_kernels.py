"""Every kernel of the suite, compiled for the CPU, gives what its plain-PyTorch twin gives in fp64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fusetune.kernels import KERNELS, FusedAdamW, FusedSGD
from fusetune.kernels.launch import as_if_on_gpu

QUICK = ("adam", "sgd", "gelu_tanh", "silu_backward", "swiglu_backward")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_WORKING_ERROR = 1e-6  # of the largest value: a few roundings in fp32


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def widened(value: Any) -> Any:
    """The same with every float in fp64."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    if isinstance(value, dict):
        return {key: widened(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(widened(item) for item in value)
    return value


def check(name: str, dtype: torch.dtype, elements: int) -> None:
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(elements, dtype, torch.device("cpu"), 0)
    exact = widened(inputs)
    with as_if_on_gpu():
        got: Any = kernel.fused(**inputs)
    expected: Any = kernel.reference(**exact)
    if kernel.mutates:
        got, expected = ([each[key] for key in kernel.mutates] for each in (inputs, exact))
    pairs = list(zip(tensors(got), tensors(expected), strict=True))
    assert pairs
    for one, other in pairs:
        scale = float(other.abs().max())
        rounding = torch.finfo(one.dtype).eps / 2
        torch.testing.assert_close(one.double(), other, rtol=rounding, atol=_WORKING_ERROR * scale)


@pytest.mark.processor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", QUICK)
def test_shipped_kernels_match_their_twins(name: str, dtype: torch.dtype) -> None:
    check(name, dtype, 1000)


@pytest.mark.exhaustive
@pytest.mark.parametrize("elements", [1, 1000, 4096, 100_003])
@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_matches_its_twin(name: str, dtype: torch.dtype, elements: int) -> None:
    check(name, dtype, elements + elements % 2 if "glu" in name else elements)  # a gate takes halves


@pytest.mark.processor
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
