"""What a step of the fused optimizers launches and does on the host, by the stand-in driver."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import FusedAdam, FusedAdamW, FusedSGD
from kernels.recorder import record_launches
from tests.kernels.model_shapes import MODELS, Shapes

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, **rest: FusedSGD(params, lr=0.1, **rest),
    "momentum": lambda params, **rest: FusedSGD(params, lr=0.1, momentum=0.9, **rest),
    "adam": lambda params, **rest: FusedAdam(params, **rest),
    "adamw": lambda params, **rest: FusedAdamW(params, **rest),
}


class CountOperations(TorchDispatchMode):
    """Count the tensor operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def parameters(shapes: Shapes, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """Make parameters with gradients; nothing reads them, so their memory is never touched."""
    params = [torch.nn.Parameter(torch.empty(shape, dtype=dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.empty_like(param)
    return params


@pytest.mark.parametrize(
    ("model", "tensors", "count"),
    [("resnet50", 161, 25_557_032), ("vit-b-16", 152, 86_567_656), ("gpt2-124m", 148, 124_439_808)],
)
def test_shapes_are_those_of_the_published_models(model: str, tensors: int, count: int) -> None:
    assert len(MODELS[model]) == tensors
    assert sum(map(math.prod, MODELS[model])) == count


@pytest.mark.parametrize("name", ["momentum", "adamw"])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_is_one_launch_for_the_whole_model(model: str, name: str) -> None:
    params = parameters(MODELS[model], torch.bfloat16)
    optimizer = OPTIMIZERS[name](params)
    with record_launches() as recording:
        optimizer.step()
    (launch,) = recording.launches
    blocks = sum(-(-param.numel() // launch.constants["BLOCK_SIZE"]) for param in params)
    assert launch.programs == blocks
    assert recording.compilations == [launch.kernel]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_of_a_changing_learning_rate_compile_once(name: str) -> None:
    params = parameters([(64, 3, 3, 3), (64,), (10, 64), (10,)])
    optimizer = OPTIMIZERS[name](params)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    with record_launches() as recording:
        optimizer.step()
        compiled_first = list(recording.compilations)
        for _ in range(99):
            schedule.step()
            optimizer.zero_grad()
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.step()
    assert len(recording.launches) == 100
    # Adam's first step has corrections of exactly 1: nothing of that kind may be compiled in.
    assert recording.compilations == compiled_first
    assert len({(launch.grid, launch.num_warps) for launch in recording.launches}) == 1


def test_groups_share_a_launch() -> None:
    decayed, plain = parameters([(64, 64), (128, 64)]), parameters([(64,), (128,)])
    optimizer = FusedAdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "lr": 1e-2}])
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 1


def test_each_combination_of_dtypes_is_a_launch() -> None:
    params = [*parameters([(64, 64)]), *parameters([(64, 64)], torch.bfloat16)]
    optimizer = FusedAdamW(params)
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 2


def test_one_misaligned_parameter_costs_no_launch() -> None:
    storage = torch.empty(65)
    odd = torch.nn.Parameter(storage[1:])
    odd.grad = torch.empty(64)
    optimizer = FusedAdamW([*parameters([(64, 64)]), odd])
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 1


def operations_of_a_step(name: str, tensors: int) -> int:
    """Count the tensor operations of a third step."""
    optimizer = OPTIMIZERS[name](parameters(tensors * [(32, 8)]))
    with record_launches():
        optimizer.step()
        optimizer.step()
        with CountOperations() as operations:
            optimizer.step()
    return operations.count


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_tensor_operations_of_a_step_do_not_grow_with_the_parameters(name: str) -> None:
    few, many = operations_of_a_step(name, 8), operations_of_a_step(name, 128)
    assert many == few
    assert many <= 20
