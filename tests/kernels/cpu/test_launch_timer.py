from __future__ import annotations

import pytest
import torch

from fusetune.kernels import KERNELS, timed_launches
from fusetune.kernels.launch import compiles_for_cpu

pytestmark = pytest.mark.skipif(not compiles_for_cpu(), reason="kernels are not compiled for the CPU here")


def relu_inputs(elements: int) -> dict[str, torch.Tensor]:
    return KERNELS["relu"].make_inputs(elements, torch.float32, torch.device("cpu"), 0)


def test_each_launch_has_its_time_and_its_result() -> None:
    inputs = relu_inputs(5000)
    expected = KERNELS["relu"].reference(**inputs)
    KERNELS["relu"].fused(**inputs)
    with timed_launches() as seconds:
        results = [KERNELS["relu"].fused(**inputs) for _ in range(3)]
    assert len(seconds) == 3
    assert all(0 < each < 1 for each in seconds)
    assert all(torch.equal(result, expected) for result in results)


def test_launches_whose_arguments_are_kept_are_timed_too() -> None:
    parameter = torch.nn.Parameter(torch.ones(100))
    parameter.grad = torch.ones(100)
    from fusetune.kernels import FusedSGD

    optimizer = FusedSGD([parameter], lr=0.1)
    for _ in range(3):
        optimizer.step()
    with timed_launches() as seconds:
        optimizer.step()
        optimizer.step()
    assert len(seconds) == 2


def test_outside_of_the_context_nothing_is_timed() -> None:
    inputs = relu_inputs(100)
    with timed_launches() as seconds:
        pass
    KERNELS["relu"].fused(**inputs)
    with timed_launches() as outer:
        with timed_launches() as inner:
            KERNELS["relu"].fused(**inputs)
        KERNELS["relu"].fused(**inputs)
    assert (len(seconds), len(outer), len(inner)) == (0, 1, 1)
