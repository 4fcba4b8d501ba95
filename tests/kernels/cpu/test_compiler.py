"""The backend as Triton and its users meet it: stages, options, cache, autotuner, driver, a missing compiler."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.backends import backends
from triton.backends.compiler import GPUTarget

from fusetune.kernels.cpu import toolchain
from fusetune.kernels.cpu.compiler import CPUBackend
from fusetune.kernels.cpu.driver import CPUDriver, do_bench
from tests.kernels.cpu.compiled_code import X86, assembly, flags_for

ROOT = Path(__file__).parents[3]


@triton.jit
def scale(x_ptr, y_ptr, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) * factor + 1.0, mask=i < n)


@triton.jit
def gelu_tanh(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(y_ptr + i, x / (1 + tl.exp(-1.5957691 * (x + 0.044715 * x * x * x))), mask=i < n)


def test_asm_keeps_every_stage() -> None:
    x = torch.randn(100)
    kernel = scale[(1,)](x, x, 100, 2.0, BLOCK=128)
    assert "tt.load" in kernel.asm["ttir"]
    assert "tt_scale" in kernel.asm["c"]
    assert isinstance(kernel.asm["so"], bytes)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 assembly")
@pytest.mark.parametrize("jit", [scale, gelu_tanh], ids=["scale", "gelu_tanh"])
def test_contiguous_accesses_become_vector_accesses_without_a_mask(jit: triton.JITFunction) -> None:
    x = torch.randn(1000)
    arguments = (x, torch.empty(1000), 1000, *((2.0,) if jit is scale else ()))
    code = jit[(1,)](*arguments, BLOCK=1024).asm["c"]
    for target, register in (("avx2", "ymm"), ("avx512", "zmm")):
        text = assembly(code, flags_for(*X86[target]))
        assert re.search(rf"\s\w+ps\s+[^%\n]*\(%r\w+.*\),.* %{register}", text)  # a load of a whole vector
        assert re.search(rf"v?mov[ua]ps\s+%{register}\d+, [^%]*\(%r", text)  # a store of one
        assert "vmaskmov" not in text
        assert "gather" not in text


@pytest.mark.skipif(not toolchain.has_vector_math("expf"), reason="glibc has no vector functions here")
def test_functions_are_called_for_whole_vectors() -> None:
    x = torch.randn(1000)
    code = gelu_tanh[(1,)](x, torch.empty(1000), 1000, BLOCK=1024).asm["c"]
    for target, name in (("avx2", "_ZGVdN8v_expf"), ("avx512", "_ZGVeN16v_expf")):
        assert name in assembly(code, flags_for(*X86[target]))


def test_fused_multiply_add_can_be_turned_off() -> None:
    x = torch.full((16,), 1 + 2.0**-12)
    y = torch.empty(16)
    scale[(1,)](x, y, 16, 1 + 2.0**-12, BLOCK=16, enable_fp_fusion=False)
    assert torch.equal(y, x * (1 + 2.0**-12) + 1)


def test_the_autotuner_tunes_and_restores() -> None:
    tuned = triton.autotune(
        [triton.Config({"BLOCK": block}) for block in (128, 1024)], key=["n"], restore_value=["x_ptr"]
    )(scale)
    x = torch.randn(5000)
    expected = x * 2 + 1
    tuned[lambda meta: (triton.cdiv(5000, meta["BLOCK"]),)](x, x, 5000, 2.0)
    torch.testing.assert_close(x, expected)
    assert tuned.best_config.kwargs["BLOCK"] in (128, 1024)


@pytest.mark.parametrize("given", [{}, {"libdevice": "libdevice.10.bc"}, None], ids=str)
def test_no_library_is_linked_and_libdevice_is_there(given: dict[str, str] | None) -> None:
    y = torch.empty(16)
    scale[(1,)](torch.ones(16), y, 16, 2.0, BLOCK=16, extern_libs=given)
    assert (y == 3).all()


def test_another_library_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        ValueError, match=r"extern_libs: mine cannot be linked; .* has libdevice's functions alone"
    ):
        scale[(1,)](torch.ones(16), torch.empty(16), 16, 2.0, BLOCK=16, extern_libs={"mine": "mine.bc"})


@pytest.mark.parametrize("warps", [0, -4, 3, 12])
def test_the_number_of_warps_is_a_power_of_two(warps: int) -> None:
    """Triton's other backends raise the same error."""
    with pytest.raises(AssertionError, match=rf"num_warps: {warps} is given; it must be a power of 2"):
        scale[(1,)](torch.ones(16), torch.empty(16), 16, 2.0, BLOCK=16, num_warps=warps)


def test_heuristics_and_warmup() -> None:
    chosen = triton.heuristics({"BLOCK": lambda arguments: triton.next_power_of_2(arguments["n"])})(scale)
    x, y = torch.randn(100), torch.empty(100)
    chosen[(1,)](x, y, 100, 3.0)
    torch.testing.assert_close(y, x * 3 + 1)
    kernel = scale.warmup(torch.float32, torch.float32, 100, 2.0, BLOCK=64, grid=(1,))
    assert kernel.metadata.name == "scale"


def test_a_second_process_takes_the_kernel_from_the_cache(kernel_cache: Path) -> None:
    x = torch.randn(32)
    scale[(1,)](x, x, 32, 2.0, BLOCK=32)
    scale.device_caches.clear()
    written = {path: path.stat().st_mtime_ns for path in kernel_cache.rglob("scale.so")}
    assert written
    scale[(1,)](x, x, 32, 2.0, BLOCK=32)
    assert {path: path.stat().st_mtime_ns for path in kernel_cache.rglob("scale.so")} == written


def test_the_hash_tells_targets_apart() -> None:
    one, other = (CPUBackend(GPUTarget("cpu", arch, 1)).hash() for arch in ("a", "b"))
    assert one != other


@pytest.mark.parametrize(
    "first",
    [
        "triton",
        "fusetune.kernels.cpu.compiler",
        "fusetune.kernels.cpu.driver",
        "fusetune.kernels.cpu.toolchain",
    ],
)
def test_the_package_may_be_imported_in_any_order(first: str) -> None:
    code = f"import {first}, triton; from fusetune.kernels.cpu.compiler import CPUBackend; print(CPUBackend.binary_ext)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "so", done.stderr


def test_the_driver_steps_back_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CPUDriver.is_active()
    monkeypatch.setattr(backends["nvidia"].driver, "is_active", staticmethod(lambda: True))
    assert not CPUDriver.is_active()
    monkeypatch.setenv("TRITON_DEFAULT_BACKEND", "cpu")
    assert CPUDriver.is_active()


def test_the_benchmarker_returns_what_is_asked() -> None:
    calls: list[int] = []
    samples = do_bench(lambda: calls.append(1), warmup=0, rep=1, return_mode="all")
    assert len(samples) == len(calls)
    low, high = do_bench(lambda: None, warmup=0, rep=1, quantiles=[0.2, 0.8])
    assert 0 < low <= high
