"""Which way the kernels go for CPU tensors: compiled by `kernels.cpu`, or plain PyTorch as where no compiler is."""

from __future__ import annotations

import pytest
import torch

from kernels import launch


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels on CPU tensors fall back to plain PyTorch."""
    torch._dynamo.reset()  # a compiled graph keeps the path that it was traced with
    monkeypatch.setattr(launch, "why_not_on_cpu", lambda: "no C compiler")


@pytest.fixture(params=["triton-cpu", "torch"])
def cpu_path(request: pytest.FixtureRequest) -> str:
    """Each of the two ways in turn."""
    if request.param == "torch":
        request.getfixturevalue("without_compiler")
    return str(request.param)
