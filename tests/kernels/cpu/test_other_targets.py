"""The C of a kernel becomes vector code for CPUs that this machine need not have: read from the assembly."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest
import torch
import triton
import triton.language as tl

from kernels.cpu import toolchain
from tests.kernels.cpu.test_shipped_vectorised import compiled

NAMES = ("add", "adam", "silu")


@triton.jit
def add(x_ptr, y_ptr, sum_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x, y = tl.load(x_ptr + i, mask=i < n), tl.load(y_ptr + i, mask=i < n)
    tl.store(sum_ptr + i, x + y, mask=i < n)


@pytest.fixture
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The C of a kernel in fp32, as on a machine without x86's vector functions."""
    monkeypatch.setattr("kernels.cpu.lowering.math.has_vector_math", lambda function: False)
    if request.param != "add":
        return compiled(request.param)
    x = torch.randn(1000)
    add.device_caches.clear()
    return str(add[(1,)](x, x, torch.empty(1000), 1000, BLOCK=1024).asm["c"])


def loops(command: list[str], code: str) -> list[str]:
    """The loops without a branch inside in what a compiler makes of C code."""
    wanted = [flag for flag in toolchain.flags() if flag not in toolchain._flags_for_this_cpu()]
    whole = [*command, *wanted, "-ffp-contract=fast", "-S", "-x", "c", "-", "-o", "-"]
    done = subprocess.run(whole, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.finditer(r"(?m)^(\.L\w+):.*\n((?:\s+.*\n)+?)\s+(?:j\w+|b\.?\w+|cbn?z\s.*)\s+\1\b", done.stdout)
    return [match[2] for match in found]


def takes(command: list[str]) -> bool:
    done = subprocess.run(
        [*command, "-S", "-x", "c", "/dev/null", "-o", "/dev/null"], capture_output=True, check=False
    )
    return done.returncode == 0


def has_all(loop: str, patterns: tuple[str, ...]) -> bool:
    return all(re.search(pattern, loop) for pattern in patterns)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs a compiler for x86")
@pytest.mark.parametrize("code", NAMES, indirect=True)
def test_avx_512_takes_16_lanes_at_once(code: str) -> None:
    command = [*toolchain.command(), "-march=x86-64-v4", "-mprefer-vector-width=512"]
    if not takes(command):
        pytest.skip(f"{toolchain.compiler_version()} does not know x86-64-v4")
    load = r"v\w+ps\s+[^%\n]*\(%r.*\),.*%zmm"
    arithmetic = r"v(?:add|mul|sub|fn?m(?:add|sub)\d+)ps\s.*%zmm"
    store = r"vmov[ua]ps\s+%zmm\d+, [^%\n]*\(%r"
    assert any(has_all(loop, (load, arithmetic, store)) for loop in loops(command, code))


@pytest.mark.parametrize("code", NAMES, indirect=True)
def test_neon_takes_4_lanes_at_once(code: str) -> None:
    if platform.machine() == "aarch64":
        command = list(toolchain.command())
    else:
        if shutil.which("aarch64-linux-gnu-gcc") is None:
            pytest.skip("no compiler for ARM: install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
        if toolchain.is_clang():
            pytest.skip("the flags are clang's, the compiler for ARM is gcc")
        command = ["aarch64-linux-gnu-gcc"]
    command.append("-march=armv8-a")
    load, store = r"ld[rp]\s+q\d+", r"st[rp]\s+q\d+"
    arithmetic = r"f(?:add|mul|sub|ml[as])\s+v\d+\.4s"
    assert any(has_all(loop, (load, arithmetic, store)) for loop in loops(command, code))
