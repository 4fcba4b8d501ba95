"""The kernels compiled for the CPU against PyTorch's own, in pairs, on one thread and on all.

`make perf` runs the rounds and prints them; an ordinary test run only proves that both sides do the same work.
"""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from fusetune.bench.kernels.model_shapes import MODELS
from fusetune.bench.pytest_plugin import KernelBenchmark
from fusetune.kernels import FusedAdam, activation
from fusetune.kernels.activations.functions import FUNCTIONS
from fusetune.kernels.activations.kernels import forward_kernel, index_types, launch_config
from fusetune.kernels.launch import launch, why_not_on_cpu
from fusetune.kernels.optimizers.adam import adam_kernel
from tests.perf.competitors import (
    OPTIMIZERS,
    assert_same_loss,
    bias_and_activation,
    optimizers,
    parameters,
    steps_of_a_small_model,
)
from tests.perf.race import Race, Side


@pytest.fixture(autouse=True)
def compiler() -> None:
    """Without one there is nothing to time."""
    assert why_not_on_cpu() is None, why_not_on_cpu()


_SMALL: Sequence[tuple[int, ...]] = [(1000,), (7, 11)]
_TENSORS: dict[str, Sequence[tuple[int, ...]]] = {
    "10^4": [(10**4,)],
    "10^6": [(10**6,)],
    "1.6*10^7": [(16 * 10**6,)],
    "resnet50": MODELS["resnet50"],
}


@triton.jit
def copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n), mask=i < n)


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("tensors", _TENSORS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_against_fused_and_foreach(
    benchmark: BenchmarkFixture, name: str, tensors: str, threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = _TENSORS[tensors] if benchmark.enabled else _SMALL
    sides = optimizers(name, shapes, "cpu")
    assert sides["ours"].path == "triton-cpu"
    steps: dict[str, Side] = {key: optimizer.step for key, optimizer in sides.items()}
    Race(steps).run_and_say(benchmark, capsys, f"{name}, {tensors}, threads {threads}")
    if not benchmark.enabled:  # as many steps on each side
        ours, fused = (sides[key].param_groups[0]["params"] for key in ("ours", "fused"))
        torch.testing.assert_close(ours, fused, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "tanh", "sigmoid"])
def test_bias_and_activation_against_eager_and_compiled(
    benchmark: BenchmarkFixture, name: str, direction: str, threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, columns = (2048, 3072) if benchmark.enabled else (5, 96)
    x, bias, dy = torch.randn(rows, columns), torch.randn(columns), torch.randn(rows, columns)
    sides = bias_and_activation(name, direction, x, bias, dy, compiled=benchmark.enabled)
    Race(sides).run_and_say(
        benchmark, capsys, f"bias + {name}, {direction}, {rows} x {columns}, threads {threads}"
    )
    torch.testing.assert_close(sides["ours"](), sides["eager"](), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("elements", [10**6, 10**7], ids=["4-MB", "40-MB"])
def test_a_copy_against_torch(
    benchmark: BenchmarkFixture, elements: int, threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    elements = elements if benchmark.enabled else 1000
    x = torch.randn(elements)
    ours, theirs = torch.empty_like(x), torch.empty_like(x)
    grid = (triton.cdiv(elements, 4096),)
    sides: dict[str, Side] = {
        "ours": lambda: copy[grid](x, ours, elements, BLOCK=4096),
        "copy_": lambda: theirs.copy_(x),
    }
    Race(sides).run_and_say(benchmark, capsys, f"copy, {elements} elements, threads {threads}")
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adam", "relu", "relu_backward", "hardswish", "hardswish_backward", "reglu"]
)
def test_a_kernels_bandwidth_against_a_copy_and_its_competitors(
    kernel_benchmark: KernelBenchmark, name: str, threads: int
) -> None:
    if not kernel_benchmark.enabled and threads > 1:
        pytest.skip("it is verified with one thread")
    kernel_benchmark(name, 2_000_000 if kernel_benchmark.enabled else 1000, threads=threads)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_an_optimizers_kernel_on_a_models_parameters(
    kernel_benchmark: KernelBenchmark, name: str, threads: int
) -> None:
    if not kernel_benchmark.enabled:
        pytest.skip("a model's parameters take seconds: other sizes are verified")
    kernel_benchmark(name, "resnet50", threads=threads)


def test_a_launch(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = torch.randn(16), torch.zeros(16)
    compiled = copy[(1,)](x, y, 16, BLOCK=16)
    run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
    sides: dict[str, Side] = {
        "ours": lambda: run(1, 1, 1, 0, function, metadata, None, None, None, x, y, 16, 16),
        "with Triton's binder": lambda: copy[(1,)](x, y, 16, BLOCK=16),
    }
    Race(sides).run_and_say(benchmark, capsys, "a launch of 16 elements")
    assert torch.equal(x, y)


def test_the_way_to_a_kernel(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """From Python to a launch: everything, and with the shared object in Triton's cache."""
    small = parameters([(1000,)], "cpu")
    folders = (tmp_path / str(place) for place in itertools.count())

    def launch_in(folder: Path) -> None:
        adam_kernel.device_caches.clear()
        triton.knobs.cache.dir = str(folder)
        FusedAdam(small).step()

    with triton.knobs.cache.scope():
        warm = next(folders)
        launch_in(warm)  # what is worked out once a process: the compiler's version, a hash of our code
        sides: dict[str, Side] = {
            "from the cache": lambda: launch_in(warm),
            "compiled": lambda: launch_in(next(folders)),
        }
        Race(sides).run_and_say(benchmark, capsys, "the Adam kernel, from the cache")
    adam_kernel.device_caches.clear()
    assert all(torch.isfinite(parameter).all() for parameter in small)


def test_a_call_of_an_activation(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = torch.randn(16), torch.zeros(16)
    row = FUNCTIONS["silu"]

    def bound() -> Tensor:
        launch(
            forward_kernel,
            (1,),
            x,
            None,
            y,
            16,
            0,
            1,
            1,
            1,
            (),
            config=launch_config(x.dtype, False),
            VALUE=row.value,
            GATED=False,
            PRECISION="fp32",
            HAS_TAIL=False,
            **index_types(16, 1),
        )
        return y

    sides: dict[str, Side] = {
        "ours": lambda: activation(x, "silu"),
        "its launch by Triton's binder": bound,
        "torch": lambda: torch.nn.functional.silu(x),
    }
    Race(sides).run_and_say(benchmark, capsys, "silu of 16 elements")
    assert torch.equal(bound(), activation(x, "silu"))


def test_a_step_of_a_small_model(
    benchmark: BenchmarkFixture, threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = steps_of_a_small_model("cpu")
    Race(dict(sides)).run_and_say(benchmark, capsys, f"a step of a small model, threads {threads}")
    if not benchmark.enabled:
        assert_same_loss(sides)
