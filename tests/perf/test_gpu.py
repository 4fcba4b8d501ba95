"""The kernels on a GPU against PyTorch's own, in pairs: `make gpu-perf` prints them.

Without timing, as in `make gpu-check`, each shows once that both sides do the same work.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fusetune.bench.kernels.model_shapes import MODELS
from tests.perf.competitors import (
    OPTIMIZERS,
    assert_same_loss,
    bias_and_activation,
    optimizers,
    steps_of_a_small_model,
)
from tests.perf.race import Race, Side

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")
_TENSORS: dict[str, Sequence[tuple[int, ...]]] = {
    "10^4": [(10**4,)],
    "resnet50": MODELS["resnet50"],
    "gpt2_124m": MODELS["gpt2_124m"],
}


@pytest.mark.parametrize("tensors", _TENSORS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_against_fused_and_foreach(
    benchmark: BenchmarkFixture, name: str, tensors: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = optimizers(name, _TENSORS[tensors], "cuda")
    assert sides["ours"].path == "triton"
    steps: dict[str, Side] = {key: optimizer.step for key, optimizer in sides.items()}
    Race(steps).run_and_say(benchmark, capsys, f"{name}, {tensors}")
    if not benchmark.enabled:  # as many steps on each side
        ours, fused = (sides[key].param_groups[0]["params"] for key in ("ours", "fused"))
        torch.testing.assert_close(ours, fused, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_bias_and_activation_against_eager_and_compiled(
    benchmark: BenchmarkFixture,
    name: str,
    dtype: torch.dtype,
    direction: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, columns = (16384, 4096) if benchmark.enabled else (5, 96)
    generator = torch.Generator(DEVICE).manual_seed(0)
    x, dy = torch.randn((2, rows, columns), generator=generator, device=DEVICE).to(dtype)
    bias = torch.randn(columns, generator=generator, device=DEVICE).to(dtype)
    sides = bias_and_activation(name, direction, x, bias, dy, compiled=benchmark.enabled)
    Race(sides).run_and_say(benchmark, capsys, f"bias + {name}, {direction}, {dtype}, {rows} x {columns}")
    if dtype == torch.float32:
        torch.testing.assert_close(sides["ours"](), sides["eager"](), rtol=1e-4, atol=1e-3)


def test_a_step_of_a_small_model(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Here the host is what takes time."""
    sides = steps_of_a_small_model("cuda")
    Race(dict(sides)).run_and_say(benchmark, capsys, "a step of a small model")
    if not benchmark.enabled:
        assert_same_loss(sides)
