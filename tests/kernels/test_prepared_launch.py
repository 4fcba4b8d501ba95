"""A launch that is made again and again does without Triton's binder, and with nothing that the binder would notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
from torch import nn

from fusetune.kernels import FusedSGD, activation, replace_activations
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.binder import binder_runs

pytestmark = pytest.mark.usefixtures("cpu_driver")


def training_step(kind: type[torch.optim.Optimizer]) -> Callable[[], Any]:
    """A step of a convolution with a plain activation, a bias with one, and a gated pair."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.GELU())
    replace_activations(model)
    bias, x = nn.Parameter(torch.zeros(8)), torch.randn(5, 1, 8, 8)
    optimizer = kind([*model.parameters(), bias], lr=0.1)  # type: ignore[call-arg]

    def step() -> None:
        optimizer.zero_grad()
        hidden = activation(model(x), "silu", bias)
        activation(hidden, "swiglu").sum().backward()
        optimizer.step()

    return step


def test_a_step_that_was_made_before_never_enters_the_binder() -> None:
    step = training_step(FusedSGD)
    assert binder_runs(step) == 9  # forward and backward of four activations, one launch of the optimizer
    # The second update finds momentum's state, or another branch of the kernel: it may be bound anew.
    step()
    assert binder_runs(step) == 0
    with torch.no_grad():
        assert binder_runs(lambda: activation(torch.randn(5, 8), "silu", torch.zeros(8))) == 0


def test_on_a_gpu_neither() -> None:
    """By the stand-in driver: the launches that are recorded without the binder are those that it made."""
    step = training_step(FusedSGD)
    with record_launches("sm_90") as recording:
        step()
        step()
        bound = len(recording.launches)
        assert binder_runs(step) == 0
    per_step = bound // 2
    assert per_step == 9
    assert recording.launches[bound:] == recording.launches[per_step:bound]


def test_on_an_amd_gpu_the_binder_looks_each_time() -> None:
    """It compiles for the size of a tensor's storage, too."""
    x = torch.randn(64)
    with record_launches("gfx942") as recording:
        assert [binder_runs(lambda: activation(x, "relu")) for _ in range(3)] == [1, 1, 1]
    assert recording.compilations == ["forward_kernel"]


@pytest.mark.parametrize("name", ["gelu", "swiglu"])
def test_another_alignment_is_compiled_for_and_right(name: str) -> None:
    memory, bias = torch.randn(2 * 64 + 1), torch.randn(65)
    for offset in (0, 1, 0, 1):
        x = memory[offset : offset + 128].view(2, 64).requires_grad_()
        b = bias[offset : offset + 64]
        y = activation(x, name, b)
        (dx,) = torch.autograd.grad(y.sum(), x)
        exact = x.detach().double().requires_grad_()
        wanted = activation(exact, name, b.double())
        torch.testing.assert_close(y.double(), wanted, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            dx.double(), torch.autograd.grad(wanted.sum(), exact)[0], rtol=1e-5, atol=1e-5
        )
    with record_launches("sm_90") as recording:
        for offset in (0, 1, 0, 1):
            activation(memory[offset : offset + 128], "relu")
    assert ["x_ptr" in launch.aligned for launch in recording.launches] == [True, False, True, False]


def test_values_of_parameters_are_not_kept() -> None:
    """A zero's sign included, which a dictionary does not tell apart."""
    x = torch.tensor([-1.0, 2.0])
    for slope in (0.0, -0.0, 0.25, 0.0):
        y = activation(x, "leaky_relu", negative_slope=slope)
        assert y.tolist() == [slope * -1.0, 2.0]
        assert torch.signbit(y[0]).item() == (math.copysign(1, slope) > 0)


@pytest.mark.slow
def test_the_same_shape_in_another_dtype_layout_or_function_is_another_call() -> None:
    x = torch.randn(2, 6, 4)
    for tensor in (x, x.half(), x.transpose(0, 2), x.transpose(0, 2).contiguous(), x[:, :, ::2]):
        for name in ("silu", "tanh"):
            for bias_dim in (0, 1, -1):
                shape = [1, 1, 1]
                shape[bias_dim] = -1
                for dtype in (torch.float32, torch.bfloat16):
                    bias = torch.randn(tensor.shape[bias_dim], dtype=dtype)
                    y = activation(tensor, name, bias, bias_dim=bias_dim)
                    exact = FUNCTIONS[name].torch_value(tensor.double() + bias.view(shape).double())
                    eps = torch.finfo(tensor.dtype).eps
                    torch.testing.assert_close(y.double(), exact, rtol=2 * eps, atol=2 * eps)


def test_what_was_refused_stays_refused_beside_a_call_that_is_known() -> None:
    x = torch.randn(4, 8)
    activation(x, "relu", torch.zeros(8))
    for _ in range(2):
        with pytest.raises(ValueError, match="does not fit dimension 0"):
            activation(x, "relu", torch.zeros(8), bias_dim=0)
        with pytest.raises(ValueError, match="negative_slope of 'leaky_relu' is nan"):
            activation(x, "leaky_relu", negative_slope=float("nan"))
        with pytest.raises(TypeError, match="takes no 'alpha'"):
            activation(x, "relu", torch.zeros(8), alpha=1.0)


def test_whoever_listens_is_told_of_every_launch() -> None:
    x = torch.randn(64)
    activation(x, "mish")
    told: list[str] = []

    def hear(metadata: Any) -> None:
        told.append(metadata.get()["name"])

    triton.knobs.runtime.launch_enter_hook.add(hear)
    try:
        activation(x, "mish")
        activation(x, "mish")
    finally:
        triton.knobs.runtime.launch_enter_hook.remove(hear)
    activation(x, "mish")
    assert told == ["forward_kernel"] * 2


def test_a_hook_before_a_kernels_runs_is_called() -> None:
    from fusetune.kernels.activations.kernels import forward_kernel

    x = torch.randn(64)
    activation(x, "mish")
    seen: list[int] = []
    forward_kernel.add_pre_run_hook(lambda *arguments, **_: seen.append(arguments[3]))
    try:
        activation(x, "mish")
    finally:
        forward_kernel.pre_run_hooks.clear()
    assert seen == [64]


def test_a_hook_before_an_optimizers_kernel_runs_is_called_at_every_step() -> None:
    weight = nn.Parameter(torch.ones(64))
    optimizer = FusedSGD([weight], lr=0.1)
    weight.grad = torch.ones(64)
    for _ in range(3):
        optimizer.step()
    kernel: Any = optimizer._kernel
    seen: list[int] = []
    kernel.add_pre_run_hook(lambda *_, **__: seen.append(len(seen)))
    try:
        optimizer.step()
        optimizer.step()
    finally:
        kernel.pre_run_hooks.clear()
    optimizer.step()
    assert seen == [0, 1]
    torch.testing.assert_close(weight.detach(), torch.full((64,), 0.4))


def test_a_tensor_that_must_be_copied_first_costs_no_allocation_to_find_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocate = torch.empty_like
    allocated: list[torch.Size] = []

    def counted(x: torch.Tensor, **options: Any) -> torch.Tensor:
        result = allocate(x, **options)
        if result.device.type == "cpu":
            allocated.append(result.shape)
        return result

    monkeypatch.setattr(torch, "empty_like", counted)
    activation(torch.randn(1000, 20)[:, ::2], "relu")
    assert allocated == [(1000, 10)] * 2  # the copy and the result


def test_forward_before_and_backward_after_a_change_of_driver() -> None:
    x = torch.randn(64, requires_grad=True)
    with record_launches("sm_90"):
        y = activation(x, "relu")
        y.data.copy_(torch.relu(x.data))  # the stand-in launches nothing
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(dx, (x > 0).float())
