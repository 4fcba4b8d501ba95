"""What needs a GPU is marked `gpu`: skipped, with the reason, where there is none; `make gpu-check` runs it alone."""

from __future__ import annotations

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine without one."""
    if torch.cuda.is_available():
        return
    absent = pytest.mark.skip(reason="needs a GPU; run `make gpu-check` on a machine with one")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(absent)
