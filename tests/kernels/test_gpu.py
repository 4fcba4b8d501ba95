"""What only a GPU can show: run on one by `make gpu-check`, skipped elsewhere.

Every kernel against its reference, launches per step as the profiler sees them, capture in a CUDA graph, and the
bandwidth reached beside that of a copy on the same device (recorded in the report, not asserted).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.testing import do_bench

from fusetune.bench.kernels.model_shapes import MODELS
from fusetune.kernels import KERNELS, FusedAdamW, FusedSGD, activation
from fusetune.kernels.activations.api import reference
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.launch import path_of
from tests.kernels.binder import binder_runs
from tests.kernels.probe_kernels import add_kernel
from tests.kernels.special_values import RULE, assert_rule

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Rebuild arguments with every tensor in them changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [map_tensors(each, change) for each in value]
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """List every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [tensor for each in value for tensor in tensors_in(each)] if isinstance(value, list | tuple) else []
    )


def results(name: str, run: Callable[..., Any], inputs: dict[str, Any]) -> list[Tensor]:
    """Return what a kernel or its reference returned and what it changed, in float64."""
    returned = run(**inputs)
    changed = [inputs[key] for key in KERNELS[name].mutates]
    return [tensor.double() for tensor in tensors_in([returned, changed])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("elements", [1, 4099, 1 << 20])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_as_close_to_float64_as_its_reference(
    name: str, elements: int, dtype: torch.dtype
) -> None:
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(elements, dtype, DEVICE, 0)
    copies = map_tensors(inputs, torch.clone)
    exact = results(name, kernel.reference, map_tensors(inputs, Tensor.double))
    reference = results(name, kernel.reference, copies)
    fused = results(name, kernel.fused, inputs)
    assert exact
    for ours, theirs, truth in zip(fused, reference, exact, strict=True):
        allowed = 4 * (theirs - truth).abs().max() + 8 * torch.finfo(dtype).eps * truth.abs().max()
        assert (ours - truth).abs().max() <= allowed


def trainable(model: str, seed: int = 0) -> list[torch.nn.Parameter]:
    """Make a model's parameters with gradients."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    params = []
    for shape in MODELS[model]:
        param = torch.nn.Parameter(torch.randn(shape, device=DEVICE, generator=generator))
        param.grad = torch.randn(shape, device=DEVICE, generator=generator)
        params.append(param)
    return params


def test_kernels_take_the_triton_path() -> None:
    assert path_of(add_kernel, DEVICE) == "triton"


def test_what_was_launched_before_is_launched_without_the_binder() -> None:
    """On two streams, aligned and not, and with the gradients on the stream of their forward pass."""
    memory = torch.randn(4097, device=DEVICE)
    weight = torch.nn.Parameter(torch.randn(4096, device=DEVICE))
    optimizer = FusedSGD([weight], lr=0.1, momentum=0.9)
    side = torch.cuda.Stream()

    def step(offset: int, stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            x = memory[offset : offset + 4096]
            scaled = (x * weight).detach().requires_grad_()
            y = activation(scaled, "silu")
            (dx,) = torch.autograd.grad(y.sum(), scaled)
            exact = scaled.detach().double().requires_grad_()
            wanted = torch.nn.functional.silu(exact)
            torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-6)
            (wanted_dx,) = torch.autograd.grad(wanted.sum(), exact)
            torch.testing.assert_close(dx.double(), wanted_dx, rtol=1e-5, atol=1e-6)
            activation(x, "relu")
            weight.grad = dx
            optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)

    for offset in (0, 1, 0):
        step(offset, torch.cuda.current_stream())
    for offset in (0, 1):
        for stream in (torch.cuda.current_stream(), side):
            assert binder_runs(lambda: step(offset, stream)) == 0  # noqa: B023 - called at once


@pytest.mark.parametrize("model", MODELS)
def test_the_profiler_sees_one_kernel_a_step(model: str) -> None:
    optimizer = FusedAdamW(trainable(model))
    for _ in range(3):
        optimizer.step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            optimizer.step()
        torch.cuda.synchronize()
    on_device = [
        event.name
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("Mem")  # type: ignore[attr-defined]
    ]
    assert on_device == 5 * ["adam_kernel"]


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_captured_step_replays_as_an_eager_one(name: str) -> None:
    def make(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        rate = torch.tensor(1e-3, device=DEVICE)
        if name == "adamw":
            return FusedAdamW(params, lr=rate, capturable=True)
        return FusedSGD(params, lr=rate, momentum=0.9)

    captured, eager = trainable("resnet50"), trainable("resnet50")
    graphed, stepwise = make(captured), make(eager)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            graphed.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        graphed.step()
    for rate in (1e-3, 5e-4, 1e-4):
        graphed.param_groups[0]["lr"].fill_(rate)
        graph.replay()
    for rate in (1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 1e-4):
        stepwise.param_groups[0]["lr"].fill_(rate)
        stepwise.step()
    for ours, theirs in zip(captured, eager, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_stochastic_rounding_moves_weights_that_rounding_to_nearest_leaves(graph: bool) -> None:
    params = [torch.nn.Parameter(torch.ones(1 << 20, dtype=torch.bfloat16, device=DEVICE))]
    params[0].grad = torch.ones_like(params[0])
    # A fiftieth of the distance to the next bf16 below 1 a step.
    optimizer = FusedSGD(params, lr=2.0**-8 / 50, stochastic_rounding=True)
    optimizer.step()
    steps = 1
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            optimizer.step()
        for _ in range(9):
            captured.replay()
            steps += 1
    else:
        for _ in range(9):
            optimizer.step()
            steps += 1
    expected = 1 - steps * 2.0**-8 / 50
    # 2^20 draws: the mean is off by less than a hundredth of a step's move with near certainty.
    assert params[0].double().mean().item() == pytest.approx(expected, abs=2.0**-8 / 500)


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, row in FUNCTIONS.items() for dtype in row.approximate_ulp]
)
def test_the_approximate_variant_holds_its_stated_error(name: str, dtype: torch.dtype) -> None:
    row = FUNCTIONS[name]
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32, device=DEVICE).to(torch.int16)
    x = bits.view(dtype)
    x = x[x.isfinite()]
    # A factor is worked out first, and is 0 where it is below the normal numbers of fp32.
    smallest = torch.finfo(dtype).tiny + torch.finfo(torch.float32).tiny * x.double().abs()
    if row.gated:
        x = torch.stack([x, torch.ones_like(x)], dim=-1)
    exact = reference(x.double(), name)
    found = activation(x, name, approximate=True)
    unit = torch.exp2(exact.abs().clamp_min(torch.finfo(dtype).tiny).log2().floor()) * torch.finfo(dtype).eps
    tail = 5e-9 if name in ("gelu", "geglu") and dtype == torch.bfloat16 else 0.0
    error = (found.double() - exact).abs()
    allowed = row.approximate_ulp[dtype] * unit + tail + smallest
    assert torch.equal(error, error.minimum(allowed)), f"x = {x[~(error <= allowed)].tolist()}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", RULE)
def test_infinities_and_nan_follow_the_rule(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0] * 9, dtype=dtype, device=DEVICE)
    leaf = x.clone().requires_grad_()
    y = activation(leaf, name)
    (slope,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    assert_rule(name, y.detach().cpu(), slope.cpu(), x.cpu())


@pytest.mark.parametrize("name", KERNELS)
def test_bandwidth_beside_a_copy(name: str, record_property: Callable[[str, object], None]) -> None:
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(1 << 26, torch.float32, DEVICE, 0)
    source = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    kernel_s = do_bench(lambda: kernel.fused(**inputs), return_mode="median") / 1e3
    copy_s = do_bench(lambda: target.copy_(source), return_mode="median") / 1e3
    record_property("device", torch.cuda.get_device_name())
    record_property("bytes_per_s", kernel.bytes_moved(inputs) / kernel_s)
    record_property("copy_bytes_per_s", 2 * source.nbytes / copy_s)
    # Less would fit the cache, whose bandwidth this is not.
    assert kernel.bytes_moved(inputs) > 4 * torch.cuda.get_device_properties(DEVICE).L2_cache_size
