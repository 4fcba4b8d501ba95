"""What all tests share, those in tests/ and the examples in the docstrings of src/fusetune.

What needs a GPU is marked `gpu`, and `make gpu-check` runs it alone. All other tests see none, even where one is.
"""

from __future__ import annotations

import os

import pytest

# Test processes beside each other share the cores: threads that wait for each other's time slices cost more than they
# give. Set before torch is imported, and inherited by the processes that tests start.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import torch

# What a person tuned on this machine must not change what is tested. Tests of tuning unset it.
os.environ["FUSETUNE_TUNING"] = "pinned"


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPU from tests that are not about one: what they expect of devices and paths is the same everywhere."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine without one."""
    if torch.cuda.is_available():
        return
    absent = pytest.mark.skip(reason="needs a GPU; run `make gpu-check` on a machine with one")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(absent)
