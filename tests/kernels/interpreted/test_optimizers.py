"""The optimizer kernels themselves, step by step in the interpreter, against torch in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fusetune.kernels.launch
from fusetune.kernels import KERNELS, FusedAdam, FusedAdamW, FusedSGD
from fusetune.kernels.optimizers.adam import adam_constants, adam_kernel
from fusetune.kernels.optimizers.sgd import sgd_constants, sgd_kernel
from fusetune.kernels.optimizers.tables import MultiTensorTable
from tests.kernels.non_finite import NON_FINITE_CASES, assert_non_finite_as_torch
from tests.kernels.trajectories import (
    assert_within_bound,
    copies,
    largest_error,
    parameters,
    set_gradients,
)

CASES = [
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}, id="sgd"),
    pytest.param(
        FusedSGD,
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        id="nesterov",
    ),
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}, id="dampening"),
    pytest.param(FusedAdam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-4}, id="adam"),
    pytest.param(
        FusedAdamW, torch.optim.AdamW, {"lr": 0.01, "amsgrad": True, "eps": 1e-4}, id="adamw-amsgrad"
    ),
]
cases = pytest.mark.parametrize(("fused_class", "torch_class", "options"), CASES)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the programs of every launch."""
    seen: list[int] = []
    real = fusetune.kernels.launch.launch

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        seen.append(grid[0])
        real(kernel, grid, *arguments, **options)

    monkeypatch.setattr(fusetune.kernels.launch, "launch", launch)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@cases
def test_kernel_stays_within_the_bound_of_torch(
    fused_class: Any, torch_class: Any, options: Any, dtype: torch.dtype
) -> None:
    assert_within_bound(fused_class, torch_class, options, dtype, steps=5)


@cases
def test_one_launch_for_all_groups(
    fused_class: Any, torch_class: Any, options: Any, launches: list[int]
) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    for cls, params in ((fused_class, ours), (torch_class, theirs)):
        optimizer = cls([{"params": params[:4]}, {"params": params[4:], "lr": 0.003}], **options)
        for step in range(3):
            set_gradients(step, params)
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5
    # 1, 1, 7, 165 and 301 elements take a program each, 1030 two, none takes none.
    assert launches == [7, 7, 7]


def test_one_launch_for_each_dtype(launches: list[int]) -> None:
    params = parameters(torch.float32) + parameters(torch.bfloat16)
    optimizer = FusedAdam(params)
    set_gradients(0, params)
    optimizer.step()
    assert optimizer.path == "interpreter"
    assert launches == [7, 7]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@cases
def test_masters_follow_fp32_and_parameters_are_them_rounded(
    fused_class: Any, torch_class: Any, options: Any, dtype: torch.dtype, launches: list[int]
) -> None:
    ours = parameters(dtype)
    theirs = copies(ours, torch.float32)
    optimizers = [fused_class(ours, **options, master_weights=True), torch_class(theirs, **options)]
    for step in range(4):
        set_gradients(step, ours, theirs)
        if step == 2:
            for params in (ours, theirs):
                params[-1].data[:100] = 3.0
        for optimizer in optimizers:
            optimizer.step()
    masters = [optimizers[0].state[p]["master"] for p in ours]
    assert largest_error(masters, theirs) < 1e-5
    for p, master in zip(ours, masters, strict=True):
        # The interpreter cuts fp32 off to bf16 where a GPU rounds.
        bits = master.view(torch.int32)
        cut = (bits & -65536).view(torch.float32) if dtype == torch.bfloat16 else master
        assert torch.equal(p, cut.to(dtype))
    # Blocks of 512 elements: 1030 take three.
    assert launches == [8] * 4


@pytest.mark.parametrize("gradient_dtype", [torch.bfloat16, torch.float16])
def test_streams_of_different_dtypes_share_a_launch(gradient_dtype: torch.dtype) -> None:
    kernel = KERNELS["adamw"]
    fused, reference = (kernel.make_inputs(1003, torch.float32, torch.device("cpu"), 0) for _ in range(2))
    for inputs in (fused, reference):
        inputs["streams"][1] = inputs["streams"][1].to(gradient_dtype)
    fused["table"] = MultiTensorTable([stream.dtype for stream in fused["streams"]], torch.device("cpu"))
    kernel.fused(**fused)
    kernel.reference(**reference)
    torch.testing.assert_close(fused["streams"], reference["streams"])


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("elements", [1, 3, 4, 1024, 1027, 2049])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_nothing_beside_the_tensor_is_touched(name: str, elements: int, offset: int) -> None:
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(elements + 16, torch.float32, torch.device("cpu"), 0)
    whole = inputs["streams"]
    before = [stream.clone() for stream in whole]
    kernel.fused(**{**inputs, "streams": [stream[offset : offset + elements] for stream in whole]})
    expected = [stream.clone() for stream in before]
    kernel.reference(**{**inputs, "streams": [stream[offset : offset + elements] for stream in expected]})
    for found, wanted, old in zip(whole, expected, before, strict=True):
        torch.testing.assert_close(found, wanted)
        assert torch.equal(found[:offset], old[:offset])
        assert torch.equal(found[offset + elements :], old[offset + elements :])


@cases
def test_scaler_unscales_and_skips_in_the_kernel(
    fused_class: Any, torch_class: Any, options: Any, launches: list[int]
) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    for step, found_inf in enumerate((0.0, 1.0, 0.0)):
        set_gradients(step, ours, theirs)
        for p in ours:
            p.grad *= 64.0
        optimizers[0].grad_scale = torch.tensor(64.0)
        optimizers[0].found_inf = torch.tensor(found_inf)
        optimizers[0].step()
        if not found_inf:
            optimizers[1].step()
    assert largest_error(ours, theirs) < 1e-5
    assert len(launches) == 3


@pytest.mark.parametrize("fused_class", [FusedAdam, FusedAdamW])
def test_capturable_works_out_the_same_on_the_device(fused_class: Any) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = [
        fused_class(ours, lr=torch.tensor(0.01, dtype=torch.float64), capturable=True),
        fused_class(theirs, lr=0.01),
    ]
    for step in range(3):
        set_gradients(step, ours, theirs)
        if step == 0:
            ours[-1].grad = theirs[-1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) == 0


def test_groups_that_count_on_host_and_device_share_a_launch(launches: list[int]) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    groups = [{"params": ours[:4], "capturable": True}, {"params": ours[4:]}]
    optimizers = [FusedAdam(groups, lr=0.01), torch.optim.Adam(theirs, lr=0.01)]
    for step in range(3):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5
    assert launches == [7, 7, 7]


@cases
def test_layouts_that_share_an_order_take_the_kernel_and_others_do_not(
    fused_class: Any, torch_class: Any, options: Any, launches: list[int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 4, 5, generator=generator)
    ours = [
        torch.nn.Parameter(image.to(memory_format=torch.channels_last)),
        torch.nn.Parameter(image.clone()),
        torch.randn(6, 10, generator=generator)[:, ::2].requires_grad_(),
    ]
    theirs = copies(ours)
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    for step in range(3):
        set_gradients(step, ours, theirs)
        ours[0].grad = ours[0].grad.to(memory_format=torch.channels_last)
        ours[1].grad = ours[1].grad.to(memory_format=torch.channels_last)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5
    assert launches == [1, 1, 1]


@cases
def test_autograd_notices_the_kernels_write(fused_class: Any, torch_class: Any, options: Any) -> None:
    p = torch.nn.Parameter(torch.ones(8))
    optimizer = fused_class([p], **options)
    p.grad = torch.ones(8)
    graph = (p * p).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        graph.backward()


def test_nan_and_infinite_gradients_come_out_as_torchs() -> None:
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, 0.0])
    for fused_class, torch_class in ((FusedSGD, torch.optim.SGD), (FusedAdam, torch.optim.Adam)):
        ours = [torch.nn.Parameter(torch.ones(5))]
        theirs = copies(ours)
        for cls, params in ((fused_class, ours), (torch_class, theirs)):
            params[0].grad = values.clone()
            cls(params, lr=0.1).step()
        torch.testing.assert_close(ours[0], theirs[0], equal_nan=True)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_the_last_elements_of_a_tensor_above_two_to_the_31_are_updated_where_they_are(
    name: str, tmp_path: Path
) -> None:
    elements = 2**31 + 1027
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(2048 + 1027, torch.bfloat16, torch.device("cpu"), 0)
    # Files of holes: only the pages that are written take any memory.
    whole = [
        torch.from_file(str(tmp_path / str(i)), shared=True, size=elements, dtype=torch.bfloat16)
        for i in range(len(inputs["streams"]))
    ]
    tails = [stream[2**31 - 2048 :] for stream in whole]
    for tail, values in zip(tails, inputs["streams"], strict=True):
        tail.copy_(values)
    table = inputs["table"]
    table.update([[stream] for stream in whole], [0], [inputs["row"]])
    chunks = table._chunks
    assert chunks[-1].tolist() == [0, 2**21 + 1]
    assert table._records[0, : len(whole)].tolist() == [stream.data_ptr() for stream in whole]
    assert table._records[0, 5] == elements
    table._chunks = chunks[-3:].clone()
    constants = (sgd_constants if name != "adam" else adam_constants)([torch.bfloat16] * len(whole))
    table.launch({"adam": adam_kernel}.get(name, sgd_kernel), **constants)
    # The three blocks end with the tensor: 1024 elements below 2**31 and all beyond.
    expected = [values.clone() for values in inputs["streams"]]
    blocks = MultiTensorTable([torch.bfloat16] * len(whole), torch.device("cpu"))
    kernel.fused([values[1024:] for values in expected], inputs["row"], blocks)
    assert all(map(torch.equal, tails, expected))
    assert not torch.equal(tails[0][1024:], inputs["streams"][0][1024:])
    assert sum(stream.count_nonzero() for stream in (s[: 2**20] for s in whole)) == 0


@pytest.mark.parametrize("which", ["parameter", "gradient", "state"])
@pytest.mark.parametrize(("fused_class", "torch_class", "options"), NON_FINITE_CASES)
def test_infinities_and_nan_come_out_as_torchs(
    fused_class: Any, torch_class: Any, options: dict[str, Any], which: str
) -> None:
    assert_non_finite_as_torch(fused_class, torch_class, options, which)
