"""clang compiles what gcc does: run with the real one, in a process of its own that has chosen it by $CC."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu import toolchain
from tests.kernels.cpu.compiled_code import assembly
from tests.kernels.cpu.test_shipped_kernels import check

ROOT = Path(__file__).parents[3]


@triton.jit
def softmax(x_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.program_id(0) * columns
    x = tl.load(x_ptr + row + i, mask=i < columns, other=-float("inf"))
    e = tl.exp(x - tl.max(x))
    tl.store(y_ptr + row + i, e / tl.sum(e), mask=i < columns)


@triton.jit
def exponential(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.exp(tl.load(x_ptr + i, mask=i < n)), mask=i < n)


def run_kernels() -> None:
    """What the process with clang does."""
    assert toolchain.is_clang()
    generator = np.random.default_rng(0)
    x = generator.standard_normal((40, 300)).astype(np.float32)
    y = torch.empty(40, 300)
    softmax[(40,)](torch.from_numpy(x), y, 300, BLOCK=512)
    exact = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(y.numpy(), exact / exact.sum(1, keepdims=True), rtol=1e-5)
    kernel = exponential[(12,)](torch.from_numpy(x), y, x.size, BLOCK=1024)
    np.testing.assert_allclose(y.numpy(), exact, rtol=4 * 2.0**-23)
    if platform.machine() == "x86_64" and toolchain.has_vector_math("expf"):
        assert re.search(r"call\w*\s+_ZGV\w+v_expf", assembly(kernel.asm["c"], toolchain.flags()))
    check("silu", torch.float32, 1001)
    check("gelu_tanh", torch.bfloat16, 1001)
    check("adam", torch.float32, 1001)


@pytest.mark.compilers
def test_a_few_kernels_by_clang(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.cpu.test_clang"],
        env={**os.environ, "CC": "clang", "TRITON_DEFAULT_BACKEND": "cpu", "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("softmax.so"))  # none came from another compiler's cache


if __name__ == "__main__":
    run_kernels()
