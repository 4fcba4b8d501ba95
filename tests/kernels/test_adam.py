"""FusedAdam and FusedAdamW against torch's in float64, over their options."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fusetune.kernels import KERNELS, FusedAdam, FusedAdamW
from fusetune.kernels.optimizers.adam import adam_row
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.trajectories import (
    assert_within_bound,
    copies,
    largest_error,
    parameters,
    set_gradients,
)

pytestmark = [pytest.mark.processor, pytest.mark.usefixtures("cpu_path")]

CLASSES = [(FusedAdam, torch.optim.Adam), (FusedAdamW, torch.optim.AdamW)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.01, "weight_decay": 0.1},
    {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01},
    {"lr": 0.01, "maximize": True, "betas": (0.5, 0.9), "eps": 1e-6},
    {"lr": 0.01, "betas": (0.0, 0.99)},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("fused_class", "torch_class"), CLASSES)
def test_stays_within_the_bound_of_torch_in_every_dtype(
    fused_class: Any, torch_class: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    # torch divides by eps in the parameter's dtype; 1e-8 is zero in fp16.
    given = {"eps": 1e-4, **options} if dtype == torch.float16 else options
    assert_within_bound(fused_class, torch_class, given, dtype, steps=50)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_thousand_steps_with_weight_decay_stay_within_the_bound(dtype: torch.dtype) -> None:
    assert_within_bound(FusedAdamW, torch.optim.AdamW, {"weight_decay": 0.1}, dtype, steps=2000)


@pytest.mark.parametrize(("fused_class", "torch_class"), CLASSES)
def test_fp64_is_torchs_to_the_last_digits(fused_class: Any, torch_class: Any) -> None:
    ours = parameters(torch.float64)
    theirs = copies(ours)
    options = {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01}
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    for step in range(20):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-14


def test_scalars_are_worked_out_in_double() -> None:
    row = adam_row(1.0, 1e-3, betas=(0.9, 0.999))
    fp32_instead = float(1 - torch.tensor(0.999))
    assert abs(row[5] - 0.001) < 1e-16  # type: ignore[operator]
    assert abs(fp32_instead - 0.001) > 1e-9
    assert row[6] == pytest.approx(1 / math.sqrt(0.001), rel=1e-13)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_gradient_that_arrives_late_counts_its_own_steps(capturable: bool) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = [FusedAdam(ours, lr=0.1, capturable=capturable), torch.optim.Adam(theirs, lr=0.1)]
    for step in range(6):
        set_gradients(step, ours, theirs)
        if step < 3:
            ours[-1].grad = theirs[-1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5
    assert [optimizers[0].state[p]["step"].item() for p in (ours[0], ours[-1])] == [6.0, 3.0]


def test_amsgrad_switched_on_later_starts_from_zero_maxima() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedAdam([p], lr=0.1)
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["max_exp_avg_sq"], optimizer.state[p]["exp_avg_sq"])


def test_steps_that_the_scaler_skips_are_not_counted() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedAdam([p], lr=0.5)
    p.grad = torch.full((3,), float("inf"))
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert p.tolist() == [1.0] * 3
    assert optimizer.state[p]["step"].item() == 0.0
    p.grad, optimizer.found_inf = torch.full((3,), 8.0), torch.tensor(0.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert p.tolist() == pytest.approx([0.5] * 3)
    assert optimizer.state[p]["exp_avg"].tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_registered_kernel_moves_28_bytes_an_element(name: str) -> None:
    inputs = KERNELS[name].make_inputs(1000, torch.float32, torch.device("cpu"), 0)
    assert KERNELS[name].bytes_moved(inputs) == 28_000


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.family == "optimizer"])
def test_registered_kernel_agrees_with_its_reference(name: str) -> None:
    kernel = KERNELS[name]
    fused, reference = (kernel.make_inputs(1003, torch.float32, torch.device("cpu"), 0) for _ in range(2))
    before = fused["streams"][0].clone()
    kernel.fused(**fused)
    kernel.reference(**reference)
    torch.testing.assert_close(fused["streams"], reference["streams"])
    assert not torch.equal(before, fused["streams"][0])


def test_counting_on_the_device_compiles_once_and_launches_once_a_step() -> None:
    p = torch.nn.Parameter(torch.empty(64))
    p.grad = torch.empty_like(p)
    with record_launches("sm_90") as recording:
        optimizer = FusedAdam([p], capturable=True)
        for step in range(10):
            optimizer.param_groups[0]["lr"] = 1.0 / (1 + step)
            optimizer.step()
    assert len(recording.launches) == 10
    assert recording.compilations == ["adam_kernel"]
    assert optimizer.state[p]["step"].item() == 10


def test_step_counts_of_a_group_share_memory_and_stay_scalars_of_their_own() -> None:
    params = parameters(torch.float32)
    optimizer = FusedAdam(params)
    for step in range(4):
        set_gradients(step, params)
        if step == 2:
            params[0].grad = None
        optimizer.step()
    counts = [optimizer.state[p]["step"] for p in params]
    assert [count.item() for count in counts] == [3.0] + [4.0] * (len(params) - 1)
    assert {count.shape for count in counts} == {torch.Size([])}
    optimizer.state[params[1]]["step"] = torch.tensor(10.0)
    optimizer.step()
    assert optimizer.state[params[1]]["step"].item() == 11.0
    assert optimizer.state[params[2]]["step"].item() == 5.0
