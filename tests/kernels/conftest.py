"""Which way the kernels go for CPU tensors: compiled by `kernels.cpu`, or plain PyTorch as where no compiler is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import triton
from triton.backends import Backend, backends
from triton.runtime import driver

from fusetune.kernels import launch
from fusetune.kernels.activations import api as activations
from fusetune.kernels.cpu.compiler import CPUBackend
from fusetune.kernels.cpu.driver import CPUDriver


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triton's cache for the tests alone."""
    return tmp_path_factory.mktemp("triton")


@pytest.fixture
def cpu_driver(kernel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CPUDriver]:
    """The driver of a machine without a GPU, where the package is installed; undone afterwards."""
    monkeypatch.setitem(backends, "cpu", Backend(CPUBackend, CPUDriver))
    previous = driver._active
    active = CPUDriver()
    driver.set_active(active)
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(kernel_cache)
        yield active
    # Where there was none this one stays: Triton 3.8 asks the active driver to unload each kernel that is collected.
    driver.set_active(previous or active)


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels on CPU tensors fall back to plain PyTorch."""
    torch._dynamo.reset()  # a compiled graph keeps the path that it was traced with
    monkeypatch.setattr(launch, "why_not_on_cpu", lambda: "no C compiler")
    monkeypatch.setattr(activations, "_EAGER_CALLS", {})  # those that were worked out with one


@pytest.fixture(params=["triton-cpu", "torch"])
def cpu_path(request: pytest.FixtureRequest) -> str:
    """Each of the two ways in turn."""
    request.getfixturevalue("cpu_driver" if request.param == "triton-cpu" else "without_compiler")
    return str(request.param)
