"""Every competitor computes what the kernel computes, held to float64, one tensor or a model's list."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.competitors import build_competitor, competitors_of
from fusetune.bench.kernels.lane import LaneError
from fusetune.bench.kernels.model_shapes import MODELS, cut, kernel_on
from fusetune.kernels import KERNELS
from fusetune.kernels.static.recorder import record_launches

CPU = torch.device("cpu")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


def in_double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double()
    return [in_double(each) for each in value] if isinstance(value, list) else value


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for each in value for tensor in tensors(each)]


def step(call: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors after one call on copies."""
    streams = [[t.clone() for t in s] if isinstance(s, list) else s.clone() for s in inputs["streams"]]
    call(**{**inputs, "streams": streams})
    return tensors(streams)


@pytest.mark.parametrize("shape", [1000, "resnet50"])
@pytest.mark.parametrize("side", ["ours", "foreach", "fused"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_of_torchs_is_the_reference_in_float64(name: str, side: str, shape: int | str) -> None:
    kernel, _ = kernel_on(KERNELS[name], shape)
    inputs = kernel.make_inputs(20_000, torch.float32, CPU, 3)
    truth = step(kernel.reference, {**inputs, "streams": in_double(inputs["streams"])})
    call = kernel.fused if side == "ours" else build_competitor(kernel, side)
    for _ in range(2):  # the second call makes the tenth step once more
        for found, true in zip(step(call, inputs), truth, strict=True):
            torch.testing.assert_close(found.double(), true, rtol=2e-6, atol=2e-6)


def test_a_models_list_is_cut_to_any_number_of_elements_and_moves_as_many_bytes() -> None:
    kernel, elements = kernel_on(KERNELS["momentum"], "vit_b_16")
    assert elements == sum(map(math.prod, MODELS["vit_b_16"]))
    for count in (1, 1000, 200_000):
        inputs = kernel.make_inputs(count, torch.bfloat16, CPU, 0)
        assert [sum(t.numel() for t in stream) for stream in inputs["streams"]] == [count] * 3
        assert kernel.bytes_moved is not None
        assert kernel.bytes_moved(inputs) == count * 2 * 5
        assert all(t.data_ptr() % 16 == 0 for t in tensors(inputs["streams"]))
    assert sum(map(math.prod, cut(MODELS["resnet50"], 30_000_000))) == 30_000_000


def test_a_call_on_a_models_list_is_one_launch() -> None:
    kernel, _ = kernel_on(KERNELS["adam"], "resnet50")
    inputs = kernel.make_inputs(200_000, torch.float32, CPU, 0)
    with record_launches() as recording:
        kernel.fused(**inputs)
    assert len(recording.launches) == 1


def test_shapes_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="unknown 'resnet5'; known: gpt2_124m, resnet50, vit_b_16"):
        kernel_on(KERNELS["adam"], "resnet5")
    with pytest.raises(InputError, match="gelu: has no parameters to update on resnet50"):
        kernel_on(KERNELS["gelu"], "resnet50")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gelu", "swiglu_backward", "adamw"])
def test_what_is_compiled_is_the_reference(name: str) -> None:
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(300, torch.float32, CPU, 1)
    call = build_competitor(kernel, "compile")
    if kernel.mutates:
        found, true = step(call, inputs), step(kernel.reference, inputs)
    else:
        found, true = call(**inputs), kernel.reference(**inputs)
    torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-6)


def test_liger_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusetune.bench.kernels.competitors.find_spec", lambda name: None)
    for name, reason in (
        ("swiglu", "liger-kernel is not installed"),
        ("swiglu_backward", "overwrites its inputs"),
        ("geglu", "tanh approximation"),
    ):
        with pytest.raises(LaneError, match=reason) as raised:
            build_competitor(KERNELS[name], "liger")
        assert raised.value.status == "skipped"


def test_an_unknown_competitor_is_refused_and_a_kernels_own_is_known() -> None:
    with pytest.raises(InputError, match="gelu: competitors: unknown 'foreach'; known: compile, eager"):
        build_competitor(KERNELS["gelu"], "foreach")
    own = dataclasses.replace(KERNELS["gelu"], competitors={"mine": torch.nn.functional.gelu})
    assert competitors_of(own) == ("eager", "compile", "mine")
    assert build_competitor(own, "mine") is torch.nn.functional.gelu
