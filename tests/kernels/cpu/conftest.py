"""Every test here has the CPU backend for its driver, and a cache of its own."""

from __future__ import annotations

import pytest

from fusetune.kernels.cpu.driver import CPUDriver

# `--doctest-modules` imports every file, and only `make libraries` installs Helion.
collect_ignore = ["helion_kernels.py"]


@pytest.fixture(autouse=True)
def always(cpu_driver: CPUDriver) -> None:
    """The driver of every test."""
