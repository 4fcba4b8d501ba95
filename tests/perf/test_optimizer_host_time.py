"""Host work of a fused step against torch's foreach on the same list of parameters.

Both sides only drive the device here. Ours launches through the stand-in driver, which compiles and writes down
instead of running, torch's foreach works on the same number of one-element tensors, so that what is timed is nearly
all Python and dispatch. `make perf` runs the rounds and prints them; an ordinary test run counts the work instead.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fusetune.bench.kernels.model_shapes import MODELS
from fusetune.kernels import FusedAdam, FusedSGD
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.test_recorded_steps import CountOperations

_ROUNDS = 9
_STEPS = 20

CASES = {
    "momentum": (FusedSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "adam": (FusedAdam, torch.optim.Adam, {}),
}


def _parameters(count: int) -> list[torch.nn.Parameter]:
    """Make parameters of one element, with gradients."""
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.ones(1)
    return parameters


def _microseconds(optimizer: torch.optim.Optimizer, move_gradients: bool) -> float:
    """Return the time of one step per parameter, without that of making new gradients."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total_s = 0.0
    for _ in range(_STEPS):
        if move_gradients:
            for parameter in parameters:
                parameter.grad = torch.ones(1)
        start_s = time.perf_counter()
        optimizer.step()
        total_s += time.perf_counter() - start_s
    return 1e6 * total_s / _STEPS / len(parameters)


@pytest.mark.parametrize("move_gradients", [False, True], ids=["in-place", "moved-gradients"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_takes_less_of_the_host_than_foreach(
    benchmark: BenchmarkFixture, name: str, move_gradients: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    fused_class, torch_class, options = CASES[name]
    count = len(MODELS["resnet50"])
    ours = fused_class(_parameters(count), **options)
    foreach = torch_class(_parameters(count), foreach=True, **options)
    fused_us: list[float] = []
    foreach_us: list[float] = []

    def compare() -> None:
        """Step foreach, ours, ours, foreach, so that a drift of the machine hits both alike."""
        for optimizer, times in (
            (foreach, foreach_us),
            (ours, fused_us),
            (ours, fused_us),
            (foreach, foreach_us),
        ):
            times.append(_microseconds(optimizer, move_gradients))

    with record_launches() as recording:
        for optimizer in (ours, foreach):  # states are made and the kernel is compiled in the first step
            optimizer.step()
        _hold_to_fewer_operations(ours, foreach)
        benchmark.pedantic(compare, rounds=_ROUNDS if benchmark.enabled else 1)
    assert len(recording.compilations) == 1
    if benchmark.enabled:
        ratios = [theirs / mine for theirs, mine in zip(foreach_us, fused_us, strict=True)]
        with capsys.disabled():
            print(
                f"\n{name}, {count} tensors: {statistics.median(fused_us):.1f} us of the host a parameter, foreach "
                f"{statistics.median(foreach_us):.1f}: {statistics.median(ratios):.1f} times "
                f"[{min(ratios):.1f}..{max(ratios):.1f}] (median [min..max] of {len(ratios)} interleaved rounds)"
            )


def _hold_to_fewer_operations(ours: torch.optim.Optimizer, foreach: torch.optim.Optimizer) -> None:
    """Assert that our step sends fewer operations through the dispatcher than foreach does."""

    def operations(step: Callable[[], object]) -> int:
        with CountOperations() as counter:
            step()
        return counter.count

    assert operations(ours.step) < operations(foreach.step)
