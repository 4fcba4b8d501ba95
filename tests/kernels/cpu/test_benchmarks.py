"""What Triton's own benchmarks and tutorials ask of a driver: events, device properties, and a kernel's registers."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import driver
from triton.testing import Benchmark, do_bench, perf_report


def test_events_keep_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    interface = driver.active.get_device_interface()
    start, end = (interface.Event(enable_timing=True) for _ in range(2))
    start.record()
    end.record()
    end.synchronize()
    interface.synchronize()
    assert start.elapsed_time(end) == 250.0
    assert interface.current_device() == torch.cpu.current_device()


@triton.jit
def one(o_ptr):
    tl.atomic_add(o_ptr, 1)


def test_do_bench_calls_and_returns_what_is_asked() -> None:
    count = torch.zeros(1, dtype=torch.int32)
    samples = do_bench(lambda: one[(1,)](count), warmup=1, rep=2, return_mode="all")
    assert count.item() >= len(samples) + 6
    assert all(sample > 0 for sample in samples)
    low, high = do_bench(lambda: one[(1,)](count), warmup=1, rep=2, quantiles=[0.2, 0.8])
    assert 0 < low <= high
    assert do_bench(lambda: one[(1,)](count), warmup=1, rep=2, return_mode="median") > 0


def test_perf_report_writes_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    benchmark = Benchmark(["n"], [1, 2], "by", ["ours"], ["ours"], ylabel="ms", plot_name="rows", args={})

    @perf_report(benchmark)
    def measured(n: int, by: str) -> float:
        count = torch.zeros(1, dtype=torch.int32)
        return float(do_bench(lambda: one[(n,)](count), warmup=1, rep=2))

    measured.run(save_path=str(tmp_path), show_plots=False, print_data=False)
    table = pandas.read_csv(tmp_path / "rows.csv")
    assert list(table["n"]) == [1, 2]
    assert (table.iloc[:, 1] > 0).all()


@triton.jit
def softmax_kernel(
    output_ptr,
    input_ptr,
    input_row_stride,
    output_row_stride,
    n_rows,
    n_cols,
    BLOCK_SIZE: tl.constexpr,
    num_stages: tl.constexpr,
):
    for row in tl.range(tl.program_id(0), n_rows, tl.num_programs(0), num_stages=num_stages):
        i = tl.arange(0, BLOCK_SIZE)
        x = tl.load(input_ptr + row * input_row_stride + i, mask=i < n_cols, other=-float("inf"))
        numerator = tl.exp(x - tl.max(x, axis=0))
        tl.store(
            output_ptr + row * output_row_stride + i, numerator / tl.sum(numerator, axis=0), mask=i < n_cols
        )


def softmax(x: torch.Tensor, num_warps: int) -> tuple[torch.Tensor, int]:
    """The host's side of the tutorial on softmax, as it has it for GPUs that are not AMD's."""
    device: Any = driver.active.get_active_torch_device()
    properties = driver.active.utils.get_device_properties(device.index)
    num_sm = properties["multiprocessor_count"]
    num_regs = properties["max_num_regs"]
    size_smem = properties["max_shared_mem"]
    warp_size = properties["warpSize"]
    n_rows, n_cols = x.shape
    block_size = triton.next_power_of_2(n_cols)
    num_stages = 4 if size_smem > 200000 else 2
    y = torch.empty_like(x)
    arguments = (y, x, x.stride(0), y.stride(0), n_rows, n_cols)
    kernel = softmax_kernel.warmup(
        *arguments, BLOCK_SIZE=block_size, num_stages=num_stages, num_warps=num_warps, grid=(1,)
    )
    kernel._init_handles()
    occupancy = num_regs // (kernel.n_regs * warp_size * num_warps)
    occupancy = min(occupancy, size_smem // kernel.metadata.shared)
    num_programs = min(num_sm * occupancy, n_rows)
    kernel[(num_programs, 1, 1)](*arguments, block_size, num_stages)
    return y, num_programs


@pytest.mark.parametrize("num_warps", [1, 8, 32])
def test_the_tutorial_on_softmax_runs_as_it_is_written(num_warps: int) -> None:
    x = torch.randn(123, 781)
    y, programs = softmax(x, num_warps)
    assert programs == 123  # a program takes so little that no row waits for another
    torch.testing.assert_close(y, torch.softmax(x, 1))


def test_a_thread_is_a_multiprocessor() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert driver.active.utils.get_device_properties(0)["multiprocessor_count"] == 3
    finally:
        torch.set_num_threads(before)
