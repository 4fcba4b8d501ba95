"""Which way kernels take on this machine, in fresh processes: Triton chooses its driver once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from triton.runtime import driver

from fusetune.kernels.launch import path_on, why_not_on_cpu

CPU = torch.device("cpu")
STEP = """
import torch
from fusetune.kernels import FusedSGD
p = torch.nn.Parameter(torch.ones(5))
p.grad = torch.ones(5)
optimizer = FusedSGD([p], lr=0.25)
optimizer.step()
print(optimizer.path, p.tolist())
"""


def run(code: str, **environment: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_triton_finds_the_backend_by_itself() -> None:
    code = "import triton; print(type(triton.runtime.driver.active).__name__, *triton.backends.backends)"
    assert run(code).split() == ["CPUDriver", *run("import triton; print(*triton.backends.backends)").split()]


def test_importing_triton_imports_no_kernel_of_ours() -> None:
    code = "import sys, triton; print(*sorted(name for name in sys.modules if name.startswith('fusetune')))"
    assert set(run(code).split()) <= {
        "fusetune",
        "fusetune.exports",
        "fusetune.kernels",
        "fusetune.kernels.cpu",
        "fusetune.kernels.cpu.cache",
        "fusetune.kernels.cpu.compiler",
        "fusetune.kernels.cpu.driver",
        "fusetune.kernels.cpu.launch_timer",
        "fusetune.kernels.cpu.rounding",
        "fusetune.kernels.cpu.toolchain",
        "fusetune.kernels.triton_inside",
        "fusetune.kernels.private_directory",
        "fusetune.kernels.trust",
        "fusetune.errors",
        "fusetune.closest_name",
    }


def test_an_optimizer_steps_compiled_for_the_cpu() -> None:
    assert run(STEP) == "triton-cpu [0.75, 0.75, 0.75, 0.75, 0.75]"


def test_without_a_compiler_it_falls_back_to_torch_and_says_so() -> None:
    assert run(STEP, CC="no-such-compiler") == "torch [0.75, 0.75, 0.75, 0.75, 0.75]"


@pytest.mark.slow
def test_the_interpreter_goes_first_where_it_is_asked_for() -> None:
    assert run(STEP, TRITON_INTERPRET="1") == "interpreter [0.75, 0.75, 0.75, 0.75, 0.75]"


@contextmanager
def active(other: object) -> Iterator[None]:
    """Another driver in Triton's place."""
    before = driver.active
    driver.set_active(other)
    try:
        yield
    finally:
        driver.set_active(before)


def test_cpu_tensors_go_by_torch_where_a_gpu_has_the_driver() -> None:
    assert path_on(CPU) == "triton-cpu"
    with active(object()):
        assert path_on(CPU) == "torch"
    assert path_on(torch.device("cuda")) == "triton"
    assert path_on(torch.device("meta")) == "torch"


def test_an_unregistered_backend_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusetune.kernels.launch.backends", {"nvidia": object()})
    why_not_on_cpu.cache_clear()
    try:
        assert path_on(CPU) == "torch"
        assert "pip install" in str(why_not_on_cpu())
    finally:
        why_not_on_cpu.cache_clear()
