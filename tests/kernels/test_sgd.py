"""FusedSGD against torch.optim.SGD in float64, over its options."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fusetune.kernels import KERNELS, FusedSGD
from fusetune.kernels.optimizers.sgd import sgd_reference_, sgd_row
from tests.kernels.trajectories import (
    assert_within_bound,
    copies,
    largest_error,
    parameters,
    set_gradients,
)

pytestmark = [pytest.mark.processor, pytest.mark.usefixtures("cpu_path")]

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OPTIONS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.1, "maximize": True},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.5, "dampening": 0.5, "maximize": True},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_stays_within_the_bound_of_torch_in_every_dtype(options: dict[str, Any], dtype: torch.dtype) -> None:
    assert_within_bound(FusedSGD, torch.optim.SGD, options, dtype, steps=50)


def test_fp64_is_torchs_to_the_last_digits() -> None:
    ours = parameters(torch.float64)
    theirs = copies(ours)
    options: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    optimizers = [FusedSGD(ours, **options), torch.optim.SGD(theirs, **options)]
    for step in range(20):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-14


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_thousand_steps_with_weight_decay_stay_within_the_bound(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    assert_within_bound(FusedSGD, torch.optim.SGD, options, dtype, steps=2000)


def test_first_step_takes_the_gradient_whole_whatever_the_dampening() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = FusedSGD([p], lr=1.0, momentum=0.9, dampening=0.5)
    p.grad = torch.ones(3)
    optimizer.step()
    assert p.tolist() == [-1.0, -1.0, -1.0]
    optimizer.step()
    assert p.tolist() == pytest.approx([-1.0 - (0.9 + 0.5)] * 3)


def test_a_parameter_whose_gradient_arrives_late_has_a_first_step_of_its_own() -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}
    optimizers = [FusedSGD(ours, **options), torch.optim.SGD(theirs, **options)]
    for step in range(6):
        set_gradients(step, ours, theirs)
        if step < 3:
            ours[-1].grad = theirs[-1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5


def test_momentum_switched_on_later_starts_from_the_gradient() -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = [FusedSGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)]
    for step in range(6):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.param_groups[0]["momentum"] = 0.9 if step >= 3 else 0
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5


def test_skipped_first_step_leaves_the_next_one_the_first() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = FusedSGD([p], lr=1.0, momentum=0.9, dampening=0.5)
    p.grad = torch.ones(3)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(1.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert p.tolist() == [0.0] * 3
    optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert p.tolist() == [-1.0] * 3


def test_infinite_momentum_makes_no_nan_that_torch_does_not_make() -> None:
    p, g, b = torch.zeros(2), torch.ones(2), torch.tensor([float("inf"), 1.0])
    sgd_reference_((p, g, b), sgd_row(0.5, momentum=0.5))  # type: ignore[arg-type]
    assert p.tolist() == [-float("inf"), -0.75]


@pytest.mark.parametrize(("name", "bytes_per_element"), [("sgd", 12), ("momentum", 20)])
def test_registered_kernel_counts_its_traffic(name: str, bytes_per_element: int) -> None:
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(1000, torch.float32, torch.device("cpu"), 0)
    assert kernel.bytes_moved(inputs) == 1000 * bytes_per_element
