"""The C of a kernel becomes vector code for CPUs that this machine need not have: read from the assembly."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import platform
import re
from collections.abc import Iterator

import pytest
import torch
import triton
import triton.language as tl

from tests.kernels.cpu.compiled_code import assembly, flags_for, forget_compiler, shipped_c

NAMES = ("add", "adam", "silu")


@triton.jit
def add(x_ptr, y_ptr, sum_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x, y = tl.load(x_ptr + i, mask=i < n), tl.load(y_ptr + i, mask=i < n)
    tl.store(sum_ptr + i, x + y, mask=i < n)


@pytest.fixture
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The C of a kernel in fp32, as on a machine without x86's vector functions."""
    monkeypatch.setattr("fusetune.kernels.cpu.lowering.math.has_vector_math", lambda function: False)
    if request.param != "add":
        return shipped_c(request.param)
    x = torch.randn(1000)
    add.device_caches.clear()
    return str(add[(1,)](x, x, torch.empty(1000), 1000, BLOCK=1024).asm["c"])


@pytest.fixture
def compiler_for_arm(code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler in use, once the code is there."""
    monkeypatch.setenv("CC", "aarch64-linux-gnu-gcc")
    forget_compiler()
    yield
    monkeypatch.undo()
    forget_compiler()


def has_loop(code: str, target: list[str], *patterns: str) -> bool:
    """Say whether the assembly for a target has a loop with all of some instructions, and no arithmetic on scalars."""
    text = assembly(code, flags_for("-ffp-contract=fast", *target))
    return any(
        all(re.search(pattern, loop) for pattern in patterns) and not re.search(_ON_SCALARS, loop)
        for loop in _loops(text)
    )


_ON_SCALARS = r"v(?:add|mul|sub|fn?m(?:add|sub)\d+)s[sd]\s|\sf(?:add|mul|sub|n?madd|n?msub)\s+[sd]\d"


def _loops(text: str) -> Iterator[str]:
    """The lines from each label to the last jump back to it; what clang branches around inside is among them."""
    lines = text.splitlines()
    places = {
        line.partition(":")[0]: number for number, line in enumerate(lines) if re.match(r"\.L\w+:", line)
    }
    ends: dict[int, int] = {}
    for number, line in enumerate(lines):
        jump = re.match(r"\s+(?:j\w+|b\.?\w*|cbn?z\s.*)\s+(\.L\w+)\b", line)
        if jump and places.get(jump[1], number) < number:
            ends[places[jump[1]]] = number
    for start, end in ends.items():
        yield "\n".join(lines[start:end])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs a compiler for x86")
@pytest.mark.parametrize("code", NAMES, indirect=True)
def test_avx_512_takes_16_lanes_at_once(code: str) -> None:
    target = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"]
    load = r"v\w+ps\s+[^%\n]*\(%r.*\),.*%zmm"
    arithmetic = r"v(?:add|mul|sub|fn?m(?:add|sub)\d+)ps\s.*%zmm"
    store = r"vmov[ua]ps\s+%zmm\d+, [^%\n]*\(%r"
    assert has_loop(code, target, load, arithmetic, store)


@pytest.mark.compilers
@pytest.mark.usefixtures("compiler_for_arm")
@pytest.mark.parametrize("code", NAMES, indirect=True)
def test_neon_takes_4_lanes_at_once(code: str) -> None:
    load, store = r"ld[rp]\s+q\d+", r"st[rp]\s+q\d+"
    arithmetic = r"f(?:add|mul|sub|ml[as])\s+v\d+\.4s"
    assert has_loop(code, ["-march=armv8-a"], load, arithmetic, store)
