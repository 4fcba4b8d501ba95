"""Forecasts from machine code, held to figures that others measured and published."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from fusetune.bench.kernels.datasheets import DATASHEETS, TYPICAL, datasheet_of
from fusetune.bench.kernels.forecast import COPY_SHARE, ISSUE_SHARE, Forecast, forecast
from fusetune.errors import InvalidValueError
from fusetune.kernels import KERNELS, Kernel
from fusetune.kernels.static import StaticReport
from fusetune.kernels.static.gpu_targets import TARGETS

# kernel, dtype, target, bytes per second, source
PUBLISHED = [
    (
        "relu",
        "float16",
        "sm_100",
        6.553e12,
        "CUB's DeviceTransform, relu, 2^28 elements: NVIDIA/cccl pull request 7391",
    ),
    (
        "tanh",
        "float32",
        "sm_100",
        6.043e12,
        "CUB's DeviceTransform, tanh, 2^28 elements: NVIDIA/cccl pull request 7391",
    ),
    ("relu", "float32", "sm_90", 3.02e12, "copy on an H100 SXM, 3,016 to 3,024 GB/s"),
    ("adamw", "float32", "sm_89", 0.920e12, "llm.c on an RTX 4090: karpathy/llm.c pull request 377"),
    ("relu", "float32", "sm_80=A100 PCIe", 1.727e12, "a copy by torch on an A800 PCIe"),
    ("relu", "float32", "sm_86", 0.5496e12, "Triton's add on an A10G, 91.6 % of its memory's bandwidth"),
]


@pytest.mark.parametrize(("name", "dtype", "target", "bytes_per_s", "source"), PUBLISHED)
def test_a_published_figure(name: str, dtype: str, target: str, bytes_per_s: float, source: str) -> None:
    said = forecast(KERNELS[name], 2**20, getattr(torch, dtype), [target])[target]
    assert said.seconds is not None
    assert said.bytes_per_element / said.seconds == pytest.approx(bytes_per_s, rel=0.15), source
    assert said.verdict.startswith("memory-bound")


def test_gelu_in_16_bits_is_issue_bound_on_a_b200_as_was_measured() -> None:
    """CUB's has 2.832 TB/s, against 6.553 TB/s of relu. The constant of the model was set by this figure."""
    said = forecast(KERNELS["gelu"], 2**20, torch.float16, ["sm_100"])["sm_100"]
    assert said.seconds is not None
    assert said.verdict.startswith("issue-bound, 2.")
    assert said.bytes_per_element / said.seconds == pytest.approx(2.832e12, rel=0.15)


def _report(**changed: Any) -> StaticReport:
    values: dict[str, Any] = {
        "case": "x",
        "target": "sm_90",
        "registers": 32,
        "spills": 0,
        "shared_bytes": 0,
        "barriers": 0,
        "branches": 0,
        "calls": 0,
        "instructions": 100,
        "accesses": (),
        "instructions_per_element": 10.0,
        "occupancy": 1.0,
        "bytes_in_flight": 64,
    }
    return StaticReport(**(values | changed))


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((2.0, 2.0, 1.0), "memory-bound, 100 % of copy"),
        ((2.0, 2.0, 2.05), "memory-bound, 98 % of copy"),
        ((2.0, 4.0, 1.0), "latency-bound, 50 % of copy"),
        ((2.0, 2.0, 3.8), "issue-bound, 1.9x the memory time"),
        ((2.0, 2.0, None), "no forecast, because the kernel loops"),
    ],
)
def test_a_verdict_names_the_longest_time(times: tuple[float, float, float | None], verdict: str) -> None:
    assert Forecast("a GPU", (_report(),), 8.0, 10.0, *times).verdict == verdict


def test_the_three_times_of_an_element() -> None:
    """By hand: 8 bytes and some instructions of one element on 132 multiprocessors of 128 lanes at 1.98 GHz."""
    said = forecast(KERNELS["relu"], 2**20, torch.float32, ["sm_90"])["sm_90"]
    assert said.memory_s == pytest.approx(8 / (COPY_SHARE * 3350e9))
    assert said.latency_s == said.memory_s  # 64 KiB in flight, where 16 KiB hide the latency
    assert said.instructions_per_element is not None
    assert said.issue_s is not None
    assert said.issue_s == pytest.approx(said.instructions_per_element / (ISSUE_SHARE * 132 * 128 * 1.98e9))


@triton.jit
def _sum_in_a_loop(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + i, mask=i < n, other=0.0)
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


def _inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
    return {"x": torch.zeros(elements, dtype=dtype, device=device), "y": torch.zeros(256, device=device)}


def test_a_kernel_that_loops_has_no_forecast_but_its_facts() -> None:
    def fused(x: torch.Tensor, y: torch.Tensor) -> None:
        _sum_in_a_loop[(1,)](x, y, x.numel(), BLOCK=256, enable_fp_fusion=True)

    kernel = Kernel("loops", fused, fused, _inputs, bytes_moved=lambda inputs: inputs["x"].nbytes)
    said = forecast(kernel, 4096, torch.float32, ["sm_90"])["sm_90"]
    assert said.verdict == "no forecast, because the kernel loops"
    assert "bytes_per_s" not in said.as_dict()
    assert said.as_dict()["registers"] == said.reports[0].registers > 0


def test_what_cannot_be_forecast_is_said() -> None:
    plain = Kernel("plain", lambda x, y: x, lambda x, y: x, _inputs, bytes_moved=lambda _: 1)
    with pytest.raises(InvalidValueError, match=r"plain: launches no @triton.jit function"):
        forecast(plain, 64, torch.float32, ["sm_90"])
    with pytest.raises(InvalidValueError, match=r"--static: unknown 'sm_91'; known: .*sm_90"):
        forecast(plain, 64, torch.float32, ["sm_91"])
    with pytest.raises(InvalidValueError, match=r"--static: unknown 'H20'; known: .*H200"):
        forecast(plain, 64, torch.float32, ["sm_90=H20"])


def test_every_target_has_a_typical_gpu() -> None:
    assert set(TYPICAL) == set(TARGETS)
    assert set(TYPICAL.values()) <= set(DATASHEETS)


def test_the_names_of_drivers_lead_to_data_sheets() -> None:
    named = {"NVIDIA A10G": "A10", "NVIDIA H100 PCIe": "H100 PCIe", "NVIDIA L4": "L4", "Tesla T4": "T4"}
    for name, expected in named.items():
        found = datasheet_of(name)
        assert found is not None
        assert found.name == expected
    for unknown in ("NVIDIA L40S", "NVIDIA A100X", "NVIDIA RTX A6000", ""):
        assert datasheet_of(unknown) is None
