"""Every test here has the CPU backend for its driver, and a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import triton
from triton.backends import Backend, backends
from triton.runtime import driver

from kernels.cpu.compiler import CPUBackend
from kernels.cpu.driver import CPUDriver


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(autouse=True)
def cpu_driver(kernel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CPUDriver]:
    """What the entry point and an installed package would do; undone afterwards."""
    monkeypatch.setitem(backends, "cpu", Backend(CPUBackend, CPUDriver))
    previous = driver._active
    active = CPUDriver()
    driver.set_active(active)
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(kernel_cache)
        yield active
    # Where there was none this one stays: Triton 3.8 asks the active driver to unload each kernel that is collected.
    driver.set_active(previous or active)
